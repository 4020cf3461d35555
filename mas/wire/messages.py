"""What supervisor and agent say to each other: two tagged unions over one pipe.

The agent opens with ``Hello``; the supervisor answers with ``Configure``, which carries
everything the agent may know, secrets included, so that none is in its argv or
environment. Then attempts, one at a time.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from mas.model import FailureKind, Subtask, Usage

PROTOCOL_VERSION = 2


class _Message(Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


class ClaudeSettings(Struct, frozen=True, kw_only=True):
    """How an agent's sessions reach Claude and what they may do."""

    model: str
    permission_mode: str
    max_turns: int
    inactivity_timeout_s: float
    config_dir: str
    base_url: str
    """The gateway: the only Claude that an agent knows."""


class ServiceSettings(Struct, frozen=True, kw_only=True):
    """The shared services, as the agent's tools reach them."""

    database_dsn: str
    """The agents' own database, under the agents' own role."""
    redis_url: str
    embedding_url: str | None = None


class Configure(_Message, frozen=True, kw_only=True, tag="configure"):
    supervisor: str
    claude: ClaudeSettings
    services: ServiceSettings
    heartbeat_s: float


class DependencyResult(Struct, frozen=True, kw_only=True):
    """What a finished dependency hands over."""

    subtask_id: str
    description: str
    output: dict[str, Any]
    """Its result.json, as accepted."""
    output_dir: str
    """Where the files that it made are; absolute."""


class PreviousAttempt(Struct, frozen=True, kw_only=True):
    attempt: int
    agent_id: str
    error: str


class RunAttempt(_Message, frozen=True, kw_only=True, tag="run_attempt"):
    """One attempt at one subtask: all that the agent needs to work on it."""

    task_id: str
    task_description: str
    subtask: Subtask
    attempt: int
    session_id: str
    """The Claude session's id, a UUID, chosen by the supervisor."""
    workspace: str
    """Absolute path of the subtask's folder."""
    database_schema: str
    """The task's schema in the agents' database."""
    token: str
    """Lets this attempt's model calls through the gateway, and nothing else."""
    dependencies: tuple[DependencyResult, ...] = ()
    previous_attempts: tuple[PreviousAttempt, ...] = ()
    resumes: bool = False
    """Go on in the session ``session_id``, in the workspace as the attempt before left
    it; where the session never began, begin it."""
    inputs_dir: str | None = None
    """The task's copies of the user's files; absolute. None where there are none."""


class StopAttempt(_Message, frozen=True, kw_only=True, tag="stop_attempt"):
    """Interrupt the attempt; ``AttemptDone`` answers."""

    subtask_id: str
    attempt: int
    reason: str


class HoldAttempt(_Message, frozen=True, kw_only=True, tag="hold_attempt"):
    """The attempt waits for its turn at Claude, or does not any more: that silence is
    no reason to give it up."""

    subtask_id: str
    attempt: int
    is_held: bool


class Shutdown(_Message, frozen=True, kw_only=True, tag="shutdown"):
    pass


ToAgent = Configure | RunAttempt | StopAttempt | HoldAttempt | Shutdown


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """The first frame of an agent; its form never changes between versions."""

    protocol: int
    agent_id: str
    pid: int


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    cpu_percent: float
    memory_mib: float
    subtask_id: str | None
    tasks_completed: int


class Log(_Message, frozen=True, kw_only=True, tag="log"):
    level: str
    """debug, info, warning or error."""
    message: str
    at: datetime
    subtask_id: str | None = None


class Progress(_Message, frozen=True, kw_only=True, tag="progress"):
    subtask_id: str
    attempt: int
    activity: str
    subagent: str | None = None
    subagent_status: str | None = None
    usage: Usage | None = None


class AttemptDone(_Message, frozen=True, kw_only=True, tag="attempt_done"):
    """How an attempt ended. Exactly one follows each ``RunAttempt``.

    ``result`` is result.json's bytes and ``failure`` None, or the other way round.
    """

    subtask_id: str
    attempt: int
    result: bytes | None = None
    failure: FailureKind | None = None
    error: str | None = None
    usage: Usage = Usage()


FromAgent = Hello | Heartbeat | Log | Progress | AttemptDone

encode = msgspec.msgpack.Encoder().encode
decode_to_agent = msgspec.msgpack.Decoder(ToAgent).decode
decode_from_agent = msgspec.msgpack.Decoder(FromAgent).decode
