"""The rows of a screen: subtasks, their subagents, the agents. ``view`` fills them."""

from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from msgspec import Struct, field

from mas.core.events import AttemptFinished, AttemptProgress, AttemptStarted
from mas.model import Usage


class State(StrEnum):
    """What a subtask does, finer than its status."""

    PENDING = "pending"
    """Waits for subtasks that it needs."""
    BLOCKED = "blocked"
    """Will not start: a subtask that it needs failed or was cancelled."""
    READY = "ready"
    """Waits for nothing but an agent."""
    RUNNING = "running"
    RETRY = "retry"
    """An attempt failed; the next one is due."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_waiting(self) -> bool:
        return self in (State.PENDING, State.BLOCKED, State.READY)

    @property
    def is_broken(self) -> bool:
        """No result will come of it."""
        return self in (State.BLOCKED, State.FAILED, State.CANCELLED)


class AgentState(StrEnum):
    READY = "ready"
    LOST = "lost"
    """It ended and is being started again."""
    RETIRED = "retired"
    """It ended and stays away for the rest of the run."""


class AgentView(Struct):
    id: str
    state: AgentState
    pid: int | None = None
    capabilities: tuple[str, ...] = ()
    error: str | None = None


class SubagentView(Struct):
    id: str
    status: str = "started"
    """started, running, completed or failed."""
    activity: str = ""

    @property
    def is_active(self) -> bool:
        return self.status in ("started", "running")


class SubtaskView(Struct, kw_only=True):
    """A subtask with its latest attempt. Only ``view`` changes it."""

    id: str
    description: str
    stage: int
    """1 where it needs nothing, else one more than the latest that it needs."""
    needs: tuple[str, ...]
    """Every subtask whose result it needs, once."""
    capabilities: tuple[str, ...]
    state: State = State.PENDING
    agent_id: str | None = None
    attempt: int = 0
    activity: str = ""
    """What its agent said last."""
    held: bool = False
    """Whether its live attempt waits for its turn at Claude."""
    error: str | None = None
    retry_at: datetime | None = None
    retry_wait_s: float = 0.0
    """How long before ``retry_at`` that was said."""
    started_at: datetime | None = None
    """When its latest attempt began."""
    took_s: float | None = None
    """Seconds that its latest attempt took; None while that is live."""
    finished_at: datetime | None = None
    subagents: dict[str, SubagentView] = field(default_factory=dict)
    """Those of its live attempt, in the order in which they appeared."""
    spent: Usage = Usage()
    """What its ended attempts took."""
    spending: Usage = Usage()
    """What its latest attempt has taken so far, until it has ended."""
    unmet: int = 0
    """How many of its needs are not completed."""
    broken: int = 0
    """How many of its needs will bring no result."""

    @property
    def usage(self) -> Usage:
        return self.spent + self.spending

    @property
    def waiting_state(self) -> State:
        """Where its needs put it while nothing else does."""
        if self.broken:
            return State.BLOCKED
        return State.PENDING if self.unmet else State.READY

    def elapsed_s(self, now: datetime) -> float | None:
        """How long its latest attempt has taken; None before the first."""
        if self.took_s is None and self.started_at is not None:
            return max(0.0, (now - self.started_at).total_seconds())
        return self.took_s

    def retry_in_s(self, now: datetime) -> int:
        """Whole seconds until the next try is due; 0 where it is due now."""
        if self.retry_at is None:
            return 0
        # The wait is bounded: the clock may have been set back meanwhile.
        left_s = min((self.retry_at - now).total_seconds(), self.retry_wait_s)
        return max(0, ceil(left_s))

    def start(self, event: AttemptStarted, at: datetime) -> None:
        self.attempt = event.attempt
        self.agent_id = event.agent_id
        self.started_at = at
        self.took_s = self.finished_at = self.retry_at = self.error = None
        self.activity = ""

    def progress(self, event: AttemptProgress) -> None:
        if event.usage is not None:
            self.spending = event.usage
        if event.held is not None:
            self.held = event.held
        if event.subagent is None:
            self.activity = event.activity or self.activity
            return
        fresh = SubagentView(event.subagent)
        subagent = self.subagents.setdefault(event.subagent, fresh)
        subagent.status = event.subagent_status or subagent.status
        subagent.activity = event.activity or subagent.activity

    def finish(self, event: AttemptFinished, at: datetime) -> Usage:
        """The live attempt has ended; return what it took."""
        if event.usage != Usage():
            self.spending = event.usage
        took = self.close(at)
        self.took_s = event.execution_time or self.took_s
        self.error = event.error
        if event.retry_in_s is not None:
            self.retry_wait_s = event.retry_in_s
            self.retry_at = at + timedelta(seconds=event.retry_in_s)
        return took

    def cut_off(self, at: datetime) -> None:
        """Nobody works on it since ``at``; how its attempt ended may be said later."""
        self.took_s = self.elapsed_s(at)
        self.subagents = {}
        self.held = False
        self.retry_at = None

    def close(self, at: datetime) -> Usage:
        """Nothing more comes of the attempt; return what is not yet counted of it."""
        self.cut_off(at)
        took, self.spending = self.spending, Usage()
        self.spent += took
        return took
