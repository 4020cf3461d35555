"""How a run ends: the task is finished, or suspended until it can go on."""

from dataclasses import dataclass

from mas.core.events import FinishTask, SuspendTask
from mas.core.progress import Progress
from mas.model import FailureKind, Status


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the whole task ends early: CANCELLED or DEADLINE."""

    kind: FailureKind
    reason: str


def finish(progress: Progress, stop: Stop | None) -> FinishTask:
    """What the task came to, now that every subtask is final."""
    if progress.all_completed:
        return FinishTask(Status.COMPLETED, None)
    if stop is not None and stop.kind is FailureKind.CANCELLED:
        return FinishTask(Status.CANCELLED, stop.reason)
    summary = progress.failure_summary()
    return FinishTask(Status.FAILED, f"{stop.reason}; {summary}" if stop else summary)


def refused(error: str | None) -> SuspendTask:
    """No attempt can succeed with these credentials; what is done stays done."""
    return SuspendTask(
        f"Claude refused the credentials: {error}",
        "correct ANTHROPIC_API_KEY, then go on with mas resume",
    )
