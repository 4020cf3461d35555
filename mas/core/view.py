"""What a screen shows of a task: a fold over its events.

``RunView.apply`` takes the events of one task in order, from its journal, from a live
run, or from the journal first and the live run after it: a fact that was seen already
changes nothing, nor does what a superseded attempt still says. It never fails.
"""

from datetime import datetime
from itertools import islice
from typing import Any, assert_never

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Event,
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
        self._spent = Usage()
        self._seq = 0
        self._worked_s = 0.0
        self._working_since: datetime | None = None

    @property
    def usage(self) -> Usage:
        """What the task has taken, planning and live attempts included."""
        total = self._spent
        if self.counts[State.RUNNING]:
            for subtask in self.subtasks.values():
                if subtask.state is State.RUNNING:
                    total += subtask.spending
        return total

    @property
    def files(self) -> list[str]:
        """Where the files are that the task made, once it has finished."""
        paths = self.result.get("files")
        return [str(path) for path in paths] if isinstance(paths, list) else []

    def statuses(self) -> dict[str, Status]:
        """Each subtask's status, by id: its state in the five words of a record."""
        return {key: _STATUSES[view.state] for key, view in self.subtasks.items()}

    def elapsed_s(self, now: datetime) -> float:
        """How long the task has been worked on, without the time it was suspended."""
        if self._working_since is None:
            return self._worked_s
        since = (now - self._working_since).total_seconds()
        return self._worked_s + max(0.0, since)

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
        self._fold(recorded.event, recorded.at)

    def _fold(self, event: Event, at: datetime) -> None:
        match event:
            case TaskCreated():
                self.description = event.description
                self._begin(at)
            case PlanAccepted():
                self._begin(at)
                self._take_plan(event)
            case TaskResumed():
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
                if subtask := self._live(event):
                    subtask.progress(event)
            case AttemptFinished():
                if subtask := self._live(event):
                    self._finish_attempt(subtask, event, at)
            case SubtaskFinished():
                self._finish_subtask(event, at)
            case ResultIgnored():
                pass
            case Waiting():
                self._begin(at)
                self.waiting, self.waiting_since = event.reason or None, at
            case TaskSuspended():
                self.suspended = event
                self.agents.clear()
                self._end(at)
            case TaskFinished():
                self.status, self.error = event.status, event.error
                self.result = event.result
                self._end(at)
            case _:
                assert_never(event)

    def _begin(self, at: datetime) -> None:
        """The task is being worked on from now on, again if it was suspended."""
        self.started_at = self.started_at or at
        self.suspended = None
        if self._working_since is None:
            self._working_since = at
        if self.status is Status.PENDING:
            self.status = Status.IN_PROGRESS

    def _end(self, at: datetime) -> None:
        """Nobody works on the task from now on, whatever was said before."""
        self._worked_s = self.elapsed_s(at)
        self._working_since = None
        self.waiting = None
        for subtask in self.subtasks.values():
            if subtask.state is State.RUNNING:
                self._spent += subtask.close(at)
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
        self.waiting, self.warning = None, event.warning
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
        self.waiting = None
        self._spent += subtask.close(at)
        subtask.start(event, at)
        self._move(subtask, State.RUNNING)

    def _live(self, event: AttemptProgress | AttemptFinished) -> SubtaskView | None:
        subtask = self.subtasks.get(event.subtask_id)
        return subtask if subtask and subtask.is_live(event.attempt) else None

    def _finish_attempt(
        self, subtask: SubtaskView, event: AttemptFinished, at: datetime
    ) -> None:
        self.waiting = None
        self._spent += subtask.finish(event, at)
        if subtask.retry_at is not None:
            self._move(subtask, State.RETRY)
        elif event.status is Status.CANCELLED:
            self._move(subtask, None)

    def _finish_subtask(self, event: SubtaskFinished, at: datetime) -> None:
        subtask = self.subtasks.get(event.subtask_id)
        state = _FINAL.get(event.status)
        if subtask is None or state is None:
            return
        self.waiting = None
        self._spent += subtask.close(at)
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
