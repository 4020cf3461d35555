"""The circuit breaker: when Claude is down, nobody is sent into it. Pure."""

import math

from mas.core.policy import retry_delay_s

FAILURES = frozenset({500, 502, 503, 504})
"""Statuses that say: nobody was there to answer. All others are an answer."""

_TO_OPEN = 3


class Breaker:
    """Closed while requests are answered; open after three failures in a row.

    Open, it lets one probe through at a time, after 1, 2, 4 … 30 s; an answer closes
    it. ``retry_delay_s`` of ``core.policy`` is the series.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._failed_probes = 0
        self._probe: int | None = None
        self._probe_at = -math.inf
        self._is_probe_named = False
        self._reason = ""

    @property
    def is_open(self) -> bool:
        return self._failures >= _TO_OPEN

    @property
    def reason(self) -> str:
        """What the last failure was."""
        return self._reason

    @property
    def probe_at(self) -> float:
        """When the next probe may go, if it is open and none is under way."""
        return self._probe_at

    @property
    def is_probe_named(self) -> bool:
        """Whether the upstream itself asked to be left alone until then."""
        return self._is_probe_named

    @property
    def is_probing(self) -> bool:
        return self._probe is not None

    def earliest(self, now: float) -> float:
        """When a request may go: at most ``now``, or later; inf is after an answer."""
        if not self.is_open:
            return now
        return math.inf if self.is_probing else max(now, self._probe_at)

    def sent(self, seq: int) -> None:
        if self.is_open:
            self._probe = seq

    def answered(self) -> None:
        """The server is there, whatever it says."""
        self._failures = self._failed_probes = 0
        self._probe = None

    def failed(
        self, seq: int, reason: str, now: float, *, at_least_s: float = 0.0
    ) -> bool:
        """Note a failure; whether it came from an upstream that was known to be down.

        ``at_least_s`` is how long the upstream itself asked to be left alone.
        """
        was_open = self.is_open
        self._failures += 1
        self._reason = reason
        if was_open and seq != self._probe:
            return True  # sent before it opened: says nothing new
        if was_open:
            self._failed_probes += 1
            self._probe = None
        if self.is_open:
            delay_s = retry_delay_s(self._failed_probes + 1)
            self._probe_at = now + max(delay_s, at_least_s)
            self._is_probe_named = at_least_s >= delay_s
        return was_open

    def left_out(self, seq: int) -> None:
        """Nobody waits for this answer any more: another may probe."""
        if seq == self._probe:
            self._probe = None
