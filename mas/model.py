"""The nouns of mas: what tasks, plans, subtasks, agents and their results are."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

CAPABILITIES: dict[str, str] = {
    "data_analysis": "statistics, aggregation, charts and reports over data",
    "code_generation": "writing and running programs",
    "web_scraping": "searching the web and reading pages",
    "api_integration": "calling HTTP APIs and other services",
    "file_processing": "reading, converting and writing files",
    "database_operations": "SQL on the shared PostgreSQL",
}
"""The capabilities that mas knows by itself; mas.toml may declare more."""


class Status(StrEnum):
    """The state of a task or of a subtask: the same five words for both."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class FailureKind(StrEnum):
    """Why an attempt did not succeed; decides whether another try makes sense."""

    NO_RESULT = "no_result"
    """The session ended without an output/result.json that passes the gate."""
    REPORTED_FAILURE = "reported_failure"
    """result.json says ``success: false``."""
    API_ERROR = "api_error"
    AUTHENTICATION = "authentication"
    REFUSAL = "refusal"
    MAX_TURNS = "max_turns"
    INACTIVITY = "inactivity"
    """Nothing was heard from the session for ``inactivity_timeout_s``."""
    DEADLINE = "deadline"
    """The attempt ran longer than ``attempt_timeout_s``."""
    AGENT_LOST = "agent_lost"
    WORKSPACE = "workspace"
    """The workspace could not be read or written: disk full, no permission."""
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Usage(Struct, frozen=True, omit_defaults=True):
    """What model calls took; tokens by kind, cost in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0
    """Of the tokens whose price is known."""
    unpriced_tokens: int = 0
    """Those of all kinds whose price is not known: they cost more than is said."""
    estimated_tokens: int = 0
    """Output tokens that are an estimate, as their answer was cut."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cost_usd + other.cost_usd,
            self.unpriced_tokens + other.unpriced_tokens,
            self.estimated_tokens + other.estimated_tokens,
        )

    @property
    def tokens(self) -> int:
        """Input, output and cache writes: what budgets count."""
        return self.input_tokens + self.output_tokens + self.cache_write_tokens


class Subtask(Struct, frozen=True, kw_only=True):
    """One node of the plan. ``id`` is the planner's key, unique within the plan."""

    id: str
    description: str
    required_capabilities: tuple[str, ...] = ()
    dependencies: tuple[str, ...] = ()
    priority: int = 5
    """0 to 10; higher runs first."""
    estimated_duration: float = 60.0
    """Seconds, the planner's guess."""
    input_data: dict[str, Any] = field(default_factory=dict)


class Plan(Struct, frozen=True):
    """The task's subtasks and what each needs. Checked by ``core.graph``."""

    subtasks: tuple[Subtask, ...]


class AgentSpec(Struct, frozen=True, kw_only=True):
    """One entry of the roster: an agent as configured, running or not."""

    id: str
    capabilities: tuple[str, ...]
    command: tuple[str, ...] = ()
    """Prefix of the agent's command line, for instance ``ssh host``; empty is local."""
    permission_mode: str | None = None
    model: str | None = None


class AgentStatus(Struct, frozen=True, kw_only=True):
    """An agent as its last heartbeat showed it: the hash ``agent:*`` in Redis."""

    agent_id: str
    supervisor: str
    pid: int
    is_available: bool
    current_task: str | None
    """The subtask it works on, by id."""
    capabilities: tuple[str, ...]
    cpu_usage: float
    """Percent of one core, the whole process tree."""
    memory_usage: float
    """MiB, the whole process tree."""
    tasks_completed: int
    last_heartbeat: datetime


class Task(Struct, frozen=True, kw_only=True):
    """What the user asked for, as recorded."""

    id: str
    description: str
    status: Status
    plan: Plan | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    owner: str | None = None
    """The supervisor that took it last."""
    owner_epoch: int = 0
    """Counts how often a supervisor took it; each commit checks it."""
    owner_alive: bool | None = None
    """Whether that supervisor still holds it; None where nobody looked."""
    suspended: str | None = None
    """Why its last run stopped by itself; None where it did not, or it goes on."""

    @property
    def shown_status(self) -> str:
        """The word for people: a task in progress may be one that nobody works on.

        It is ``suspended`` where its last run stopped by itself, else ``interrupted``.
        """
        if self.status is not Status.IN_PROGRESS or self.owner_alive is not False:
            return self.status.value
        return "interrupted" if self.suspended is None else "suspended"


class SubtaskResult(Struct, frozen=True, kw_only=True):
    """One attempt that began: a row of ``subtask_results``."""

    task_id: str
    subtask_id: str
    attempt: int
    agent_id: str
    status: Status
    output: dict[str, Any] | None = None
    error: str | None = None
    failure: FailureKind | None = None
    execution_time: float | None = None
    """Seconds from the attempt's start to its end."""
    usage: Usage = Usage()
    started_at: datetime
    finished_at: datetime | None = None


class CallState(StrEnum):
    """How far a call of Claude's API came."""

    OPEN = "open"
    """It was sent, and has not ended; for good, where its supervisor was killed."""
    COMPLETE = "complete"
    """Answered to the end; what it used is exact."""
    CUT = "cut"
    """The answer broke off, or its client left: the output is estimated."""
    REFUSED = "refused"
    """Answered with an HTTP error, which costs nothing."""
    UNANSWERED = "unanswered"
    """No answer began: the connection failed, or the client left before."""


class ModelCall(Struct, frozen=True, kw_only=True):
    """One call of Claude's API: a row of ``model_calls``."""

    id: str
    """Unique; a call is written when it is sent and again when it has ended."""
    task_id: str
    subtask_id: str | None = None
    """None: the planner's."""
    attempt: int | None = None
    agent_id: str
    """``planner`` for the planner."""
    subagent: str | None = None
    """The id that the CLI gave the subagent; None is the session itself."""
    path: str
    model: str = ""
    state: CallState = CallState.OPEN
    http_status: int | None = None
    usage: Usage = Usage()
    started_at: datetime
    """When it was sent to Claude, after whatever it had to wait for."""
    held_s: float = 0.0
    """How long it waited in the gateway before that."""
    first_byte_s: float | None = None
    """From ``started_at`` to the answer's first byte."""
    duration_s: float | None = None
    """From ``started_at`` to the answer's end."""
    error: str | None = None


class LogRecord(Struct, frozen=True, kw_only=True):
    """One line that an agent or the supervisor logged: a row of ``agent_logs``."""

    at: datetime
    agent_id: str
    level: str
    """debug, info, warning or error."""
    message: str
    task_id: str | None = None
    subtask_id: str | None = None
