"""The rules of scheduling, told a second time: a referee for what a scheduler does."""

from collections import Counter
from collections.abc import Sequence

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptHeld,
    AttemptStarted,
    CancelAccepted,
    CancelRequested,
    Command,
    Fact,
    FinishTask,
    Record,
    ResultIgnored,
    SchedulerInput,
    StartAttempt,
    StopAttempt,
    SubtaskFinished,
    SuspendTask,
    Tick,
)
from mas.core.graph import remaining_path_s
from mas.core.policy import is_retryable
from mas.model import AgentSpec, FailureKind, Plan, Status

CUT_OFF = {
    FailureKind.AGENT_LOST,
    FailureKind.API_ERROR,
    FailureKind.AUTHENTICATION,
    FailureKind.INACTIVITY,
    FailureKind.INTERNAL,
}
"""After these the session goes on; it is not the session that failed."""


class Fold:
    """What the recorded facts say of each subtask."""

    def __init__(self, plan: Plan, facts: Sequence[Fact] = ()) -> None:
        self.statuses = {item.id: Status.PENDING for item in plan.subtasks}
        self.live: dict[str, tuple[int, str]] = {}
        self.ended: dict[str, Status] = {}
        self.attempts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()
        self.free: Counter[str] = Counter()
        self.last_start: dict[str, AttemptStarted] = {}
        self.last_failure: dict[str, FailureKind | None] = {}
        self.ignored: set[tuple[str, int]] = set()
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: Fact) -> None:
        match fact:
            case AttemptStarted(subtask_id=key):
                self.statuses[key] = Status.IN_PROGRESS
                self.live[key] = (fact.attempt, fact.agent_id)
                self.attempts[key] += 1
                self.ended.pop(key, None)
                self.last_start[key] = fact
            case AttemptFinished(subtask_id=key):
                del self.live[key]
                if fact.retry_in_s is None:
                    self.ended[key] = fact.status
                else:
                    self.statuses[key] = Status.PENDING
                self.last_failure[key] = fact.failure
                counts = fact.retry_in_s != 0
                counter = self.failures if counts else self.free
                counter[key] += fact.status is not Status.COMPLETED
                was_lost = fact.failure is FailureKind.AGENT_LOST
                self.losses[key] += counts and was_lost
            case ResultIgnored(subtask_id=key):
                self.ignored.add((key, fact.attempt))
            case SubtaskFinished(subtask_id=key):
                self.statuses[key] = fact.status


