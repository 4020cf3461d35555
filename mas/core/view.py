"""What a screen shows of a task: a fold over its events.

``RunView.apply`` takes the events of one task in order, from its journal, from a live
run, or from the journal first and the live run after it: a fact that was seen already
changes nothing, nor does what a superseded attempt still says. It never fails.
"""

from datetime import datetime, timedelta
from itertools import islice
from typing import Any, assert_never

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    CancelAccepted,
    Event,
    Noticed,
    PlanAccepted,
    Recorded,
    ResultIgnored,
    SubtaskFinished,
    TaskCreated,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
    Waiting,
)
from mas.core.graph import dependents_of, stages
from mas.core.rows import AgentState, AgentView, State, SubagentView, SubtaskView
from mas.model import Status, Usage

__all__ = [
    "AgentState",
    "AgentView",
    "RunView",
    "State",
    "SubagentView",
    "SubtaskView",
]

_NAMES_SHOWN = 3
"""So many subtasks are named in a reason; of more, the number is given."""

_FINAL = {
    Status.COMPLETED: State.COMPLETED,
    Status.FAILED: State.FAILED,
    Status.CANCELLED: State.CANCELLED,
}
_STATUSES = dict.fromkeys(State, Status.PENDING)
_STATUSES[State.RUNNING] = Status.IN_PROGRESS
_STATUSES |= {state: status for status, state in _FINAL.items()}


