"""Who may send to Claude next, and waiting until one may: the shell of ``backoff``."""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import anyio

from mas.gateway.exchange import Caller, Headers, Request, UpstreamError
from mas.gateway.pacing.backoff import Backoff, Claim, Suspend, Verdict, Wait
from mas.gateway.sse import CHARACTERS_PER_TOKEN

_AGEING_S = 20.0
"""Who has waited so long goes before those of the next higher priority."""
_HELD_S = 0.2
"""A request that waits longer is held: its attempt's deadlines stand still."""


def _local_time() -> datetime:
    return datetime.now().astimezone()


def _ignore(_: Suspend) -> None:
    pass


class Turn:
    """A request's turn: it has waited until it may be sent."""

    def __init__(self, admission: "Admission", caller: Caller, claim: Claim) -> None:
        self._admission = admission
        self.caller = caller
        self.claim = claim
        self.held_s = 0.0
        """From its arrival until it was sent last."""
        self.arrived_at = admission.clock()
        self.may_go = anyio.Event()
        self.is_in_flight = False
        self.is_held = False
        self.held_from = self.arrived_at + _HELD_S
        """When it counts as held, if it waits then."""

    def answered(self, status: int, headers: Headers) -> Verdict:
        """The answer's headers are there. WAIT_ON: drop it, await ``again``, resend."""
        return self._admission.answered(self, status, headers)

    def failed(self, error: UpstreamError) -> Verdict:
        """No answer came. WAIT_ON: await ``again`` and send it once more."""
        return self._admission.failed(self, error)

    async def again(self) -> None:
        """Wait until it may be sent again."""
        await self._admission.wait(self)


