"""When to try again and when to give up: attempts at subtasks, starts of agents."""

from collections import deque

from mas.model import FailureKind

MAX_RETRY_DELAY_S = 30.0

MAX_AGENT_LOSSES = 3
"""A subtask that has lost its agent so often is what kills it, and fails by itself."""

_FINAL_FAILURES = frozenset(
    {
        FailureKind.AUTHENTICATION,  # the next try has the same credentials
        FailureKind.REFUSAL,  # the model meant it; asking again only costs
        FailureKind.CANCELLED,  # somebody wanted it to end
    }
)

_RESUMED_FAILURES = frozenset(
    {
        # Cut off from outside: what the session has done so far is good to go on with.
        FailureKind.AGENT_LOST,
        FailureKind.API_ERROR,
        FailureKind.AUTHENTICATION,
        FailureKind.INACTIVITY,
        FailureKind.INTERNAL,
    }
)


def retry_delay_s(failed_attempts: int) -> float:
    """How long to wait after so many failed attempts: 1, 2, 4 … and at most 30."""
    if failed_attempts < 1:
        raise ValueError(f"{failed_attempts} failed attempts call for no retry")
    return min(2.0 ** min(failed_attempts - 1, 10), MAX_RETRY_DELAY_S)


def is_retryable(kind: FailureKind) -> bool:
    """Whether another attempt may end otherwise."""
    return kind not in _FINAL_FAILURES


def resumes_session(kind: FailureKind) -> bool:
    """Whether the next attempt goes on in the session of the one that ended so."""
    return kind in _RESUMED_FAILURES


class RestartIntensity:
    """How often an agent may be restarted, as in OTP.

    More than ``max_restarts`` within ``window_s``: it is given up. A lone crash is
    mended at once; the delays of a streak grow, yet add up to less than half the
    window, so that an agent which dies at every start is given up and not throttled
    for ever.
    """

    def __init__(self, max_restarts: int, window_s: float) -> None:
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._restarts: deque[float] = deque()

    def record(self, now: float) -> float | None:
        """Note that the agent ended: seconds to wait before its next start, or None."""
        restarts = self._restarts
        restarts.append(now)
        while now - restarts[0] > self._window_s:
            restarts.popleft()
        if len(restarts) > self._max_restarts:
            return None
        if len(restarts) == 1:
            return 0.0
        longest_s = self._window_s / (2 * self._max_restarts)
        return min(retry_delay_s(len(restarts) - 1), longest_s)
