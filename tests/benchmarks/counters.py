"""How an upstream may count requests a second. Each says whether one is let through."""

from collections import deque
from collections.abc import Callable

Counter = Callable[[float], bool]
"""Takes the time of a request, in seconds."""


def fixed_windows(per_s: float, phase: float = 0.0) -> Counter:
    """So many in each second of the clock."""
    seen: dict[int, int] = {}

    def accepts(at: float) -> bool:
        window = int(at + phase)
        seen[window] = seen.get(window, 0) + 1
        return seen[window] <= per_s

    return accepts


def sliding_window(per_s: float, _phase: float = 0.0) -> Counter:
    """So many let through in any second."""
    passed: deque[float] = deque()

    def accepts(at: float) -> bool:
        while passed and passed[0] <= at - 1:
            passed.popleft()
        if len(passed) < per_s:
            passed.append(at)
            return True
        return False

    return accepts


def token_bucket(per_s: float, _phase: float = 0.0) -> Counter:
    """A bucket that is filled evenly, and holds what comes in a second."""
    tokens, last = float(per_s), 0.0

    def accepts(at: float) -> bool:
        nonlocal tokens, last
        tokens, last = min(per_s, tokens + (at - last) * per_s), at
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return accepts


COUNTERS = {
    "fixed": fixed_windows,
    "sliding": sliding_window,
    "bucket": token_bucket,
}