class Admission:
    """Lets requests go when ``backoff`` allows it, in a fair order.

    Higher priority first, a step more for each 20 s of waiting, then the attempt with
    the fewest requests in flight, then who came first.

    ``on_wait`` tells what is waited for, whenever that changes. ``on_held`` tells when
    requests of an attempt begin to be held (they wait longer than a moment) and when
    none is any more. ``on_suspend`` is told once that waiting on makes no sense; from
    then on nobody is let go. ``run`` must run in a task of its owner's.
    """

    def __init__(
        self,
        backoff: Backoff,
        *,
        on_wait: Callable[[Wait | None], None],
        on_held: Callable[[Caller, bool], None],
        on_suspend: Callable[[Suspend], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = _local_time,
    ) -> None:
        self._backoff = backoff
        self._on_wait = on_wait
        self._on_held = on_held
        self._on_suspend = on_suspend
        self.clock = clock
        self._wall_clock = wall_clock
        self._queue: dict[Turn, None] = {}  # in the order of arrival
        self._in_flight: dict[Caller, int] = {}
        self._held: dict[Caller, int] = {}
        self._wait: Wait | None = None
        self._is_stopped = False
        self._changed = anyio.Event()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._queue)

    async def run(self) -> None:
        """Let requests go as time passes and answers come; until cancelled."""
        while True:
            self._changed = anyio.Event()
            wake_at = self._look()
            wait_s = wake_at - self.clock()
            with anyio.move_on_after(max(0.0, wait_s) if wait_s < math.inf else None):
                await self._changed.wait()

    def stop(self) -> None:
        """Let nobody go any more: who waits does so until it is cancelled."""
        self._is_stopped = True
        self._changed.set()

    @asynccontextmanager
    async def turn(self, request: Request, *, model: str = "") -> AsyncIterator[Turn]:
        """Wait until it may be sent; leave when its answer has ended.

        ``model`` is the one that it asks for, as each has limits of its own.
        """
        tokens = len(request.body) // CHARACTERS_PER_TOKEN
        claim = self._backoff.enter(self.clock(), model=model, tokens=tokens)
        turn = Turn(self, request.caller, claim)
        try:
            await self.wait(turn)
            yield turn
        finally:
            self._land(turn)
            self._backoff.leave(claim)
            self._changed.set()

    async def wait(self, turn: Turn) -> None:
        """Queue until ``turn`` may be sent; leaves nothing behind when cancelled."""
        self._land(turn)
        now = self.clock()
        turn.may_go = anyio.Event()
        is_free = not self._queue and not self._is_stopped
        if is_free and self._backoff.earliest(turn.claim, now) <= now:
            self._let_go(turn, now)
            return
        self._queue[turn] = None
        self._changed.set()
        try:
            await turn.may_go.wait()
        finally:
            self._unqueue(turn)

    def answered(self, turn: Turn, status: int, headers: Headers) -> Verdict:
        now = self.clock()
        verdict = self._backoff.answered(
            turn.claim, status, headers, now, self._wall_clock()
        )
        return self._judged(turn, verdict)

    def failed(self, turn: Turn, error: UpstreamError) -> Verdict:
        verdict = self._backoff.failed(turn.claim, error.message, self.clock())
        return self._judged(turn, verdict)

    def _judged(self, turn: Turn, verdict: Verdict) -> Verdict:
        if verdict is Verdict.WAIT_ON:
            self._land(turn)
        self._changed.set()
        return verdict

    def _look(self) -> float:
        """Do what is due now; when the next is due, as far as time alone brings it."""
        now = self.clock()
        return min(self._let_go_all(now), self._hold(now), self._tell(now))

    def _let_go_all(self, now: float) -> float:
        """Let go who may; when the next one may."""
        next_at = 0.0 if self._queue and not self._is_stopped else math.inf
        while next_at <= now:
            next_at = self._let_go_next(now)
        return next_at

    def _let_go_next(self, now: float) -> float:
        """Let go the next one: ``now``. Where none may go: when one may."""
        # A small request must not overtake one that waits for enough of its model's
        # tokens, or a large one never goes.
        blocked: dict[str, float] = {}
        for turn in sorted(self._queue, key=lambda turn: self._rank(turn, now)):
            model = turn.claim.model
            if model in blocked:
                continue
            at = self._backoff.earliest(turn.claim, now)
            if at <= now:
                self._let_go(turn, now)
                return now
            blocked[model] = at
        return min(blocked.values(), default=math.inf)

    def _rank(self, turn: Turn, now: float) -> tuple[int, int, int]:
        # A request that itself brings the server down must not be every probe.
        probes = turn.claim.failed_probes if self._backoff.is_down else 0
        aged = turn.caller.priority + int((now - turn.arrived_at) / _AGEING_S)
        return (probes, -aged, self._in_flight.get(turn.caller, 0))

    def _let_go(self, turn: Turn, now: float) -> None:
        self._backoff.sent(turn.claim, now)
        turn.held_s = now - turn.arrived_at
        turn.is_in_flight = True
        self._in_flight[turn.caller] = self._in_flight.get(turn.caller, 0) + 1
        self._unqueue(turn)
        turn.may_go.set()

    def _land(self, turn: Turn) -> None:
        if turn.is_in_flight:
            turn.is_in_flight = False
            _count_down(self._in_flight, turn.caller)

    def _unqueue(self, turn: Turn) -> None:
        self._queue.pop(turn, None)
        if turn.is_held:
            turn.is_held = False
            if not _count_down(self._held, turn.caller):
                self._on_held(turn.caller, False)

    def _hold(self, now: float) -> float:
        """Tell whose requests wait for long; when the next one's does."""
        next_at = math.inf
        for turn in self._queue:
            if turn.is_held:
                continue
            if turn.held_from > now:
                next_at = min(next_at, turn.held_from)
                continue
            turn.is_held = True
            self._held[turn.caller] = self._held.get(turn.caller, 0) + 1
            if self._held[turn.caller] == 1:
                self._on_held(turn.caller, True)
        return next_at

    def _tell(self, now: float) -> float:
        """Tell what is waited for, and when it is too long; when to look again."""
        wait = self._backoff.waiting(now)
        if wait != self._wait:
            self._wait = wait
            self._on_wait(wait)
        if self._is_stopped:
            return math.inf
        suspend = self._backoff.suspension(now, self._wall_clock())
        if suspend is not None:
            self._is_stopped = True
            self._on_suspend(suspend)
            return math.inf
        due = self._backoff.suspension_due()
        ends = [due, wait.until_s if wait else None]
        return min((at for at in ends if at is not None and at > now), default=math.inf)


def _count_down(counts: dict[Caller, int], caller: Caller) -> int:
    """Take one off; what is left."""
    left = counts[caller] - 1
    if left:
        counts[caller] = left
    else:
        del counts[caller]
    return left
