"""The scheduler through random plans, rosters, losses, failures, cancels and crashes.

``Referee`` knows the rules: it allows or refuses each command, and after each step the
scheduler must agree with what the recorded facts say.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec.structs import replace

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    CancelRequested,
    Fact,
    SchedulerInput,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.model import AgentSpec, FailureKind, Plan, Status, Subtask
from tests.core.referee import Referee

TIMEOUT_S = 40.0
CAPABILITIES = st.sampled_from([(), ("x",), ("y",), ("x", "y"), ("x", "y", "z")])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 8))
    subtasks = []
    for number in range(size):
        above = st.lists(st.integers(0, max(0, number - 1)), max_size=2)
        subtasks.append(
            Subtask(
                id=f"k{number}",
                description="do it",
                required_capabilities=draw(CAPABILITIES),
                dependencies=tuple(f"k{n}" for n in draw(above)) if number else (),
                priority=draw(st.integers(4, 6)),
                estimated_duration=draw(st.integers(1, 3)),
            )
        )
    return Plan(tuple(draw(st.permutations(subtasks))))


rosters = st.lists(CAPABILITIES, min_size=1, max_size=4).map(
    lambda items: tuple(
        AgentSpec(id=f"agent_{n}", capabilities=item) for n, item in enumerate(items)
    )
)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        plan=plans(),
        roster=rosters,
        max_attempts=st.integers(1, 3),
        task_timeout_s=st.sampled_from([0.0, 0.0, 90.0]),
    )
    def begin(
        self,
        plan: Plan,
        roster: tuple[AgentSpec, ...],
        max_attempts: int,
        task_timeout_s: float,
    ) -> None:
        self.plan = plan
        self.roster = roster
        self.agent_ids = [agent.id for agent in roster]
        self.subtask_ids = sorted(item.id for item in plan.subtasks)
        self.max_attempts = max_attempts
        self.task_timeout_s = task_timeout_s
        self.facts: list[Fact] = []
        self.now = 100.0
        self.start()

    def start(self) -> None:
        """A supervisor takes the task, with the facts so far."""
        self.scheduler = Scheduler(
            self.plan,
            self.roster,
            max_attempts=self.max_attempts,
            attempt_timeout_s=TIMEOUT_S,
            task_timeout_s=self.task_timeout_s,
            history=self.facts,
        )
        self.referee = Referee(
            self.plan,
            self.roster,
            max_attempts=self.max_attempts,
            attempt_timeout_s=TIMEOUT_S,
            task_timeout_s=self.task_timeout_s,
            history=self.facts,
            now=self.now,
        )
        live = {attempt.subtask_id for attempt in self.scheduler.live_attempts}
        assert live == set(self.referee.fold.live)
        self.handle(Tick())

    # What may happen.

    @rule(data=st.data())
    def an_agent_gets_ready(self, data: st.DataObject) -> None:
        agent_id = data.draw(st.sampled_from(self.agent_ids))
        event = AgentReady(agent_id=agent_id, pid=1, capabilities=())
        known = agent_id in self.referee.present | self.referee.retired
        self.handle(event, nothing=known)

    @rule(data=st.data(), retired=st.sampled_from([False, False, True]))
    def an_agent_is_lost(self, data: st.DataObject, retired: bool) -> None:
        agent_id = data.draw(st.sampled_from(self.agent_ids))
        event = AgentLost(agent_id=agent_id, error="exit code 1", retired=retired)
        self.handle(event, nothing=agent_id in self.referee.retired)

    def _any_result(self, key: str) -> AttemptFinished:
        attempt, agent_id = self.referee.fold.live.get(key, (1, "agent_0"))
        return AttemptFinished(
            subtask_id=key,
            attempt=attempt,
            agent_id=agent_id,
            status=Status.COMPLETED,
            output={},
        )

    @precondition(lambda self: self.referee.fold.live)
    @rule(data=st.data())
    def an_attempt_completes(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.referee.fold.live)))
        self.handle(self._any_result(key))
        assert self.scheduler.statuses[key] is Status.COMPLETED

    @precondition(lambda self: self.referee.fold.live)
    @rule(
        data=st.data(),
        kind=st.just(FailureKind.AGENT_LOST) | st.sampled_from(FailureKind),
        status=st.sampled_from([Status.FAILED, Status.FAILED, Status.CANCELLED]),
    )
    def an_attempt_fails(
        self, data: st.DataObject, kind: FailureKind, status: Status
    ) -> None:
        key = data.draw(st.sampled_from(sorted(self.referee.fold.live)))
        self.handle(
            replace(
                self._any_result(key),
                status=status,
                output=None,
                failure=kind,
                error="no",
            )
        )

    @rule(
        data=st.data(),
        later=st.sampled_from([-1, 0, 1]),
        status=st.sampled_from([Status.COMPLETED, Status.FAILED]),
    )
    def a_superseded_result_comes_in(
        self, data: st.DataObject, later: int, status: Status
    ) -> None:
        key = data.draw(st.sampled_from([*self.subtask_ids, "nowhere"]))
        result = self._any_result(key)
        attempt = result.attempt + later
        agent_id = data.draw(st.sampled_from([*self.agent_ids, "agent_9"]))
        if self.referee.fold.live.get(key) != (attempt, agent_id):
            changed = replace(result, attempt=attempt, agent_id=agent_id, status=status)
            self.handle(changed, nothing=True)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(Tick())

    @rule()
    def the_next_wakeup_comes(self) -> None:
        self.now = max(self.now, self.scheduler.next_wakeup() or 0.0)
        self.handle(Tick())

    @rule()
    def the_user_cancels(self) -> None:
        is_stopping = self.referee.stop is not None
        self.handle(CancelRequested("by the user"), nothing=is_stopping)

    @rule(lost=st.integers(0, 5))
    def the_supervisor_dies(self, lost: int) -> None:
        """Its last facts were not durable; another one takes the task."""
        facts = self.referee.facts
        self.facts = facts[: max(0, len(facts) - lost)]
        self.start()

    # What must follow.

    def handle(self, event: SchedulerInput, *, nothing: bool = False) -> None:
        nothing = nothing or self.referee.finish is not None
        self.referee.sees(event, self.now)
        commands = self.scheduler.handle(event, self.now)
        assert not nothing or commands == []
        self.referee.judge(commands)

    @invariant()
    def the_scheduler_agrees_with_its_facts(self) -> None:
        self.scheduler.check_invariants()
        referee = self.referee
        assert dict(self.scheduler.statuses) == referee.fold.statuses
        assert self.scheduler.is_finished == (referee.finish is not None)
        assert self.scheduler.next_wakeup() == referee.next_due()
        assert {
            item.subtask_id: (item.attempt, item.agent_id)
            for item in self.scheduler.live_attempts
        } == referee.fold.live

    @invariant()
    def an_agent_has_one_attempt_at_most(self) -> None:
        busy = [agent_id for _, agent_id in self.referee.fold.live.values()]
        assert len(busy) == len(set(busy))

    @invariant()
    def nobody_is_idle_while_something_could_run(self) -> None:
        referee = self.referee
        for key in filter(referee.is_runnable, self.subtask_ids):
            idle = referee.idle()
            assert not [agent_id for agent_id in idle if referee.fits(agent_id, key)]

    def teardown(self) -> None:
        """Whatever happened, the task can be driven to its end."""
        for _ in range(200):
            referee = self.referee
            if referee.finish is not None:
                return
            away = set(self.agent_ids) - referee.present - referee.retired
            if self.referee.fold.live:
                self.handle(self._any_result(min(self.referee.fold.live)))
            elif away:
                event = AgentReady(agent_id=min(away), pid=1, capabilities=())
                self.handle(event)
            else:
                self.the_next_wakeup_comes()
            self.the_scheduler_agrees_with_its_facts()
        raise AssertionError("the task does not end")


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
