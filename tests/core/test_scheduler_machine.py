"""The scheduler through random plans, rosters, losses, failures, cancels and crashes.

``Referee`` knows the rules: it allows or refuses each command, and after each step the
scheduler and a view must agree with what the recorded facts say. At any step another
supervisor may go on from any prefix of them.
"""

from datetime import timedelta
from itertools import count

from hypothesis import HealthCheck, settings
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
    AttemptHeld,
    CancelRequested,
    FinishTask,
    PlanAccepted,
    Record,
    SchedulerInput,
    SuspendTask,
    TaskCreated,
    TaskResumed,
    TaskSuspended,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.model import AgentSpec, FailureKind, Plan, Status
from tests.core.drawn import failure_kinds, plans, rosters
from tests.core.ledger import Ledger, told
from tests.core.referee import Referee

TIMEOUT_S = 40.0
FIRST_FACTS = 2
"""The task and its plan: no supervisor has anything to go on with before them."""


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        plan=plans(),
        roster=rosters,
        max_attempts=st.integers(1, 5),
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
        self.ledger = Ledger(plan)
        self.sessions = count(1)
        self.last_end: AttemptFinished | None = None
        self.now = 100.0
        self.ledger.record(TaskCreated(description="it"))
        self.ledger.record(PlanAccepted(plan=plan))
        self.start()

    def start(self) -> None:
        """A supervisor takes the task, with the facts so far."""
        facts = self.ledger.facts
        self.scheduler = Scheduler(
            self.plan,
            self.roster,
            new_session_id=lambda: f"session {next(self.sessions)}",
            max_attempts=self.max_attempts,
            attempt_timeout_s=TIMEOUT_S,
            task_timeout_s=self.task_timeout_s,
            history=facts,
        )
        self.referee = Referee(
            self.plan,
            self.roster,
            max_attempts=self.max_attempts,
            attempt_timeout_s=TIMEOUT_S,
            task_timeout_s=self.task_timeout_s,
            history=facts,
            now=self.now,
        )
        live = {attempt.subtask_id for attempt in self.scheduler.live_attempts}
        assert live == set(self.referee.fold.live)
        self.handle(Tick())

    def resume(self) -> None:
        """Another supervisor goes on with what is in the journal."""
        self.ledger.record(TaskResumed(owner="s2 on a laptop, process 2", epoch=2))
        self.start()

    # What may happen.

    @rule(data=st.data())
    def an_agent_gets_ready(self, data: st.DataObject) -> None:
        agent_id = data.draw(st.sampled_from(self.agent_ids))
        event = AgentReady(agent_id=agent_id, pid=1, capabilities=())
        known = agent_id in self.referee.present | self.referee.retired
        self.handle(event, nothing=known)

    @rule()
    def all_agents_get_ready(self) -> None:
        for agent_id in self.agent_ids:
            self.handle(AgentReady(agent_id=agent_id, pid=1, capabilities=()))

    @rule(
        data=st.data(),
        retired=st.sampled_from([*[False] * 7, True]),
        left_something=st.booleans(),
    )
    def an_agent_is_lost(
        self, data: st.DataObject, retired: bool, left_something: bool
    ) -> None:
        """What it left may be of an attempt that has ended."""
        agent_id = data.draw(st.sampled_from(self.agent_ids))
        event = AgentLost(agent_id=agent_id, error="exit code 1", retired=retired)
        left = self.last_end if left_something else None
        self.handle(event, nothing=agent_id in self.referee.retired, left=left)

    @precondition(lambda self: self.live_here())
    @rule(data=st.data())
    def an_agent_is_lost_but_left_its_result(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.live_here()))
        left = self._any_result(key)
        self.handle(AgentLost(agent_id=left.agent_id, error="killed"), left=left)
        assert self.scheduler.statuses[key] is Status.COMPLETED

    @precondition(lambda self: self.live_here())
    @rule(data=st.data(), times=st.integers(1, 4))
    def a_subtask_kills_its_agents(self, data: st.DataObject, times: int) -> None:
        """Each of them is started again."""
        key = data.draw(st.sampled_from(self.live_here()))
        for _ in range(times):
            if key in self.live_here():
                _, agent_id = self.referee.fold.live[key]
                self.handle(AgentLost(agent_id=agent_id, error="killed"))
                assert key not in self.referee.fold.live
                self.handle(AgentReady(agent_id=agent_id, pid=1, capabilities=()))
            self.the_next_wakeup_comes()

    def live_here(self) -> list[str]:
        """The subtasks whose attempt began in this run and has not ended."""
        if self.referee.end is not None:
            return []
        return sorted(self.referee.fold.live.keys() - self.referee.inherited)

    def live(self) -> list[str]:
        return [] if self.referee.end else sorted(self.referee.fold.live)

    def _any_result(self, key: str) -> AttemptFinished:
        attempt, agent_id = self.referee.fold.live.get(key, (1, "agent_0"))
        return AttemptFinished(
            subtask_id=key,
            attempt=attempt,
            agent_id=agent_id,
            status=Status.COMPLETED,
            output={},
        )

    def _failure(self, key: str, kind: FailureKind) -> AttemptFinished:
        result = self._any_result(key)
        return replace(
            result, status=Status.FAILED, output=None, failure=kind, error="no"
        )

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def an_attempt_completes(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.live()))
        self.handle(self._any_result(key))
        assert self.scheduler.statuses[key] is Status.COMPLETED

    @precondition(lambda self: self.live())
    @rule(
        data=st.data(),
        kind=failure_kinds,
        status=st.sampled_from([Status.FAILED, Status.FAILED, Status.CANCELLED]),
    )
    def an_attempt_fails(
        self, data: st.DataObject, kind: FailureKind, status: Status
    ) -> None:
        key = data.draw(st.sampled_from(self.live()))
        self.handle(replace(self._failure(key, kind), status=status))

    @precondition(lambda self: len(self.ledger) % 3 == 0 and self.live())
    @rule(data=st.data())
    def claude_refuses_the_credentials(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.live()))
        stopped = key in self.referee.stopped
        failures = self.referee.fold.failures[key]
        self.handle(self._failure(key, FailureKind.AUTHENTICATION))
        assert isinstance(self.referee.end, SuspendTask) != stopped
        if not stopped:
            assert self.scheduler.statuses[key] is Status.PENDING
            assert self.referee.fold.failures[key] == failures

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
            before = dict(self.scheduler.statuses)
            changed = replace(result, attempt=attempt, agent_id=agent_id, status=status)
            self.handle(changed)
            self.handle(changed, nothing=True)
            assert self.scheduler.statuses == before

    @precondition(lambda self: self.last_end)
    @rule()
    def an_attempt_says_again_how_it_ended(self) -> None:
        assert self.last_end is not None
        key = self.last_end.subtask_id
        is_live = self.referee.fold.live.get(key) == (
            self.last_end.attempt,
            self.last_end.agent_id,
        )
        self.handle(self.last_end)
        self.handle(self.last_end, nothing=not is_live)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), is_held=st.booleans(), other=st.sampled_from([0, 0, 0, 1]))
    def an_attempt_is_held_or_let_go(
        self, data: st.DataObject, is_held: bool, other: int
    ) -> None:
        """Told of another attempt too, or twice, it changes nothing."""
        key = data.draw(st.sampled_from(self.live()))
        attempt = self.referee.fold.live[key][0] - other
        held = AttemptHeld(subtask_id=key, attempt=attempt, is_held=is_held)
        self.handle(held, nothing=True)
        due = self.scheduler.next_wakeup()
        self.handle(held, nothing=True)
        assert self.scheduler.next_wakeup() == due

    @precondition(lambda self: self.live_here())
    @rule(data=st.data(), seconds=st.sampled_from([1.0, TIMEOUT_S, 10 * TIMEOUT_S]))
    def an_attempt_is_held_for_long(self, data: st.DataObject, seconds: float) -> None:
        """Its own time does not pass; that of the task does."""
        key = data.draw(st.sampled_from(self.live_here()))
        attempt, _ = self.referee.fold.live[key]
        stopped = key in self.referee.stopped
        held = AttemptHeld(subtask_id=key, attempt=attempt, is_held=True)
        self.handle(held, nothing=True)
        self.time_passes(seconds)
        assert self.referee.stop or (key in self.referee.stopped) == stopped
        self.handle(replace(held, is_held=False), nothing=True)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.ledger.clock += timedelta(seconds=seconds)
        self.handle(Tick())

    @rule(hours=st.sampled_from([-1, 1]))
    def the_clock_jumps(self, hours: int) -> None:
        """The one on the wall; the scheduler's cannot."""
        self.ledger.clock += timedelta(hours=hours)

    @rule()
    def the_next_wakeup_comes(self) -> None:
        self.now = max(self.now, self.scheduler.next_wakeup() or 0.0)
        self.handle(Tick())

    @precondition(lambda self: len(self.ledger) % 4 == 0)  # or few runs would go far
    @rule()
    def the_user_cancels(self) -> None:
        is_stopping = self.referee.stop is not None
        self.handle(CancelRequested("by the user"), nothing=is_stopping)

    @precondition(lambda self: len(self.ledger) % 4 == 1 and self.referee.goes_on)
    @rule(data=st.data())
    def the_supervisor_dies_while_it_cancels(self, data: st.DataObject) -> None:
        """Of what follows from the cancel, any part may be durable."""
        before = len(self.ledger)
        self.the_user_cancels()
        self.ledger.keep(data.draw(st.integers(before + 1, len(self.ledger))))
        self.resume()
        self.handle(CancelRequested("again"), nothing=True)
        self.all_agents_get_ready()
        for key in self.live():
            self.handle(self._failure(key, FailureKind.AGENT_LOST))
        assert self.referee.end == FinishTask(Status.CANCELLED, "by the user")

    @rule(data=st.data())
    def the_supervisor_dies(self, data: st.DataObject) -> None:
        """What was not durable is lost; another one takes the task."""
        size = len(self.ledger)
        kept = data.draw(
            st.integers(max(FIRST_FACTS, size - 5), size)
            | st.sampled_from(self.ledger.commits)
            | st.integers(FIRST_FACTS, size),
            label="facts kept",
        )
        self.ledger.keep(kept)
        self.resume()
        for key in self.live():
            # An agent may be ready before all is settled.
            match data.draw(st.sampled_from(["lost", "lost", "completed", "open"])):
                case "lost":
                    self.handle(self._failure(key, FailureKind.AGENT_LOST))
                case "completed":
                    self.handle(self._any_result(key))

    @precondition(lambda self: isinstance(self.referee.end, SuspendTask))
    @rule()
    def the_user_resumes(self) -> None:
        end = self.referee.end
        assert isinstance(end, SuspendTask)
        self.ledger.record(TaskSuspended(reason=end.reason, hint=end.hint))
        self.resume()

    # What must follow.

    def handle(
        self,
        event: SchedulerInput,
        *,
        nothing: bool = False,
        left: AttemptFinished | None = None,
    ) -> None:
        nothing = nothing or self.referee.end is not None
        if isinstance(event, AttemptFinished):
            self.last_end = event
        self.referee.sees(event, self.now)
        commands = self.scheduler.handle(event, self.now, left=left)
        assert not nothing or commands == []
        self.referee.judge(commands)
        for command in commands:
            if isinstance(command, Record):
                self.ledger.record(command.fact)
        self.ledger.commits.append(len(self.ledger))

    @invariant()
    def the_scheduler_agrees_with_its_facts(self) -> None:
        self.scheduler.check_invariants()
        referee = self.referee
        assert dict(self.scheduler.statuses) == referee.fold.statuses
        assert self.scheduler.is_over == (referee.end is not None)
        assert self.scheduler.next_wakeup() == referee.next_due()
        assert {
            item.subtask_id: (item.attempt, item.agent_id)
            for item in self.scheduler.live_attempts
        } == referee.fold.live

    @invariant()
    def a_fold_of_the_journal_is_the_live_state(self) -> None:
        assert told(self.ledger.replayed()) == told(self.scheduler._progress)

    @invariant()
    def the_view_shows_what_is_true(self) -> None:
        expected = dict(self.referee.fold.statuses)
        # How these ended is not known yet, but nobody works on them.
        expected |= dict.fromkeys(self.referee.inherited, Status.PENDING)
        view, clock = self.ledger.view, self.ledger.clock
        assert view.statuses() == expected
        for now in (clock, clock - timedelta(hours=2)):
            assert view.elapsed_s(now) >= 0
            for row in view.subtasks.values():
                assert (row.elapsed_s(now) or 0) >= 0
                assert 0 <= row.retry_in_s(now) <= TIMEOUT_S

    @invariant()
    def an_agent_has_one_attempt_at_most(self) -> None:
        busy = [agent_id for _, agent_id in self.referee.fold.live.values()]
        assert len(busy) == len(set(busy))

    @invariant()
    def nobody_is_idle_while_something_could_run(self) -> None:
        referee = self.referee
        if referee.end is not None:
            return
        for key in filter(referee.is_runnable, self.subtask_ids):
            idle = referee.idle()
            assert not [agent_id for agent_id in idle if referee.fits(agent_id, key)]

    def teardown(self) -> None:
        """Whatever happened, the task can be driven to its end."""
        if not hasattr(self, "referee"):
            return
        self.ledger.check_prefixes()
        for _ in range(200):
            referee = self.referee
            if isinstance(referee.end, SuspendTask):
                self.the_user_resumes()
            elif referee.end is not None:
                return
            away = set(self.agent_ids) - self.referee.present - self.referee.retired
            if live := self.live():
                self.handle(self._any_result(live[0]))
            elif away:
                event = AgentReady(agent_id=min(away), pid=1, capabilities=())
                self.handle(event)
            else:
                self.the_next_wakeup_comes()
            self.the_scheduler_agrees_with_its_facts()
        raise AssertionError("the task does not end")


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
