"""Which ready subtask starts next, and on which idle agent.

Ready subtasks wait in heaps, one for each set of agents that fit (a bit an agent), so
a match looks at a few heap tops however many subtasks wait.
"""

from collections import Counter
from collections.abc import Collection, Sequence, Set
from heapq import heappop, heappush

from mas.core.graph import remaining_path_s
from mas.model import AgentSpec, Plan


class _Agent:
    __slots__ = ("attempts", "bit", "capabilities", "id", "is_retired")

    def __init__(self, spec: AgentSpec, bit: int) -> None:
        self.id = spec.id
        self.bit = bit
        self.capabilities = frozenset(spec.capabilities)
        self.attempts = 0
        self.is_retired = False


class Matcher:
    """Ready subtasks on one side, idle agents on the other.

    Subtasks go by priority, then the longest way that hangs on them, then the plan's
    order. An agent fits a subtask if none that is not retired covers more of what it
    requires, and it covers at least one (any agent fits where nothing is required).
    """

    def __init__(self, plan: Plan, roster: Sequence[AgentSpec]) -> None:
        remaining = remaining_path_s(plan)
        ordered = sorted(
            plan.subtasks, key=lambda item: (-item.priority, -remaining[item.id])
        )
        self._by_rank = [subtask.id for subtask in ordered]
        self._rank = {key: rank for rank, key in enumerate(self._by_rank)}
        self._need = {
            subtask.id: frozenset(subtask.required_capabilities) for subtask in ordered
        }
        self._demand = Counter(name for need in self._need.values() for name in need)
        self._agents = [_Agent(spec, 1 << n) for n, spec in enumerate(roster)]
        self._by_id = {agent.id: agent for agent in self._agents}
        self._idle = 0
        self._fit: dict[frozenset[str], int] = {}
        self._heaps: dict[int, list[int]] = {}
        self._ready: dict[int, int] = {}  # rank to the agents that failed it
        self._assess_fit()

    def can_run(self, subtask_id: str) -> bool:
        """Whether an agent fits that may be idle now or later."""
        return bool(self._fit[self._need[subtask_id]])

    def why_unfit(self, subtask_id: str) -> str:
        """The words for a subtask that cannot run any more."""
        need = sorted(self._need[subtask_id])
        return f"no agent left for {', '.join(need)}" if need else "no agent left"

    def push(self, subtask_id: str, avoid: Collection[str] = ()) -> None:
        """The subtask is ready; rather not for the agents in ``avoid``."""
        rank = self._rank[subtask_id]
        self._ready[rank] = sum(
            agent.bit for key in avoid if (agent := self._by_id.get(key))
        )
        self._enqueue(rank)

    def forget(self, subtask_id: str) -> None:
        """The subtask is finished: it neither waits nor needs an agent any more."""
        for name in self._need[subtask_id]:
            self._demand[name] -= 1
        # Its entry in the heap stays and is dropped when it comes to the top.
        self._ready.pop(self._rank[subtask_id], None)

    def free(self, agent_id: str) -> None:
        """The agent is idle."""
        self._idle |= self._by_id[agent_id].bit

    def remove(self, agent_id: str) -> None:
        """The agent is gone for now."""
        self._idle &= ~self._by_id[agent_id].bit

    def retire(self, agent_id: str) -> None:
        """The agent is gone for good: find anew who fits what."""
        self._by_id[agent_id].is_retired = True
        self._assess_fit()
        self._heaps.clear()
        for rank in self._ready:
            self._enqueue(rank)

    def is_retired(self, agent_id: str) -> bool:
        return self._by_id[agent_id].is_retired

    @property
    def ready_subtasks(self) -> set[str]:
        """The ids of those that wait for an agent."""
        return {self._by_rank[rank] for rank in self._ready}

    def next_match(self) -> tuple[str, str] | None:
        """Take the first ready subtask with a fitting idle agent, and that agent."""
        if not self._idle:
            return None
        best: list[int] | None = None
        candidates = 0
        for fit, heap in self._heaps.items():
            while heap and heap[0] not in self._ready:
                heappop(heap)
            if heap and fit & self._idle and (best is None or heap[0] < best[0]):
                best = heap
                candidates = fit & self._idle
        if best is None:
            return None
        rank = heappop(best)
        agent = self._choose(candidates, self._ready.pop(rank))
        agent.attempts += 1
        self._idle &= ~agent.bit
        return self._by_rank[rank], agent.id

    def _choose(self, candidates: int, avoid: int) -> _Agent:
        """The one of ``candidates`` that others need least, then the least used."""
        if not candidates & (candidates - 1):  # only one, as most of the time
            return self._agents[candidates.bit_length() - 1]
        # The subtask's own demand is counted too, alike for all: they cover as much.
        return min(
            (agent for agent in self._agents if agent.bit & candidates),
            key=lambda agent: (
                bool(agent.bit & avoid),
                sum(self._demand[name] for name in agent.capabilities),
                agent.attempts,
            ),
        )

    def _enqueue(self, rank: int) -> None:
        fit = self._fit[self._need[self._by_rank[rank]]]
        heappush(self._heaps.setdefault(fit, []), rank)

    def _assess_fit(self) -> None:
        agents = [agent for agent in self._agents if not agent.is_retired]
        for need in set(self._need.values()):
            most = max((len(need & agent.capabilities) for agent in agents), default=0)
            self._fit[need] = sum(
                agent.bit
                for agent in agents
                if len(need & agent.capabilities) == most and (most or not need)
            )

    def check_invariants(self, *, unfinished: Collection[str], idle: Set[str]) -> None:
        """For tests: assert that counters and heaps say what they stand for."""
        demand = Counter(name for key in unfinished for name in self._need[key])
        assert +self._demand == demand
        assert {agent.id for agent in self._agents if agent.bit & self._idle} == idle
        for rank in self._ready:
            fit = self._fit[self._need[self._by_rank[rank]]]
            assert self._heaps[fit].count(rank) == 1
            assert not fit & self._idle, f"{self._by_rank[rank]} could run now"
