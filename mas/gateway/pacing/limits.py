"""What an answer's headers say of the limits, and what is left of them. Pure.

Claude replenishes continuously: what was used comes back evenly until the reset. Each
model has limits of its own, so what is known is kept by model.
"""

import math
from datetime import datetime
from email.utils import parsedate_to_datetime

from msgspec import Struct

from mas.gateway.exchange import Headers, header

_REQUESTS = "requests"
_TOKENS = ("tokens", "input-tokens")
"""Kinds that a request's input counts against; of the output nothing is known."""
_KINDS = (_REQUESTS, *_TOKENS, "output-tokens")

_FARTHEST_S = 32 * 86400.0
"""Nothing that Claude limits lasts longer than a month: more is nonsense."""
_TOLERANCE = 1e-6
_LEARNING = 0.3
_LEAST_SHARE = 0.02


class Window(Struct, frozen=True, kw_only=True):
    """One limit as an answer reports it."""

    limit: int | None
    """None: not said."""
    remaining: int
    reset_s: float
    """Seconds until all of it is there again; above 0."""


class Report(Struct, frozen=True, kw_only=True):
    """What the headers of one answer say; what was nonsense is left out."""

    retry_after_s: float | None = None
    rejected_s: float | None = None
    """A subscription's limit is used up: seconds until its reset."""
    windows: dict[str, Window] = {}


def read(headers: Headers, wall: datetime) -> Report:
    """Read them at ``wall``, a time with its zone."""
    found = {kind: _window(headers, kind, wall) for kind in _KINDS}
    rejected = header(headers, b"anthropic-ratelimit-unified-status") == "rejected"
    reset = header(headers, b"anthropic-ratelimit-unified-reset")
    return Report(
        retry_after_s=_retry_after_s(headers, wall),
        rejected_s=_ahead(_number(reset) - wall.timestamp()) if rejected else None,
        windows={kind: window for kind, window in found.items() if window},
    )


def _retry_after_s(headers: Headers, wall: datetime) -> float | None:
    exact = _ahead(_number(header(headers, b"retry-after-ms")) / 1000)
    if exact is not None:
        return exact
    words = header(headers, b"retry-after")
    seconds = _number(words)
    if not math.isnan(seconds):
        return _ahead(seconds)
    try:
        at = parsedate_to_datetime(words)
    except ValueError:
        return None
    return _ahead((at - wall).total_seconds()) if at.tzinfo else None


def _window(headers: Headers, kind: str, wall: datetime) -> Window | None:
    limit, remaining, reset = (
        header(headers, f"anthropic-ratelimit-{kind}-{part}".encode())
        for part in ("limit", "remaining", "reset")
    )
    if not _is_count(remaining) or (limit and not _is_count(limit)):
        return None
    try:
        at = datetime.fromisoformat(reset)
    except ValueError:
        return None
    reset_s = _ahead((at - wall).total_seconds()) if at.tzinfo else None
    if reset_s is None or (limit and not int(remaining) <= int(limit) > 0):
        return None
    most = int(limit) if limit else None
    return Window(limit=most, remaining=int(remaining), reset_s=reset_s)


def _is_count(words: str) -> bool:
    return words.isascii() and words.isdigit() and len(words) <= 15


def _number(words: str) -> float:
    try:
        return float(words)
    except ValueError:
        return math.nan


def _ahead(seconds: float) -> float | None:
    """The span, where it lies ahead and within reason."""
    return seconds if 0 < seconds <= _FARTHEST_S else None


class Limits:
    """What is left, by the reports so far and what was sent since.

    The share of a request's estimated tokens that counts is learned, as most of a
    conversation is read from the cache and does not count.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._shares: dict[tuple[str, str], float] = {}
        self._in_air: dict[int, tuple[str, int]] = {}  # sent, not answered yet

    def earliest(self, model: str, tokens: int, now: float) -> float:
        """When a request may go: at most ``now``, or later; inf is after an answer."""
        at = now
        for kind in _KINDS:
            if bucket := self._buckets.get((model, kind)):
                cost = self._cost(model, kind, tokens)
                in_air = self._cost_in_air(model, kind)
                at = max(at, bucket.earliest(cost, now, in_air))
        return at

    def sent(self, seq: int, model: str, tokens: int) -> None:
        """A request goes out; ``seq`` grows from each to the next."""
        self._in_air[seq] = (model, tokens)
        for kind in _KINDS:
            if bucket := self._buckets.get((model, kind)):
                bucket.spent += self._cost(model, kind, tokens)

    def answered(self, seq: int, report: Report, now: float) -> None:
        """Its answer came, with this report."""
        sent = self._in_air.pop(seq, None)
        if sent is None:
            return
        model, tokens = sent
        for kind, window in report.windows.items():
            key = (model, kind)
            known = self._buckets.get(key)
            if known is None or seq > known.seq:
                self._learn(key, known, window, tokens, now)
            elif window.remaining >= known.left(now):
                continue  # it is older than what is known
            in_air = self._cost_in_air(model, kind)
            self._buckets[key] = _Bucket(window, seq, now, in_air)

    def left_out(self, seq: int) -> None:
        """No answer is to be expected; it may have counted all the same."""
        self._in_air.pop(seq, None)

    def _cost(self, model: str, kind: str, tokens: int) -> float:
        if kind not in _TOKENS:
            return 1.0
        return max(1.0, tokens * self._shares.get((model, kind), 1.0))

    def _cost_in_air(self, model: str, kind: str) -> float:
        return sum(
            self._cost(model, kind, tokens)
            for other, tokens in self._in_air.values()
            if other == model
        )

    def _learn(
        self,
        key: tuple[str, str],
        known: "_Bucket | None",
        window: Window,
        tokens: int,
        now: float,
    ) -> None:
        if known is None or key[1] not in _TOKENS or not tokens:
            return
        used = known.unspent(now) - window.remaining
        share = min(1.0, max(_LEAST_SHARE, used / tokens))
        before = self._shares.get(key, 1.0)
        self._shares[key] = before + _LEARNING * (share - before)


class _Bucket:
    """One limit of one model, since the last report."""

    def __init__(self, window: Window, seq: int, now: float, in_air: float) -> None:
        self.seq = seq
        """The request whose answer reported it."""
        self.spent = in_air
        """By what was sent since, and what may not have been counted by then."""
        self._limit = math.inf if window.limit is None else float(window.limit)
        self._remaining = float(window.remaining)
        used = 0.0 if window.limit is None else self._limit - self._remaining
        self._per_s = used / window.reset_s
        self._at = now
        self._reset_at = now + window.reset_s

    def unspent(self, now: float) -> float:
        """What would be left had nothing been sent since the report."""
        if now >= self._reset_at:
            return self._limit
        back = self._per_s * (now - self._at)
        return min(self._limit, self._remaining + back)

    def left(self, now: float) -> float:
        return self.unspent(now) - self.spent

    def earliest(self, cost: float, now: float, in_air: float) -> float:
        # A request larger than the limit itself goes when the limit is untouched.
        need = min(cost, self._limit)
        if now >= self._reset_at:
            is_enough = self._limit - in_air + _TOLERANCE >= need
            return now if is_enough or not in_air else math.inf
        lacking = need - self.left(now)
        if lacking <= _TOLERANCE:
            return now
        if not self._per_s:
            return self._reset_at
        return min(self._reset_at, now + lacking / self._per_s)
