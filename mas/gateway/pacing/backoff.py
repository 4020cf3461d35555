"""When a request may be sent to Claude, for all agents together. Pure.

One machine for everybody: what one request learns of a limit or an outage, all heed.
``now`` is monotonic seconds, ``wall`` a time with its zone.
"""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from mas.core.policy import retry_delay_s
from mas.gateway.exchange import Headers
from mas.gateway.pacing.breaker import FAILURES, Breaker
from mas.gateway.pacing.limits import Limits, Report, read
from mas.gateway.pacing.pace import Concurrency, Pace

RATE_LIMITED = 429
OVERLOADED = 529

_JITTER = 0.1
"""At most this share is added to a delay that Claude did not name."""
_SHOWN_S = 1.0
"""A shorter wait is nobody's concern."""


class Verdict(StrEnum):
    """What becomes of an answer."""

    PASS_ON = "pass_on"
    """It is the client's."""
    WAIT_ON = "wait_on"
    """It stays here; the request waits and is sent again."""


class WaitKind(StrEnum):
    RATE_LIMIT = "rate_limit"
    OVERLOAD = "overload"
    OUTAGE = "outage"
    PACE = "pace"
    """Sending goes on, slowly."""


class Wait(Struct, frozen=True, kw_only=True):
    """What requests wait for. Equal as long as it is the same wait."""

    kind: WaitKind
    until_s: float
    """Monotonic; when something may be sent again. Past: it is being tried."""
    reason: str = ""
    is_named: bool = True
    """Whether Claude said so; else it is our own guess of when to try."""

    def left_s(self, now: float) -> float:
        return max(0.0, self.until_s - now)

    @property
    def words(self) -> str:
        """For people: what is waited for, without the time."""
        match self.kind:
            case WaitKind.RATE_LIMIT:
                return "the rate limit"
            case WaitKind.OVERLOAD:
                return "Claude, which is overloaded"
            case WaitKind.OUTAGE:
                return f"Claude, which cannot be reached ({self.reason})"
            case WaitKind.PACE:
                return "a turn: requests go out slowly after the rate limit"


_SUBJECTS = {
    WaitKind.RATE_LIMIT: "the rate limit",
    WaitKind.OVERLOAD: "the overload of Claude",
    WaitKind.OUTAGE: "the outage of Claude",
    WaitKind.PACE: "the rate limit",
}


class Suspend(Struct, frozen=True, kw_only=True):
    """Waiting on makes no sense: the task is suspended."""

    reason: str
    until_s: float | None
    """Monotonic; when going on makes sense. None: nobody knows."""
    until: datetime | None
    """The same for people."""


class Claim:
    """One request on its way through the machine, which alone changes it."""

    def __init__(self, model: str, tokens: int) -> None:
        self.model = model
        self.tokens = tokens
        self.seq: int | None = None
        """Of its last sending; None while it waits."""
        self.failed_probes = 0
        """How often it was sent into an outage: others first, next time."""


