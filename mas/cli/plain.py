"""A run as lines of text: one a change, for logs, pipes and terminals without a cursor.

The lines are ASCII but for what others wrote. Pure, but for the local time zone.
"""

from datetime import timedelta, tzinfo
from typing import assert_never

from mas.cli.text import duration, sentences, span, visible, wait
from mas.cli.usage import cost_words, token_words
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    CancelAccepted,
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
from mas.core.graph import stages
from mas.model import FailureKind, Status


def line(recorded: Recorded, *, zone: tzinfo | None = None) -> str | None:
    """``12:03:41  stats  started on agent_2 (try 1)``; None for what is no change.

    The time is that of ``zone``, by default the local one.
    """
    told = _subject_and_text(recorded)
    if told is None:
        return None
    subject, text = told
    at = recorded.at.astimezone(zone)
    return f"{at:%H:%M:%S}  {visible(subject)}  {visible(text)}"


class Waits:
    """Knows which waits have been told: what comes and goes is told now and then."""

    def __init__(self) -> None:
        self._told: dict[str, Recorded] = {}

    def is_news(self, recorded: Recorded) -> bool:
        """Whether it says more than what was told; a wait it is taken to be told now.

        So it is for all that is no wait.
        """
        event = recorded.event
        if not isinstance(event, Waiting):
            return True
        former = self._told.get(event.reason)
        if former and recorded.at - former.at < _AGAIN:
            assert isinstance(former.event, Waiting)
            ends, said = event.until, former.event.until
            if ends is None or (said is not None and ends - said < _LONGER):
                return False
        self._told[event.reason] = recorded
        return True


_AGAIN = timedelta(seconds=30)
_LONGER = timedelta(seconds=5)
"""A wait that was told is told again after the one, or where it lasts the other longer.
"""


def _subject_and_text(recorded: Recorded) -> tuple[str, str] | None:
    event, task_id = recorded.event, recorded.task_id
    match event:
        case TaskCreated():
            return "task", f"{task_id[:8]}: {event.description}"
        case PlanAccepted():
            return "plan", _plan(event)
        case TaskResumed():
            return "task", f"{task_id[:8]} goes on where it stopped"
        case AgentReady():
            return event.agent_id, f"ready (pid {event.pid})"
        case AgentLost():
            then = "it is out of this run" if event.retired else "it is started again"
            return event.agent_id, f"lost: {event.error}; {then}"
        case AttemptStarted():
            how = "continued" if event.resumes else "started"
            where = f"{how} on {event.agent_id} (try {event.attempt})"
            return event.subtask_id, where
        case AttemptFinished():
            text = _attempt(event)
            return (event.subtask_id, text) if text else None
        case ResultIgnored():
            text = f"attempt {event.attempt} ended late: {event.error}"
            return event.subtask_id, text
        case SubtaskFinished():
            text = _subtask(event)
            return (event.subtask_id, text) if text else None
        case Waiting():
            left = event.until - recorded.at if event.until else None
            text = wait(event.reason, left.total_seconds() if left else None)
            return ("task", text) if event.reason else None
        case Noticed():
            return "task", event.text
        case CancelAccepted():
            return "task", f"is being cancelled: {event.reason}"
        case TaskSuspended():
            word = "interrupted" if event.interrupted else "suspended"
            return "task", sentences(f"{word}: {event.reason}", event.hint)
        case TaskFinished():
            return "task", _task(event)
        case AttemptProgress():
            return None
        case _:
            assert_never(event)


def _plan(event: PlanAccepted) -> str:
    text = f"{_count(len(event.plan.subtasks), 'subtask')}"
    text += f" in {_count(len(stages(event.plan)), 'stage')}"
    return f"{text}; {event.warning}" if event.warning else text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _attempt(event: AttemptFinished) -> str | None:
    """How an attempt ended, where the subtask's end does not say it."""
    if event.status is Status.COMPLETED:
        took = f"completed in {duration(event.execution_time)} by {event.agent_id}"
        used = [token_words(event.usage), cost_words(event.usage)]
        return ", ".join([took, *filter(None, used)])
    if event.retry_in_s is None:
        return None
    failed = f"try {event.attempt} failed: {event.error or event.status.value}"
    if event.failure is FailureKind.AUTHENTICATION:
        return f"{failed}; tried again with mas resume"  # the task is suspended next
    soon = f"in {span(event.retry_in_s)}" if event.retry_in_s >= 1 else "at once"
    return f"{failed}; next try {soon}"


def _subtask(event: SubtaskFinished) -> str | None:
    if event.status is Status.COMPLETED and event.attempt is not None:
        return None  # its attempt's line says so, with time and cost
    tries = f" (try {event.attempt})" if event.attempt and event.attempt > 1 else ""
    reason = f": {event.error}" if event.error else ""
    return f"{event.status.value}{tries}{reason}"


def _task(event: TaskFinished) -> str:
    if event.error:
        return f"{event.status.value}: {event.error}"
    said = event.result.get("summary")
    first = said.strip().partition("\n")[0] if isinstance(said, str) else ""
    return f"{event.status.value}: {first}" if first else event.status.value
