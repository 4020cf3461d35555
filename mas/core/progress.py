"""How far each subtask is: a fold over the recorded facts, the same live and replayed.

``TRANSITIONS`` is every step that a subtask's status may take. A fact that asks for
another is a bug, and is refused with the subtask's story.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mas.core.events import (
    AttemptFinished,
    AttemptStarted,
    Fact,
    ResultIgnored,
    SubtaskFinished,
)
from mas.core.graph import dependents_of
from mas.core.policy import resumes_session
from mas.errors import MasError
from mas.model import FailureKind, Plan, Status, Subtask

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    # Not begun, or between two attempts.
    Status.PENDING: frozenset({Status.IN_PROGRESS, Status.FAILED, Status.CANCELLED}),
    # From the start of an attempt until it is decided what follows from its end.
    Status.IN_PROGRESS: frozenset(
        {Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    ),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}

_FAILURES_TOLD = 5


class Node:
    """One subtask and what the facts say about it."""

    __slots__ = (
        "agent_id",
        "attempts",
        "dependents",
        "error",
        "failed_on",
        "failure",
        "failures",
        "id",
        "ignored",
        "last",
        "losses",
        "running",
        "session_id",
        "story",
        "waits_for",
    )

    def __init__(self, subtask: Subtask) -> None:
        self.id = subtask.id
        self.dependents: list[Node] = []
        self.waits_for = len(set(subtask.dependencies))
        """How many dependencies are not completed."""
        self.attempts = 0
        self.failures = 0
        """Attempts that count against the limit."""
        self.losses = 0
        """Those of them in which the agent was lost."""
        self.failed_on: set[str] = set()
        """Agents, by id."""
        self.agent_id: str | None = None
        """Who made the last attempt."""
        self.session_id: str | None = None
        """The last attempt's session."""
        self.failure: FailureKind | None = None
        """Why the last attempt failed, if it did."""
        self.ignored: set[int] = set()
        """Attempts that came to another end when they had ended already."""
        self.running: AttemptStarted | None = None
        self.last: Status | None = None
        """How the last attempt ended, while nothing has followed from it yet."""
        self.error: str | None = None
        self.story: list[tuple[float | None, str]] = []

    def next_attempt(
        self, agent_id: str, new_session_id: Callable[[], str]
    ) -> AttemptStarted:
        """The next attempt, in the former session where that was only cut off."""
        cut_off = self.failure is not None and resumes_session(self.failure)
        former = self.session_id if cut_off else None
        return AttemptStarted(
            subtask_id=self.id,
            attempt=self.attempts + 1,
            agent_id=agent_id,
            session_id=former or new_session_id(),
            resumes=bool(former),
        )

    def ignoring(self, event: AttemptFinished) -> ResultIgnored | None:
        """What to record of the end of an attempt that is not live.

        That is nothing where the attempt never began, or was ignored before.
        """
        number = event.attempt
        if not 1 <= number <= self.attempts or number in self.ignored:
            return None
        if number < self.attempts:
            error = f"attempt {number} was superseded by attempt {self.attempts}"
        elif self.running is not None:
            error = f"attempt {number} runs on {self.running.agent_id}"
        else:
            error = f"attempt {number} had ended already"
            error += f": {self.error}" if self.error else ""
        return ResultIgnored(
            subtask_id=self.id,
            attempt=number,
            agent_id=event.agent_id,
            status=event.status,
            error=error,
        )