class RunView:
    """A task as a person wants to see it, up to the last event applied."""

    def __init__(self, *, max_attempts: int | None = None) -> None:
        self.max_attempts = max_attempts
        self.task_id: str | None = None
        self.description = ""
        self.status = Status.PENDING
        self.warning: str | None = None
        self.waiting: str | None = None
        """What the whole task waits for: planning, a server, a limit."""
        self.waiting_since: datetime | None = None
        self.waiting_until: datetime | None = None
        """When that ends, or is tried again, where it is known."""
        self.notices: list[Noticed] = []
        """What a person should know, each once, oldest first."""
        self.budget_usd: float | None = None
        self.budget_tokens: int | None = None
        """What the task may use, over all its runs; None is no limit."""
        self.suspended: TaskSuspended | None = None
        self.error: str | None = None
        self.result: dict[str, Any] = {}
        self.started_at: datetime | None = None
        self.subtasks: dict[str, SubtaskView] = {}
        """By id, stage by stage."""
        self.agents: dict[str, AgentView] = {}
        self.counts = dict.fromkeys(State, 0)
        """How many subtasks are in each state."""
        self._dependents: dict[str, list[SubtaskView]] = {}
        self._open: dict[str, SubtaskView] = {}  # their attempt has not ended
        self._spent = Usage()
        self._seq = 0
        self._worked = timedelta()
        self._working_at: datetime | None = None
        """The time of the last fact, while the task is worked on."""

    @property
    def usage(self) -> Usage:
        """What the task has taken, planning and live attempts included."""
        return sum((row.spending for row in self._open.values()), start=self._spent)

    @property
    def files(self) -> list[str]:
        """Where the files are that the task made, once it has finished."""
        paths = self.result.get("files")
        return [str(path) for path in paths] if isinstance(paths, list) else []

    def statuses(self) -> dict[str, Status]:
        """Each subtask's status, by id: its state in the five words of a record."""
        return {key: _STATUSES[view.state] for key, view in self.subtasks.items()}

    def elapsed_s(self, now: datetime) -> float:
        """How long the task has been worked on, without the time when nobody did.

        A clock that is set back meanwhile takes nothing off it.
        """
        worked = self._worked
        if self._working_at is not None:
            worked += max(timedelta(), now - self._working_at)
        return worked.total_seconds()

    def last(self, subtask: SubtaskView, now: datetime) -> str:
        """What ``subtask`` did last, or why it does not go on."""
        match subtask.state:
            case State.PENDING:
                return f"waits for {self._missing(subtask)}"
            case State.BLOCKED:
                return f"cannot start without {self._missing(subtask)}"
            case State.READY if self.suspended:
                return "goes on with the task"
            case State.READY:
                wanted = ", ".join(subtask.capabilities)
                return f"waits for an agent{f': {wanted}' if wanted else ''}"
            case State.RETRY:
                due = self._try(subtask.attempt + 1)
                if wait_s := subtask.retry_in_s(now):
                    due += f" in {wait_s} s"
                return f"{due}: {subtask.error or 'the last one failed'}"
            case State.FAILED | State.CANCELLED:
                return self._with_try(subtask, subtask.error or "")
            case State.RUNNING if subtask.held:
                return self._with_try(subtask, "waits for its turn at Claude")
            case State.RUNNING | State.COMPLETED:
                return self._with_try(subtask, subtask.activity)

    def _missing(self, subtask: SubtaskView) -> str:
        """Which needs keep ``subtask`` from starting, the first few by name."""
        blocked = subtask.state is State.BLOCKED
        missing = (
            need
            for need in subtask.needs
            if (state := self.subtasks[need].state).is_broken
            or (not blocked and state is not State.COMPLETED)
        )
        names = list(islice(missing, _NAMES_SHOWN))
        more = (subtask.broken if blocked else subtask.unmet) - len(names)
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")

    def _try(self, number: int) -> str:
        return f"try {number}" + (f"/{self.max_attempts}" if self.max_attempts else "")

    def _with_try(self, subtask: SubtaskView, text: str) -> str:
        if subtask.attempt < 2:
            return text
        return self._try(subtask.attempt) + (f": {text}" if text else "")

    def apply(self, recorded: Recorded) -> None:
        """Take the next event. After the task's end nothing changes any more."""
        self.task_id = self.task_id or recorded.task_id
        if recorded.task_id != self.task_id or self.status.is_final:
            return
        if recorded.seq is not None:
            if recorded.seq <= self._seq:
                return
            self._seq = recorded.seq
            self._pass_time(recorded)
        self._fold(recorded.event, recorded.at)

    def _pass_time(self, recorded: Recorded) -> None:
        """Work was done since the last fact, unless another run begins with this."""
        if self._working_at is None or isinstance(recorded.event, TaskResumed):
            return
        self._worked += max(timedelta(), recorded.at - self._working_at)
        self._working_at = recorded.at

    def _fold(self, event: Event, at: datetime) -> None:
        match event:
            case TaskCreated():
                self.description = event.description
                self._set_budget(event)
                self._begin(at)
            case PlanAccepted():
                self._begin(at)
                self._take_plan(event)
            case TaskResumed():
                self._break_off()  # the former run may have been killed
                self._set_budget(event)
                self._begin(at)
            case AgentReady():
                self._begin(at)
                self.agents[event.agent_id] = AgentView(
                    event.agent_id, AgentState.READY, event.pid, event.capabilities
                )
            case AgentLost():
                self._lose_agent(event)
            case AttemptStarted():
                self._begin(at)
                self._start_attempt(event, at)
            case AttemptProgress():
                subtask = self._open_attempt(event)
                if subtask and subtask.state is State.RUNNING:
                    subtask.progress(event)
            case AttemptFinished():
                if subtask := self._open_attempt(event):
                    self._finish_attempt(subtask, event, at)
            case SubtaskFinished():
                self._finish_subtask(event, at)
            case ResultIgnored() | CancelAccepted():
                pass  # what follows from it is told by other facts
            case Waiting():
                self._begin(at)
                self._wait(event, at)
            case Noticed():
                if event not in self.notices:
                    self.notices.append(event)
            case TaskSuspended():
                self._break_off()
                self.suspended = event
            case TaskFinished():
                self.status, self.error = event.status, event.error
                self.result = event.result
                self._end()
            case _:
                assert_never(event)

    def _begin(self, at: datetime) -> None:
        """The task is being worked on from now on, again if it was suspended."""
        self.started_at = self.started_at or at
        self.suspended = None
        if self._working_at is None:
            self._working_at = at
        if self.status is Status.PENDING:
            self.status = Status.IN_PROGRESS

    def _set_budget(self, event: TaskCreated | TaskResumed) -> None:
        self.budget_usd, self.budget_tokens = event.budget_usd, event.budget_tokens

    def _wait(self, event: Waiting, at: datetime) -> None:
        if event.reason != self.waiting:
            self.waiting_since = at
        self.waiting, self.waiting_until = event.reason or None, event.until

    def _go_on(self) -> None:
        """Something happened; what has a time of its own is waited for all the same."""
        if self.waiting_until is None:
            self.waiting = None

    def _break_off(self) -> None:
        """Its agents are gone; somebody may go on with the task later."""
        self._end()
        self.agents.clear()
        for subtask in self.subtasks.values():
            subtask.retry_at = None  # whoever goes on tries again at once

    def _end(self) -> None:
        """Nobody works on the task since the last fact, whatever was said before."""
        last, self._working_at = self._working_at, None
        self.waiting = self.waiting_until = None
        self.notices = [notice for notice in self.notices if not notice.is_passing]
        if last is None:
            return
        for subtask in self._open.values():
            if subtask.state is State.RUNNING:
                subtask.cut_off(last)
                self._move(subtask, None)

    def _lose_agent(self, event: AgentLost) -> None:
        agent = self.agents.setdefault(
            event.agent_id, AgentView(event.agent_id, AgentState.LOST)
        )
        agent.state = AgentState.RETIRED if event.retired else AgentState.LOST
        agent.pid, agent.error = None, event.error

    def _take_plan(self, event: PlanAccepted) -> None:
        if self.subtasks:
            return
        self._go_on()
        self.warning = event.warning
        self._spent += event.usage
        by_key = {subtask.id: subtask for subtask in event.plan.subtasks}
        for stage, keys in enumerate(stages(event.plan), start=1):
            for key in keys:
                needs = tuple(dict.fromkeys(by_key[key].dependencies))
                view = self.subtasks[key] = SubtaskView(
                    id=key,
                    description=by_key[key].description,
                    stage=stage,
                    needs=needs,
                    capabilities=by_key[key].required_capabilities,
                    unmet=len(needs),
                )
                view.state = view.waiting_state
                self.counts[view.state] += 1
        self._dependents = {
            key: [self.subtasks[dependent] for dependent in dependents]
            for key, dependents in dependents_of(event.plan).items()
        }

    def _start_attempt(self, event: AttemptStarted, at: datetime) -> None:
        subtask = self.subtasks.get(event.subtask_id)
        if subtask is None or event.attempt <= subtask.attempt:
            return
        self._go_on()
        self._close(subtask, at)
        self._open[subtask.id] = subtask
        subtask.start(event, at)
        self._move(subtask, State.RUNNING)

    def _open_attempt(
        self, event: AttemptProgress | AttemptFinished
    ) -> SubtaskView | None:
        subtask = self._open.get(event.subtask_id)
        return subtask if subtask and subtask.attempt == event.attempt else None

    def _close(self, subtask: SubtaskView, at: datetime) -> None:
        """Nothing more comes of its latest attempt."""
        self._open.pop(subtask.id, None)
        self._spent += subtask.close(at)

    def _finish_attempt(
        self, subtask: SubtaskView, event: AttemptFinished, at: datetime
    ) -> None:
        self._go_on()
        del self._open[subtask.id]
        self._spent += subtask.finish(event, at)
        if subtask.retry_at is not None:
            self._move(subtask, State.RETRY)
        elif event.status is Status.CANCELLED:
            self._move(subtask, None)
        else:  # until it is said what follows, also where it was cut off before
            self._move(subtask, State.RUNNING)

    def _finish_subtask(self, event: SubtaskFinished, at: datetime) -> None:
        subtask = self.subtasks.get(event.subtask_id)
        state = _FINAL.get(event.status)
        if subtask is None or state is None:
            return
        self._go_on()
        self._close(subtask, at)
        subtask.agent_id = event.agent_id or subtask.agent_id
        subtask.error = event.error or subtask.error
        subtask.finished_at = at
        self._move(subtask, state)

    def _move(self, subtask: SubtaskView, state: State | None) -> None:
        """Put ``subtask`` in ``state``, or where its needs put it, and pass it on."""
        moves: list[tuple[SubtaskView, State | None]] = [(subtask, state)]
        while moves:
            moved, wanted = moves.pop()
            old, new = moved.state, wanted or moved.waiting_state
            if new is old:
                continue
            moved.state = new
            self.counts[old] -= 1
            self.counts[new] += 1
            met = (new is State.COMPLETED) - (old is State.COMPLETED)
            broken = new.is_broken - old.is_broken
            if not met and not broken:
                continue
            for dependent in self._dependents[moved.id]:
                dependent.unmet -= met
                dependent.broken += broken
                if dependent.state.is_waiting:
                    moves.append((dependent, None))
