"""What happens to a task (events), and what the scheduler asks for (commands).

An event is a fact; those of ``Fact`` are journaled, in order, before their effects.
``AttemptProgress``, ``Waiting`` and ``Noticed`` may be lost: they are shown, never
journaled.
The JSON form of an event is a contract: fields are added, never renamed.
"""

from datetime import datetime
from typing import Any

from msgspec import Struct, to_builtins

from mas.model import FailureKind, Plan, Status, Usage


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class TaskCreated(_Event, frozen=True, kw_only=True, tag="task_created"):
    description: str
    inputs: tuple[str, ...] = ()
    """The user's files, as copied below the task's folder."""
    folder: str = ""
    """Where the workspaces are; absolute."""
    script: str | None = None
    """The name of the script that plays Claude, ``demo``; None is Claude itself."""
    budget_usd: float | None = None
    budget_tokens: int | None = None
    """What the task may use, over all its runs; None is no limit."""


class PlanAccepted(_Event, frozen=True, kw_only=True, tag="plan_accepted"):
    plan: Plan
    warning: str | None = None
    """Set where the planner's plan was not usable and the task became one subtask."""
    usage: Usage = Usage()


class TaskResumed(_Event, frozen=True, kw_only=True, tag="task_resumed"):
    """Another supervisor goes on where a former one stopped, however that ended."""

    owner: str
    """As in ``tasks.owner``: the supervisor's id, its machine and its process."""
    epoch: int
    budget_usd: float | None = None
    budget_tokens: int | None = None
    """What the task may use from now on, over all its runs; None is no limit."""


class AgentReady(_Event, frozen=True, kw_only=True, tag="agent_ready"):
    agent_id: str
    pid: int
    capabilities: tuple[str, ...]


class AgentLost(_Event, frozen=True, kw_only=True, tag="agent_lost"):
    agent_id: str
    error: str
    retired: bool = False
    """True: it will not be started again in this run."""


class AttemptStarted(_Event, frozen=True, kw_only=True, tag="attempt_started"):
    subtask_id: str
    attempt: int
    agent_id: str
    session_id: str | None = None
    resumes: bool = False
    """Whether it goes on in the session of the attempt before it."""


class AttemptFinished(_Event, frozen=True, kw_only=True, tag="attempt_finished"):
    subtask_id: str
    attempt: int
    agent_id: str
    status: Status
    """completed, failed or cancelled."""
    output: dict[str, Any] | None = None
    """result.json as the gate accepted it."""
    error: str | None = None
    failure: FailureKind | None = None
    execution_time: float = 0.0
    usage: Usage = Usage()
    retry_in_s: float | None = None
    """Set by the scheduler where it will try again."""


class ResultIgnored(_Event, frozen=True, kw_only=True, tag="result_ignored"):
    """A superseded attempt came to an end after all; that changes nothing."""

    subtask_id: str
    attempt: int
    agent_id: str
    status: Status
    """How it says that it ended."""
    error: str
    """Why it does not count."""


class SubtaskFinished(_Event, frozen=True, kw_only=True, tag="subtask_finished"):
    subtask_id: str
    status: Status
    """completed, failed or cancelled."""
    agent_id: str | None = None
    attempt: int | None = None
    error: str | None = None


class CancelAccepted(_Event, frozen=True, kw_only=True, tag="cancel_accepted"):
    """The task ends as cancelled: nothing new is started for it."""

    reason: str


class TaskSuspended(_Event, frozen=True, kw_only=True, tag="task_suspended"):
    reason: str
    hint: str
    interrupted: bool = False
    """True: a signal stopped it. Otherwise mas did, for ``reason``."""


class TaskFinished(_Event, frozen=True, kw_only=True, tag="task_finished"):
    status: Status
    result: dict[str, Any]
    error: str | None = None


class AttemptProgress(_Event, frozen=True, kw_only=True, tag="attempt_progress"):
    subtask_id: str
    attempt: int
    agent_id: str
    activity: str
    """What the agent does right now: a tool and its argument, or a word."""
    subagent: str | None = None
    """The subagent that does it, by its id; None is the agent itself."""
    subagent_status: str | None = None
    """started, running, completed or failed, where ``subagent`` is set."""
    usage: Usage | None = None
    """All of the attempt so far, where known."""
    held: bool | None = None
    """Whether it waits for its turn at Claude; None where nothing is said of it."""


class Waiting(_Event, frozen=True, kw_only=True, tag="waiting"):
    reason: str
    """What is waited for: the plan. Empty: nothing is, any more."""
    until: datetime | None = None
    """When that ends, or is tried again, where it is known."""


class Noticed(_Event, frozen=True, kw_only=True, tag="notice"):
    """Something that a person should know, and that stops nothing."""

    text: str
    is_passing: bool = False
    """True: it says how far something is, and the task's end says how far it came."""


Fact = (
    TaskCreated
    | PlanAccepted
    | TaskResumed
    | AgentReady
    | AgentLost
    | AttemptStarted
    | AttemptFinished
    | ResultIgnored
    | SubtaskFinished
    | CancelAccepted
    | TaskSuspended
    | TaskFinished
)
Event = Fact | AttemptProgress | Waiting | Noticed


class Recorded(Struct, frozen=True, kw_only=True):
    """An event with its place: ``seq`` counts a task's facts from 1, else None."""

    seq: int | None
    at: datetime
    task_id: str
    event: Event

    def to_json(self) -> dict[str, Any]:
        """The public form: ``seq, at, task_id, type`` and the event's own fields."""
        head: dict[str, Any] = {} if self.seq is None else {"seq": self.seq}
        head |= {"at": self.at.isoformat(), "task_id": self.task_id}
        fields: dict[str, Any] = to_builtins(self.event)
        return head | fields


def fact_of(recorded: Recorded) -> Fact:
    """The fact of what is in a journal; nothing else is ever written there."""
    event = recorded.event
    if isinstance(event, AttemptProgress | Waiting | Noticed):
        raise TypeError(f"{type(event).__name__} is not a fact")
    return event


class Tick(Struct, frozen=True):
    """Time has passed; deadlines and back-offs may be due."""


class CancelRequested(Struct, frozen=True):
    """The task shall end as cancelled."""

    reason: str


class AttemptHeld(Struct, frozen=True):
    """The attempt waits for its turn at Claude, or does not any more.

    Meanwhile its deadline stands still: it can do nothing about it.
    """

    subtask_id: str
    attempt: int
    is_held: bool


SchedulerInput = (
    AgentReady | AgentLost | AttemptFinished | AttemptHeld | Tick | CancelRequested
)


class Record(Struct, frozen=True):
    """Make this fact durable, in order, before the commands that follow it."""

    fact: Fact


class StartAttempt(Struct, frozen=True):
    subtask_id: str
    attempt: int
    agent_id: str


class StopAttempt(Struct, frozen=True):
    """Interrupt the attempt; its ``AttemptFinished`` or an ``AgentLost`` follows."""

    subtask_id: str
    attempt: int
    agent_id: str
    reason: str


class FinishTask(Struct, frozen=True):
    """Nothing is left to do: aggregate the results and record ``TaskFinished``."""

    status: Status
    error: str | None


class SuspendTask(Struct, frozen=True):
    """Going on makes no sense now: stop, and keep all for ``mas resume``."""

    reason: str
    hint: str


Command = Record | StartAttempt | StopAttempt | FinishTask | SuspendTask