class Backoff:
    """Says when a request may go, and what an answer means for all.

    A request enters, may be sent when ``earliest`` has come, is answered or fails, and
    leaves; with WAIT_ON it waits again. It is in flight until it leaves or waits.
    ``longest_wait_s`` is how long requests are held before the task is suspended.
    ``jitter`` gives 0 to 1, for delays that Claude did not name.
    """

    def __init__(
        self,
        *,
        longest_wait_s: float,
        most_in_flight: int = 32,
        jitter: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._longest_wait_s = longest_wait_s
        self._jitter = jitter
        self._concurrency = Concurrency(most_in_flight)
        self._pace = Pace()
        self._breaker = Breaker()
        self._limits = Limits()
        # Two sets of claims, kept as dicts for their order.
        self._pending: dict[Claim, None] = {}  # entered, and no answer is theirs yet
        self._in_flight: dict[Claim, None] = {}
        self._last_seq = 0
        self._round_end = 0
        """Answers to requests up to here say nothing new: they went out before it."""
        self._refusals = 0
        """Rounds that were refused since a success."""
        self._refused_as = WaitKind.RATE_LIMIT
        self._blocked_until = -math.inf
        self._is_block_named = False
        self._held_since: float | None = None
        self._trouble_since: float | None = None

    @property
    def most_in_flight(self) -> int:
        """Requests that may be in flight at the moment."""
        return self._concurrency.limit

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def is_down(self) -> bool:
        """Whether Claude is taken to be down: only probes are sent."""
        return self._breaker.is_open

    def rate(self, now: float) -> float | None:
        """Requests a second that are sent at most; None is no limit."""
        return self._pace.rate(now)

    def enter(self, now: float, *, model: str = "", tokens: int = 0) -> Claim:
        """A request came, with about so many input tokens."""
        claim = Claim(model, tokens)
        if not self._pending:
            self._held_since = now
        self._pending[claim] = None
        return claim

    def earliest(self, claim: Claim, now: float) -> float:
        """When it may be sent: now, later, or inf: after an answer or a leave."""
        if len(self._in_flight) >= self._concurrency.limit or self._awaits_trial():
            return math.inf
        return max(
            now,
            self._blocked_until,
            self._breaker.earliest(now),
            self._limits.earliest(claim.model, claim.tokens, now),
            self._pace.earliest(now),
        )

    def sent(self, claim: Claim, now: float) -> None:
        """It goes out. ``earliest`` must have come."""
        self._last_seq += 1
        claim.seq = self._last_seq
        self._in_flight[claim] = None
        self._breaker.sent(claim.seq)
        self._limits.sent(claim.seq, claim.model, claim.tokens)
        self._pace.sent(claim.seq, now)

    def answered(
        self, claim: Claim, status: int, headers: Headers, now: float, wall: datetime
    ) -> Verdict:
        """The answer's headers are there; a success is one by them alone."""
        seq = _sent(claim)
        report = read(headers, wall)
        self._limits.answered(seq, report, now)
        if status in FAILURES:
            after_s = report.retry_after_s or 0.0
            return self._failed(claim, f"HTTP {status}", now, after_s)
        self._breaker.answered()
        if status in (RATE_LIMITED, OVERLOADED):
            self._refused(seq, status, report, now)
            return self._wait_again(claim)
        self._pending.pop(claim, None)
        self._held_since = now
        if status < 400:
            self._succeeded(seq)
        return Verdict.PASS_ON

    def failed(self, claim: Claim, reason: str, now: float) -> Verdict:
        """Nobody answered, for a reason of some words: ``connection refused``."""
        self._limits.left_out(_sent(claim))
        return self._failed(claim, reason, now, 0.0)

    def leave(self, claim: Claim) -> None:
        """It is over, or its client has gone; a second time changes nothing."""
        self._pending.pop(claim, None)
        self._in_flight.pop(claim, None)
        if claim.seq is not None:
            self._limits.left_out(claim.seq)
            self._breaker.left_out(claim.seq)
            claim.seq = None

    def waiting(self, now: float) -> Wait | None:
        """What those who wait are waiting for, where it is worth a word."""
        claims = [claim for claim in self._pending if claim.seq is None]
        breaker = self._breaker
        if breaker.is_open and self._pending:
            return Wait(
                kind=WaitKind.OUTAGE,
                until_s=breaker.probe_at,
                reason=breaker.reason,
                is_named=breaker.is_probe_named,
            )
        if not claims:
            return None
        if now < self._blocked_until:
            return Wait(
                kind=self._refused_as,
                until_s=self._blocked_until,
                is_named=self._is_block_named,
            )
        at = min(self._limits.earliest(each.model, each.tokens, now) for each in claims)
        if now + _SHOWN_S < at < math.inf:
            return Wait(kind=WaitKind.RATE_LIMIT, until_s=round(at, 1))
        at = self._pace.earliest(now)
        if now + _SHOWN_S < at:
            return Wait(kind=WaitKind.PACE, until_s=round(at, 1))
        return None

    def suspension(self, now: float, wall: datetime) -> Suspend | None:
        """Whether requests wait for what is too far ahead, or have for too long."""
        wait = self.waiting(now)
        left_s = wait.left_s(now) if wait is not None and wait.is_named else 0.0
        if wait is not None and left_s > self._longest_wait_s:
            until = wall + timedelta(seconds=left_s)
            form = "%H:%M" if until.date() == wall.date() else "%Y-%m-%d %H:%M"
            what = f"{_SUBJECTS[wait.kind]} lasts until {until:{form}}"
            reason = f"{what} ({_span(left_s)})"
            return Suspend(reason=reason, until_s=wait.until_s, until=until)
        due = self.suspension_due()
        if due is None or now < due:
            return None
        span = _span(self._longest_wait_s)
        if self._breaker.is_open:
            reason = f"Claude could not be reached for {span} ({self._breaker.reason})"
        elif self._refused_as is WaitKind.OVERLOAD:
            reason = f"Claude has been overloaded for {span}"
        else:
            reason = f"the rate limit has let nothing through for {span}"
        return Suspend(reason=reason, until_s=None, until=None)

    def suspension_due(self) -> float | None:
        """When requests that wait will have waited too long; None: not in sight."""
        if not self._pending or self._trouble_since is None:
            return None
        assert self._held_since is not None
        return max(self._held_since, self._trouble_since) + self._longest_wait_s

    def _awaits_trial(self) -> bool:
        """Whether one request tries what refused all before it."""
        return self._refusals > 1 and any(
            claim.seq is not None and claim.seq > self._round_end
            for claim in self._in_flight
            if claim in self._pending
        )

    def _succeeded(self, seq: int) -> None:
        if seq > self._round_end:
            self._refusals = 0
            self._concurrency.succeeded()
            self._pace.succeeded(seq)
        if not self._refusals:
            self._trouble_since = None

    def _refused(self, seq: int, status: int, report: Report, now: float) -> None:
        starts_round = seq > self._round_end
        if starts_round:
            self._concurrency.refused(len(self._in_flight))
            self._round_end = self._last_seq
            self._refusals += 1
            if self._trouble_since is None:
                self._trouble_since = now
        self._pace.refused(seq, now, starts_round=starts_round)
        overloaded = status == OVERLOADED
        kind = WaitKind.OVERLOAD if overloaded else WaitKind.RATE_LIMIT
        named_s = report.retry_after_s or report.rejected_s
        if named_s is None:
            if not starts_round:
                return
            delay_s = retry_delay_s(self._refusals) * (1 + _JITTER * self._jitter())
            self._block(now + delay_s, kind, is_named=False)
        else:
            self._block(now + named_s, kind, is_named=True)

    def _block(self, until_s: float, kind: WaitKind, *, is_named: bool) -> None:
        """Nobody sends before ``until_s``, nor before what was known already."""
        if until_s > self._blocked_until:
            self._blocked_until = until_s
            self._is_block_named = is_named
            self._refused_as = kind

    def _failed(
        self, claim: Claim, reason: str, now: float, at_least_s: float
    ) -> Verdict:
        seq = _sent(claim)
        if self._breaker.failed(seq, reason, now, at_least_s=at_least_s):
            claim.failed_probes += 1
            return self._wait_again(claim)
        self._pending.pop(claim, None)
        if self._breaker.is_open and self._trouble_since is None:
            self._trouble_since = now
        return Verdict.PASS_ON

    def _wait_again(self, claim: Claim) -> Verdict:
        self._in_flight.pop(claim, None)
        claim.seq = None
        return Verdict.WAIT_ON


def _sent(claim: Claim) -> int:
    if claim.seq is None:
        raise RuntimeError("an answer to a request that was not sent")
    return claim.seq


def _span(seconds: float) -> str:
    """A span in the two units that matter: ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    parts = [(days, "d"), (hours, "h"), (minutes % 60, "min")]
    return " ".join([f"{n} {unit}" for n, unit in parts if n][:2])
