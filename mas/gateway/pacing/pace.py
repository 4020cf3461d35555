"""How many requests at a time, and how many a second. Pure.

Concurrency tames an upstream that is busy, pace one that counts: where answers are
quick, even a single client at a time sends too many.
"""

import math

_WINDOW_S = 1.0
_LONG_WINDOW_S = 10.0
_REORDERED_S = 0.05
"""Requests sent that close to each other may arrive in another order."""
_REMEMBERED = 1024
"""Sends whose order is remembered: seconds of the fastest storm."""

_CAUTION = 0.9
"""How close to the rate that was refused we stay until it has gone well for long."""
_CUT = 0.5
_PLATEAU = 100
"""Successes until that rate is reached again: so refusals stay near one in a hundred.
"""
_QUIET_S = 60.0
_DOUBLING_S = 30.0
"""After a quiet minute the rate doubles as often, for limits that were raised."""
_SLOWEST_PER_S = 1.0
_FASTEST_PER_S = 64.0
"""Beyond it a pace is no limit any more, and is forgotten."""


class Concurrency:
    """Requests in flight: halved when refused, won back one for a limit's successes."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"at most {most} requests in flight let none pass")
        self._most = most
        self._limit = float(most)

    @property
    def limit(self) -> int:
        """1 to the most that is allowed."""
        return int(self._limit)

    def refused(self, in_flight: int) -> None:
        """Something was refused while so many were in flight, itself included."""
        self._limit = float(max(1, min(self.limit, in_flight) // 2))

    def succeeded(self) -> None:
        self._limit = min(float(self._most), self._limit + 1 / self._limit)


class Pace:
    """Requests a second; no limit until something is refused.

    A refusal shows the rate that was too much: what had been let through within the
    last second. Sending goes on at half of it, comes back quickly at first, stays long
    just below it, and then looks for more, ever faster: the curve of TCP CUBIC, over
    successes where TCP takes time, so that the share of refusals stays small at every
    rate. Sends are spaced evenly. A pace that is not used up does not grow.
    """

    def __init__(self) -> None:
        # By number: when it was sent, and whether the pace was used up then.
        self._sends: dict[int, tuple[float, bool]] = {}
        self._last_sent_at = -math.inf
        self._target_per_s: float | None = None
        self._rate_before: float | None = None
        self._refused_at = 0.0
        self._first_refused_at = math.inf  # by when it was sent, in this round
        self._successes = 0

    def rate(self, now: float) -> float | None:
        """Requests a second; None is no limit."""
        if self._target_per_s is None:
            return None
        way = (self._successes - _PLATEAU) / _PLATEAU
        quiet_s = now - self._refused_at - _QUIET_S
        growth = 2.0 ** min(30.0, max(0.0, quiet_s / _DOUBLING_S))
        rate = self._target_per_s * (1 + _CUT * way**3) * growth
        return rate if rate < _FASTEST_PER_S else None

    def earliest(self, now: float) -> float:
        """When the next request may go; at most ``now``, or later."""
        rate = self.rate(now)
        if rate is None:
            return now
        return max(now, self._last_sent_at + 1 / rate)

    def sent(self, seq: int, now: float) -> None:
        """``seq`` goes out; it grows from each to the next."""
        rate = self.rate(now)
        is_used_up = rate is not None and now - self._last_sent_at <= 2 / rate
        self._sends[seq] = (now, is_used_up)
        self._last_sent_at = now
        if len(self._sends) > _REMEMBERED:
            del self._sends[next(iter(self._sends))]

    def succeeded(self, seq: int) -> None:
        """``seq``, sent since the last refusal, was let through."""
        _, is_used_up = self._sends.get(seq, (0.0, False))
        self._successes += is_used_up

    def refused(self, seq: int, now: float, *, starts_round: bool) -> None:
        """``seq`` was refused; in a round that has begun it only mends the estimate."""
        at, _ = self._sends.pop(seq, (now, False))
        if starts_round:
            self._rate_before = self.rate(at)
            self._last_sent_at = -math.inf  # the back-off says when the next one goes
            self._target_per_s = None
            self._refused_at = now
            self._first_refused_at = at
            self._successes = 0
        self._first_refused_at = min(at, self._first_refused_at)
        target = max(_SLOWEST_PER_S, _CAUTION * self._too_much())
        if self._target_per_s is None or target < self._target_per_s:
            self._target_per_s = target

    def _too_much(self) -> float:
        """The rate let through before the first refusal; at least half the last pace.

        What is not answered yet counts as let through, until it is refused as well.
        """
        latest = self._first_refused_at + _REORDERED_S
        ages = [
            self._first_refused_at - at
            for at, _ in self._sends.values()
            if at <= latest
        ]
        short = sum(age < _WINDOW_S for age in ages) / _WINDOW_S
        long = sum(age < _LONG_WINDOW_S for age in ages) / _LONG_WINDOW_S
        passed = max(short, long)
        if self._rate_before is None:
            return passed
        return min(self._rate_before, max(passed, self._rate_before / 2))
