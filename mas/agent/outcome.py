"""How an attempt ended: what the session says, weighed against what the gate says.

Pure: no I/O, no clock.
"""

from msgspec import Struct

from mas.agent.logs import shortened
from mas.gates import Verdict
from mas.model import FailureKind, Usage
from mas.wire.messages import AttemptDone, RunAttempt

MAX_ERROR_CHARS = 8_000
NO_USAGE = Usage()


class SessionEnd(Struct, frozen=True, kw_only=True):
    """How the session ended. Without ``failure``, Claude stopped by itself."""

    failure: FailureKind | None = None
    error: str = ""
    usage: Usage = NO_USAGE
    history_refused: bool = False
    """It was to go on, and could not: the CLI or the API does not take its history."""


def conclude(order: RunAttempt, end: SessionEnd, verdict: Verdict) -> AttemptDone:
    """Return what the supervisor is told.

    A result that passes the gate counts where the session ended by itself, by a hook
    or by its limit of turns: Claude had the time to write it, and the gate has seen
    it. It does not count after a refusal, an API error or a loss: what Claude still
    meant to do to the files that the result names is unknown then.
    """
    if end.failure not in (None, FailureKind.MAX_TURNS):
        return failed(order, end.failure, end.error, end.usage)
    if verdict.result is None or verdict.raw is None:
        return failed(order, *_without_result(end, verdict), end.usage)
    if not verdict.result["success"]:
        summary = verdict.result["summary"] or "no reason was given"
        return failed(order, FailureKind.REPORTED_FAILURE, summary, end.usage)
    return AttemptDone(
        subtask_id=order.subtask.id,
        attempt=order.attempt,
        result=verdict.raw,
        usage=end.usage,
    )


def failed(
    order: RunAttempt, failure: FailureKind, error: str, usage: Usage = NO_USAGE
) -> AttemptDone:
    """The answer to an attempt that did not succeed."""
    return AttemptDone(
        subtask_id=order.subtask.id,
        attempt=order.attempt,
        failure=failure,
        error=shortened(error, MAX_ERROR_CHARS),
        usage=usage,
    )


def _without_result(end: SessionEnd, verdict: Verdict) -> tuple[FailureKind, str]:
    faults = "; ".join(verdict.faults)
    if end.failure is not None:
        return end.failure, f"{end.error}; {faults}"
    return FailureKind.NO_RESULT, f"the session ended without a valid result: {faults}"