class Referee:
    """Sees every event and command of one scheduler; AssertionError for a foul."""

    def __init__(
        self,
        plan: Plan,
        roster: Sequence[AgentSpec],
        *,
        max_attempts: int,
        attempt_timeout_s: float,
        task_timeout_s: float,
        history: Sequence[Fact],
        now: float,
    ) -> None:
        self.subtasks = {item.id: item for item in plan.subtasks}
        self.roster = {agent.id: agent for agent in roster}
        self.max_attempts = max_attempts
        self.attempt_timeout_s = attempt_timeout_s
        remaining = remaining_path_s(plan)
        self.rank = {
            item.id: (-item.priority, -remaining[item.id], number)
            for number, item in enumerate(plan.subtasks)
        }
        self.now = now
        self.facts = list(history)
        self.fold = Fold(plan, history)
        self.inherited = set(self.fold.live)
        self.present: set[str] = set()
        self.retired: set[str] = set()
        self.back_off: dict[str, float] = {}
        self.deadline = dict.fromkeys(self.inherited, now + attempt_timeout_s)
        self.held: dict[str, float] = {}
        """What is left of the time of the attempts that are held."""
        self.task_deadline = now + (task_timeout_s or float("inf"))
        self.stopped: dict[str, FailureKind] = {}
        self.stop: FailureKind | None = None
        if any(isinstance(fact, CancelAccepted) for fact in history):
            self.stop = FailureKind.CANCELLED
        self.accepts: CancelAccepted | None = None
        self.suspends = False
        self.end: FinishTask | SuspendTask | None = None

    def sees(self, event: SchedulerInput, now: float) -> None:
        """An event comes in."""
        self.now = now
        self.event = event
        self.accepts = None
        match event:
            case AgentReady(agent_id=agent_id) if agent_id not in self.retired:
                self.present.add(agent_id)
            case AgentLost(agent_id=agent_id):
                self.present.discard(agent_id)
                if event.retired:
                    self.retired.add(agent_id)
            case AttemptHeld():
                self.sees_hold(event)
            case CancelRequested() if self.stop is None:
                self.stop = FailureKind.CANCELLED
                self.accepts = CancelAccepted(reason=event.reason)
            case Tick():
                if now >= self.task_deadline:
                    self.stop = self.stop or FailureKind.DEADLINE
                self.back_off = {k: t for k, t in self.back_off.items() if t > now}

    def sees_hold(self, event: AttemptHeld) -> None:
        """The deadline of a live attempt stands still, or goes on."""
        key = event.subtask_id
        attempt, _ = self.fold.live.get(key, (None, ""))
        if attempt != event.attempt or self.end is not None:
            return
        if event.is_held and key in self.deadline:
            self.held[key] = max(0.0, self.deadline.pop(key) - self.now)
        elif not event.is_held and key in self.held:
            self.deadline[key] = self.now + self.held.pop(key)

    @property
    def goes_on(self) -> bool:
        """Whether nothing ends the task or the run early yet."""
        return self.stop is None and self.end is None

    @property
    def late(self) -> AttemptFinished | None:
        """The event, if it is the end of an attempt that is not live."""
        event = self.event
        if not isinstance(event, AttemptFinished):
            return None
        live = self.fold.live.get(event.subtask_id)
        return None if live == (event.attempt, event.agent_id) else event

    def must_ignore(self, event: AttemptFinished) -> bool:
        key, attempt = event.subtask_id, event.attempt
        began = 0 < attempt <= self.fold.attempts[key]
        return began and (key, attempt) not in self.fold.ignored

    def judge(self, commands: Sequence[Command]) -> None:
        """The scheduler answers it with these commands."""
        if self.end is not None:
            assert commands == [], "nothing follows the end"
            return
        if late := self.late:
            assert len(commands) == self.must_ignore(late)
        if isinstance(self.event, AttemptHeld):
            assert commands == [], "time stands still, nothing else"
        if self.accepts:
            assert commands[0] == Record(self.accepts)
        pending: AttemptStarted | None = None
        for command in commands:
            assert self.end is None, "nothing follows the end"
            assert pending is None or type(command) is StartAttempt
            pending = self.take(command, pending)
        assert pending is None, "a recorded start is followed by the start"
        assert self.suspends == isinstance(self.end, SuspendTask)
        if isinstance(self.event, Tick) and self.end is None:
            assert all(due > self.now for due in self.deadline.values())

    def next_due(self) -> float | None:
        """When time alone changes something."""
        due = [*self.back_off.values(), *self.deadline.values()]
        if self.stop is None:
            due.append(self.task_deadline)
        first = min(due, default=float("inf"))
        return None if self.end or first == float("inf") else first

    def take(
        self, command: Command, pending: AttemptStarted | None
    ) -> AttemptStarted | None:
        """Check one command; the recorded start whose effect must come next."""
        match command:
            case Record(fact=AttemptStarted() as fact):
                self.may_start(fact)
                self.deadline[fact.subtask_id] = self.now + self.attempt_timeout_s
                self.record(fact)
                return fact
            case Record(fact=AttemptFinished() as fact):
                self.may_end(fact)
                self.record(fact)
            case Record(fact=SubtaskFinished() as fact):
                self.may_finish(fact)
                self.back_off.pop(fact.subtask_id, None)
                self.record(fact)
            case Record(fact=ResultIgnored() as fact):
                self.may_ignore(fact)
                self.record(fact)
            case Record(fact=CancelAccepted() as fact):
                assert fact == self.accepts
                self.accepts = None  # once
                self.record(fact)
            case Record(fact=AgentReady() | AgentLost() as fact):
                self.record(fact)
            case StartAttempt():
                assert pending is not None
                begun = (pending.subtask_id, pending.attempt, pending.agent_id)
                assert command == StartAttempt(*begun)
            case StopAttempt(subtask_id=key):
                assert self.fold.live[key] == (command.attempt, command.agent_id)
                assert key not in self.stopped, "an attempt is stopped once"
                assert (key in self.deadline) != (key in self.held)
                due = self.deadline.pop(key, float("inf"))
                self.held.pop(key, None)
                assert self.stop or due <= self.now, "not before its time, nor held"
                self.stopped[key] = self.stop or FailureKind.DEADLINE
            case FinishTask():
                self.end = command
                self.task_may_finish(command)
            case SuspendTask():
                self.end = command
                assert command.reason
                assert "ANTHROPIC_API_KEY" in command.hint
            case _:
                raise AssertionError(f"unexpected: {command}")
        return None

    def record(self, fact: Fact) -> None:
        self.facts.append(fact)
        self.fold.apply(fact)

    def may_start(self, fact: AttemptStarted) -> None:
        key, agent_id = fact.subtask_id, fact.agent_id
        assert self.fold.statuses[key] is not Status.COMPLETED
        assert fact.session_id
        former = self.fold.last_start.get(key)
        assert fact.resumes == (self.fold.last_failure.get(key) in CUT_OFF)
        assert fact.resumes == bool(former and former.session_id == fact.session_id)
        assert self.stop is None
        assert not self.suspends
        assert self.is_runnable(key)
        assert agent_id in self.idle()
        assert self.fits(agent_id, key)
        assert fact.attempt == self.fold.attempts[key] + 1
        assert fact.attempt <= self.max_attempts + self.fold.free[key]
        for other in self.subtasks:
            if self.is_runnable(other) and self.rank[other] < self.rank[key]:
                assert not self.fits(agent_id, other), f"{other} goes before {key}"

    def may_end(self, fact: AttemptFinished) -> None:
        key = fact.subtask_id
        assert self.fold.live[key] == (fact.attempt, fact.agent_id)
        self.deadline.pop(key, None)
        self.held.pop(key, None)
        stopped = self.stopped.pop(key, None)
        is_inherited = key in self.inherited
        self.inherited.discard(key)
        if isinstance(self.event, AgentLost):
            assert not is_inherited, "a new agent of that name knows nothing of it"
        if fact.status is Status.COMPLETED:
            assert fact.retry_in_s is None
            return
        assert fact.error
        assert fact.failure is not None
        if stopped:
            assert fact.failure is stopped
        was_cancelled = stopped is FailureKind.CANCELLED
        assert fact.status is (Status.CANCELLED if was_cancelled else Status.FAILED)
        if fact.failure is FailureKind.AUTHENTICATION:
            assert self.stop is None
            assert fact.retry_in_s == 0
            self.suspends = True
            return
        retry = self.stop is None and self.is_runnable_by_any(key)
        if retry and is_inherited and fact.failure is FailureKind.AGENT_LOST:
            assert fact.retry_in_s == 0
            return
        was_lost = fact.failure is FailureKind.AGENT_LOST and not is_inherited
        if was_lost and self.fold.losses[key] == 2:
            assert fact.retry_in_s is None
            assert fact.error.startswith("its agent was lost 3 times: ")
            return
        tries_left = self.fold.failures[key] + 1 < self.max_attempts
        retry = retry and tries_left and is_retryable(fact.failure)
        assert (fact.retry_in_s is not None) == retry
        if fact.retry_in_s is not None:
            assert fact.retry_in_s >= 1
            self.back_off[key] = self.now + fact.retry_in_s

    def may_ignore(self, fact: ResultIgnored) -> None:
        late = self.late
        assert late is not None
        assert fact.error
        assert fact == ResultIgnored(
            subtask_id=late.subtask_id,
            attempt=late.attempt,
            agent_id=late.agent_id,
            status=late.status,
            error=fact.error,
        )

    def may_finish(self, fact: SubtaskFinished) -> None:
        key = fact.subtask_id
        assert not self.fold.statuses[key].is_final, "a subtask finishes once"
        assert key not in self.fold.live
        if key in self.fold.ended:
            assert fact.status is self.fold.ended[key]
        elif fact.status is Status.FAILED:
            assert not self.is_runnable_by_any(key)
        else:
            assert fact.status is Status.CANCELLED
            above = [self.fold.statuses[k] for k in self.subtasks[key].dependencies]
            broken = {Status.FAILED, Status.CANCELLED} & set(above)
            assert self.stop is not None or broken
        assert fact.attempt == (self.fold.attempts[key] or None)
        assert (fact.error is None) == (fact.status is Status.COMPLETED)

    def task_may_finish(self, command: FinishTask) -> None:
        statuses = set(self.fold.statuses.values())
        assert all(status.is_final for status in statuses)
        if statuses == {Status.COMPLETED}:
            assert command == FinishTask(Status.COMPLETED, None)
            return
        assert command.error
        cancelled = self.stop is FailureKind.CANCELLED
        assert command.status is (Status.CANCELLED if cancelled else Status.FAILED)

    def idle(self) -> set[str]:
        return self.present - {agent_id for _, agent_id in self.fold.live.values()}

    def is_runnable(self, key: str) -> bool:
        statuses = self.fold.statuses
        return (
            statuses[key] is Status.PENDING
            and key not in self.back_off
            and all(
                statuses[other] is Status.COMPLETED
                for other in self.subtasks[key].dependencies
            )
        )

    def is_runnable_by_any(self, key: str) -> bool:
        return any(self.fits(agent_id, key) for agent_id in self.roster)

    def fits(self, agent_id: str, key: str) -> bool:
        need = set(self.subtasks[key].required_capabilities)
        cover = {
            agent.id: len(need.intersection(agent.capabilities))
            for agent in self.roster.values()
            if agent.id not in self.retired
        }
        if agent_id not in cover:
            return False
        return not need or 0 < cover[agent_id] == max(cover.values())
