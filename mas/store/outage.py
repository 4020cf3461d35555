"""Waits out PostgreSQL's outages: for how long, at what pace, and who hears of it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from mas.errors import MasError, OutageError
from mas.store.sql import ConnectionLostError, UnreachableError

_T = TypeVar("_T")
_Lost = ConnectionLostError | UnreachableError
_LOST = (ConnectionLostError, UnreachableError)

OnOutage = Callable[[str | None], None]
Revive = Callable[[], Awaitable[None]]

_SHORTEST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_TOLD_AFTER_S = 0.3
"""A shorter outage is nobody's concern."""
_SLOW_S = 3.0
"""An answer that takes longer is told of, as an outage is."""
_LAST_TRY_S = 3.0
"""For the one try that is made when the time is up, unless that was limited."""


def retry_pauses() -> Iterator[float]:
    """Seconds between tries: a server that restarts announces nothing."""
    for doublings in itertools.count():
        yield min(_SHORTEST_PAUSE_S * 2 ** min(doublings, 10), _LONGEST_PAUSE_S)


class Outage:
    """What the store knows of PostgreSQL being away; one operation at a time uses it.

    An outage begins with a lost connection and ends when an operation is answered. It
    is waited for until its deadline, over all the operations that meet it.
    """

    def __init__(
        self,
        where: str,
        timeout_s: float,
        *,
        on_outage: OnOutage | None = None,
        revive: Revive | None = None,
    ) -> None:
        self._where = where
        self._timeout_s = timeout_s
        self._is_limited = False
        self._on_outage = on_outage
        self._revive = revive
        self._began: float | None = None
        self._deadline = 0.0
        self._pauses = retry_pauses()
        self._reason = ""
        self._is_told = False
        self._scope: anyio.CancelScope | None = None
        self._is_busy = False
        self._timers: list[asyncio.TimerHandle] = []

    async def survive(
        self,
        operation: Callable[[], Awaitable[_T]],
        reconnect: Callable[[], Awaitable[None]],
    ) -> _T:
        """Do it, again after each reconnect; OutageError when that takes too long."""
        with self._busy():
            is_again = False
            while True:
                try:
                    return await self._answered(operation)
                except _LOST as error:
                    self._begin(error)
                    # However late it is, each operation gets one more connection;
                    # under a limit it is too late.
                    is_late = anyio.current_time() >= self._deadline
                    if is_late and (is_again or self._is_limited):
                        raise self._over() from error
                    await self._wait_out(reconnect, is_again=is_again)
                    is_again = True

    def limit(self, timeout_s: float, give_up: Callable[[], None]) -> None:
        """Wait no longer than this, from now on, for what is waited for now too.

        With the deadline it is over: there is no last try after it.
        ``give_up`` ends the connection over which an operation still has no answer.
        """
        self._timeout_s = min(self._timeout_s, timeout_s)
        self._is_limited = True
        if self._began is not None:
            self._deadline = min(self._deadline, anyio.current_time() + timeout_s)
            if self._scope is not None:
                self._scope.deadline = self._deadline
        if self._is_busy:
            self._call_in(timeout_s, give_up)

    async def _answered(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        try:
            answer = await operation()
        except _LOST:
            raise
        except MasError:  # a refusal is an answer
            self._end()
            raise
        self._end()
        return answer

    def _begin(self, lost: _Lost) -> None:
        now = anyio.current_time()
        if self._began is None:
            self._began, self._deadline = now, now + self._timeout_s
            self._pauses = retry_pauses()
        self._reason = lost.reason
        self._call_in(self._began + _TOLD_AFTER_S - now, self._tell_reason)

    async def _wait_out(
        self, reconnect: Callable[[], Awaitable[None]], *, is_again: bool
    ) -> None:
        latest = self._deadline
        if not self._is_limited:
            latest = max(latest, anyio.current_time() + _LAST_TRY_S)
        with anyio.CancelScope(deadline=latest) as self._scope:
            if is_again:  # it may be the operation that ends the connection
                await anyio.sleep(next(self._pauses))
            while not await self._try(reconnect):
                left_s = self._deadline - anyio.current_time()
                if left_s <= 0:
                    break
                await anyio.sleep(min(next(self._pauses), left_s))
            else:
                return
        raise self._over()

    def _over(self) -> OutageError:
        return OutageError(
            f"the connection to PostgreSQL at {self._where} is lost and did not come "
            f"back within {self._timeout_s:g} s",
            hint="what was finished is kept, mas resume goes on; mas doctor says "
            "whether the server runs",
            evidence=self._reason,
        )

    async def _try(self, reconnect: Callable[[], Awaitable[None]]) -> bool:
        reasons = []
        if self._revive is not None:
            try:
                await self._revive()
            except MasError as error:
                reasons.append(error.message)
        try:
            await reconnect()
        except MasError as error:
            reasons.append(str(getattr(error, "reason", error.message)))
            self._reason = "; ".join(reasons)
            return False
        return True

    def _tell_reason(self) -> None:
        self._tell(f"to come back: {self._reason}")

    def _tell(self, what: str) -> None:
        if not self._is_told and self._on_outage is not None:
            self._is_told = True
            self._on_outage(f"PostgreSQL at {self._where} {what}")

    def _end(self) -> None:
        self._began = None
        if self._is_told and self._on_outage is not None:
            self._is_told = False
            self._on_outage(None)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._is_busy = True
        self._call_in(_SLOW_S, self._tell, "to answer")
        try:
            yield
        finally:
            self._is_busy = False
            self._scope = None
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()

    def _call_in(
        self, delay_s: float, function: Callable[..., None], *arguments: object
    ) -> None:
        """Call it then, unless the operation has ended."""
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(delay_s, function, *arguments))