class Progress:
    """The state of every subtask of a plan, as the facts so far make it."""

    def __init__(self, plan: Plan) -> None:
        self.nodes = {subtask.id: Node(subtask) for subtask in plan.subtasks}
        for key, dependents in dependents_of(plan).items():
            self.nodes[key].dependents = [self.nodes[item] for item in dependents]
        self._statuses = dict.fromkeys(self.nodes, Status.PENDING)
        self.statuses: Mapping[str, Status] = MappingProxyType(self._statuses)
        self.unfinished = len(self.nodes)

    def apply(self, fact: Fact, now: float | None) -> None:
        """Take in a fact; ``now`` is for the story, None for facts of a former run."""
        match fact:
            case AttemptStarted():
                self._attempt_started(self.nodes[fact.subtask_id], fact, now)
            case AttemptFinished():
                self._attempt_finished(self.nodes[fact.subtask_id], fact, now)
            case ResultIgnored():
                self._result_ignored(self.nodes[fact.subtask_id], fact, now)
            case SubtaskFinished():
                self._subtask_finished(self.nodes[fact.subtask_id], fact, now)
            case _:
                pass  # nothing about a subtask

    @property
    def all_completed(self) -> bool:
        return all(status is Status.COMPLETED for status in self._statuses.values())

    def failure_summary(self) -> str:
        """How many did not complete, and why the first of them failed."""
        count = Counter(self._statuses.values())
        parts = [f"{count[Status.FAILED]} of {len(self.nodes)} subtasks failed"]
        if count[Status.CANCELLED]:
            parts[0] += f", {count[Status.CANCELLED]} cancelled"
        failed = [key for key in self.nodes if self._statuses[key] is Status.FAILED]
        parts += [f"{key}: {self.nodes[key].error}" for key in failed[:_FAILURES_TOLD]]
        if len(failed) > _FAILURES_TOLD:
            parts.append("…")
        return "; ".join(parts)

    def story(self, subtask_id: str) -> str:
        """What happened to the subtask, a line an event."""
        lines = [f"subtask {subtask_id!r}, {self._statuses[subtask_id]}:"]
        for now, text in self.nodes[subtask_id].story:
            lines.append(f"  {'before' if now is None else f'{now:.3f} s'}: {text}")
        return "\n".join(lines)

    def _attempt_started(
        self, node: Node, fact: AttemptStarted, now: float | None
    ) -> None:
        node.story.append((now, f"attempt {fact.attempt} started on {fact.agent_id}"))
        if fact.attempt != node.attempts + 1:
            raise self._illegal(node, f"attempt {fact.attempt} out of turn")
        self._move(node, Status.IN_PROGRESS)
        node.attempts = fact.attempt
        node.agent_id = fact.agent_id
        node.session_id = fact.session_id
        node.failure = None
        node.running = fact

    def _attempt_finished(
        self, node: Node, fact: AttemptFinished, now: float | None
    ) -> None:
        text = f"attempt {fact.attempt} {fact.status} on {fact.agent_id}"
        node.story.append((now, f"{text}: {fact.error}" if fact.error else text))
        if node.running is None or node.running.attempt != fact.attempt:
            raise self._illegal(node, f"attempt {fact.attempt} was not running")
        node.running = None
        node.error = fact.error
        node.failure = fact.failure
        node.last = fact.status
        if fact.status is Status.COMPLETED:
            return
        # What ended with its supervisor, or for its credentials, is tried for free.
        if fact.retry_in_s != 0:
            node.failures += 1
            node.losses += fact.failure is FailureKind.AGENT_LOST
            node.failed_on.add(fact.agent_id)
        if fact.retry_in_s is not None:
            node.last = None
            self._move(node, Status.PENDING)

    def _result_ignored(
        self, node: Node, fact: ResultIgnored, now: float | None
    ) -> None:
        text = f"attempt {fact.attempt} {fact.status} on {fact.agent_id}, too late"
        node.story.append((now, f"{text}: {fact.error}"))
        node.ignored.add(fact.attempt)

    def _subtask_finished(
        self, node: Node, fact: SubtaskFinished, now: float | None
    ) -> None:
        text = f"the subtask is {fact.status}"
        node.story.append((now, f"{text}: {fact.error}" if fact.error else text))
        if node.running is not None:
            raise self._illegal(node, "it is finished while an attempt runs")
        self._move(node, fact.status)
        node.error = fact.error
        node.last = None
        self.unfinished -= 1
        if fact.status is Status.COMPLETED:
            for dependent in node.dependents:
                dependent.waits_for -= 1

    def _move(self, node: Node, status: Status) -> None:
        before = self._statuses[node.id]
        if status not in TRANSITIONS[before]:
            raise self._illegal(node, f"{before} cannot become {status}")
        self._statuses[node.id] = status

    def _illegal(self, node: Node, words: str) -> MasError:
        return MasError(
            f"the scheduler broke its own rules for subtask {node.id!r}: {words}",
            hint="This is a bug in mas; please report it with the lines below.",
            evidence=self.story(node.id),
        )

    def check_invariants(self) -> None:
        """For tests: assert what the counters stand for."""
        statuses = self._statuses
        final = [status.is_final for status in statuses.values()]
        assert self.unfinished == final.count(False)
        open_dependencies = Counter(
            dependent.id
            for node in self.nodes.values()
            if statuses[node.id] is not Status.COMPLETED
            for dependent in node.dependents
        )
        for node in self.nodes.values():
            assert node.waits_for == open_dependencies[node.id], self.story(node.id)
            if node.running is not None:
                assert statuses[node.id] is Status.IN_PROGRESS, self.story(node.id)
