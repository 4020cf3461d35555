"""What tests of the scheduler are written in: short words for events and commands."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptStarted,
    Command,
    Fact,
    Record,
    StartAttempt,
    SubtaskFinished,
)
from mas.core.scheduler import Scheduler
from mas.model import AgentSpec, FailureKind, Plan, Status, Subtask

SESSION = "a new session"
"""Every session that a scheduler in these tests begins."""

OUTPUT = {"success": True, "data": {}, "summary": "done", "files_created": []}


def subtask(
    key: str,
    *dependencies: str,
    needs: tuple[str, ...] = (),
    priority: int = 5,
    seconds: float = 60.0,
) -> Subtask:
    return Subtask(
        id=key,
        description=f"do {key}",
        required_capabilities=needs,
        dependencies=dependencies,
        priority=priority,
        estimated_duration=seconds,
    )


def roster(*capabilities: str) -> tuple[AgentSpec, ...]:
    """agent_1, agent_2 …; each text holds an agent's capabilities."""
    return tuple(
        AgentSpec(id=f"agent_{number}", capabilities=tuple(text.split()))
        for number, text in enumerate(capabilities, start=1)
    )


def scheduler(
    *subtasks: Subtask,
    agents: Sequence[AgentSpec] = roster(""),
    max_attempts: int = 3,
    attempt_timeout_s: float = 100.0,
    task_timeout_s: float = 0.0,
    history: Iterable[Fact] = (),
) -> Scheduler:
    return Scheduler(
        Plan(subtasks),
        agents,
        new_session_id=lambda: SESSION,
        max_attempts=max_attempts,
        attempt_timeout_s=attempt_timeout_s,
        task_timeout_s=task_timeout_s,
        history=history,
    )


def ready(number: int = 1) -> AgentReady:
    return AgentReady(agent_id=f"agent_{number}", pid=number, capabilities=())


def lost(number: int = 1, *, retired: bool = False) -> AgentLost:
    return AgentLost(agent_id=f"agent_{number}", error="exit code 1", retired=retired)


def done(key: str, attempt: int = 1, agent: int = 1) -> AttemptFinished:
    return AttemptFinished(
        subtask_id=key,
        attempt=attempt,
        agent_id=f"agent_{agent}",
        status=Status.COMPLETED,
        output=OUTPUT,
    )


def failed(
    key: str,
    attempt: int = 1,
    agent: int = 1,
    kind: FailureKind = FailureKind.NO_RESULT,
) -> AttemptFinished:
    return replace(
        done(key, attempt, agent),
        status=Status.FAILED,
        output=None,
        failure=kind,
        error="no file",
    )


def started(
    key: str, attempt: int = 1, agent: int = 1, *, resumes: bool = False
) -> list[Command]:
    """What the start of an attempt looks like."""
    agent_id = f"agent_{agent}"
    fact = AttemptStarted(
        subtask_id=key,
        attempt=attempt,
        agent_id=agent_id,
        session_id=SESSION,
        resumes=resumes,
    )
    return [Record(fact), StartAttempt(key, attempt, agent_id)]


def finished(
    key: str,
    status: Status = Status.COMPLETED,
    error: str | None = None,
    attempt: int | None = 1,
    agent: int = 1,
) -> Record:
    return Record(
        SubtaskFinished(
            subtask_id=key,
            status=status,
            agent_id=f"agent_{agent}" if attempt else None,
            attempt=attempt,
            error=error,
        )
    )


def starts(commands: Sequence[Command]) -> list[tuple[str, str]]:
    """Which subtask was started on which agent."""
    return [(c.subtask_id, c.agent_id) for c in commands if type(c) is StartAttempt]


def last_error(commands: Sequence[Command]) -> str:
    errors = [
        c.fact.error
        for c in commands
        if isinstance(c, Record) and isinstance(c.fact, SubtaskFinished)
    ]
    return errors[-1] or ""
