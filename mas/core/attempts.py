"""An attempt that runs, and what its end counts as."""

from dataclasses import dataclass

from msgspec.structs import replace

from mas.core.events import AttemptFinished
from mas.core.policy import MAX_AGENT_LOSSES, is_retryable, retry_delay_s
from mas.model import FailureKind, Status


@dataclass(slots=True)
class LiveAttempt:
    """An attempt that has begun and not ended."""

    subtask_id: str
    attempt: int
    agent_id: str
    started_at: float
    is_inherited: bool = False
    """Begun by a former run, and still unknown how it ended."""
    stopped_for: FailureKind | None = None
    """Set once it was told to stop: CANCELLED or DEADLINE."""
    stop_reason: str | None = None
    left_s: float | None = None
    """What was left of its time when it was held; None while its time runs."""

    def is_meant_by(self, event: AttemptFinished) -> bool:
        meant = (event.subtask_id, event.attempt, event.agent_id)
        return meant == (self.subtask_id, self.attempt, self.agent_id)

    def lost(self, error: str, now: float) -> AttemptFinished:
        """Its end, if its agent is gone."""
        return AttemptFinished(
            subtask_id=self.subtask_id,
            attempt=self.attempt,
            agent_id=self.agent_id,
            status=Status.FAILED,
            failure=FailureKind.AGENT_LOST,
            error=f"{self.agent_id} was lost: {error}",
            execution_time=now - self.started_at,
        )

    def judge(
        self,
        event: AttemptFinished,
        *,
        failures: int,
        losses: int,
        max_attempts: int,
        may_retry: bool,
    ) -> AttemptFinished:
        """What ``event`` counts as after so many failures, and when to try again.

        A result counts however late it comes. Whatever else follows a stop was caused
        by it. An attempt that ended with its supervisor is tried again at once, and so
        is one that Claude refused the credentials, as soon as the task goes on.
        ``losses`` are those of the failures in which the subtask's agent was lost.
        """
        if event.status is Status.COMPLETED:
            return event
        kind = self.stopped_for or event.failure or FailureKind.INTERNAL
        was_cancelled = self.stopped_for is FailureKind.CANCELLED
        error = self.stop_reason or event.error or f"it ended with {kind}"
        was_lost = kind is FailureKind.AGENT_LOST
        retry_in_s = None
        if kind is FailureKind.AUTHENTICATION or (
            may_retry and was_lost and self.is_inherited
        ):
            retry_in_s = 0.0
        elif was_lost and not self.is_inherited and losses + 1 >= MAX_AGENT_LOSSES:
            error = f"its agent was lost {losses + 1} times: {error}"
        elif may_retry and is_retryable(kind) and failures + 1 < max_attempts:
            retry_in_s = retry_delay_s(failures + 1)
        return replace(
            event,
            status=Status.CANCELLED if was_cancelled else Status.FAILED,
            failure=kind,
            error=error,
            retry_in_s=retry_in_s,
        )
