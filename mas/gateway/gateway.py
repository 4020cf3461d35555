"""The gateway: one Messages API on loopback between all agents and Claude.

A request passes, in this order: its token, the budget, the turn that all take, and the
upstream. Its answer passes the meter, which tells the ledger what it used.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

import anyio

from mas.gateway.access import DeniedError, Tokens, answered_headers, check_place
from mas.gateway.client import Client, ClientGoneError, Receive, Send
from mas.gateway.exchange import (
    CutError,
    Request,
    Response,
    Upstream,
    UpstreamError,
)
from mas.gateway.pacing.admission import Admission, Turn
from mas.gateway.pacing.backoff import Verdict
from mas.gateway.pacing.wave import FirstWave, Place
from mas.gateway.spending.account import Account, Book, model_of
from mas.gateway.spending.budget import Budget

_PARKED_S = 90.0
"""A request that may not go out waits so long for its agent to be stopped."""
_REFUSAL_S = 1.0
_REFUSAL_BYTES = 64 * 1024
"""What of a refusal is read before the request waits again."""


class Listener(Protocol):
    """Who hears of what goes on; its methods return at once."""

    def suspend(self, reason: str, hint: str) -> None:
        """No request goes out any more, for this reason; called once."""

    def denied(self, text: str) -> None:
        """A request that was not let through."""


class Gateway:
    """Answers HTTP requests, as an ASGI application, by asking ``upstream``."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        admission: Admission,
        budget: Budget,
        book: Book,
        wave: FirstWave,
        listener: Listener,
    ) -> None:
        self.tokens = Tokens()
        self._upstream = upstream
        self._admission = admission
        self._budget = budget
        self._book = book
        self._wave = wave
        self._listener = listener
        self._is_suspended = False
        self._under_way = 0
        self._drained = anyio.Event()

    async def __call__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send
    ) -> None:
        client = Client(scope, receive, send)
        try:
            request = await self._received(client)
        except DeniedError as denied:
            await self._refuse(client, denied)
            return
        except ClientGoneError:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.cancel_when_gone, tasks.cancel_scope)
            await self._serve(request, client)
            tasks.cancel_scope.cancel()

    def suspend(self, reason: str, hint: str) -> None:
        """Send nothing from now on; what comes is kept waiting for its agent's end."""
        if self._is_suspended:
            return
        self._is_suspended = True
        if not self._under_way:
            self._drained.set()
        self._listener.suspend(reason, hint)

    async def drained(self) -> None:
        """Return when no answer is under way any more, after ``suspend``."""
        await self._drained.wait()

    async def _received(self, client: Client) -> Request:
        check_place(client.target, client.headers)
        caller = self.tokens.caller(client.headers)
        return Request(
            caller=caller,
            method=client.method,
            target=client.target,
            headers=client.headers,
            body=await client.body(),
        )

    async def _serve(self, request: Request, client: Client) -> None:
        async with (
            self._wave.place(request) as place,
            self._admission.turn(request, model=model_of(request.body)) as turn,
        ):
            while self._may_go():
                # Its attempt may have ended while it waited.
                if denied := self._denial(request):
                    await self._refuse(client, denied)
                    return
                if await self._ask(request, turn, client, place):
                    return
                await turn.again()
        await self._park(client)

    def _may_go(self) -> bool:
        """Whether the budget lets one more request out."""
        if not self._is_suspended:
            refusal = self._budget.refusal(_local_time())
            if refusal is not None:
                self.suspend(refusal.reason, refusal.hint)
        return not self._is_suspended

    async def _refuse(self, client: Client, denied: DeniedError) -> None:
        self._listener.denied(f"{client.place}: {denied.reason}")
        await client.refuse(denied.status, denied.reason)

    def _denial(self, request: Request) -> DeniedError | None:
        try:
            self.tokens.caller(request.headers)
        except DeniedError as denied:
            return denied
        return None

    async def _park(self, client: Client) -> None:
        """Say nothing, so that the session goes on later as if it had never asked."""
        with anyio.move_on_after(_PARKED_S):
            await anyio.sleep_forever()
        # A 403 ends the turn after this one request; other errors are tried again.
        await client.refuse(403, "the task is suspended")

    async def _ask(
        self, request: Request, turn: Turn, client: Client, place: Place
    ) -> bool:
        """Send it once; whether the client has its answer."""
        account = self._book.open(request, held_s=turn.held_s)
        self._under_way += 1
        try:
            async with self._upstream.open(request) as response:
                account.answered(response)
                verdict = turn.answered(response.status, response.headers)
                if verdict is Verdict.WAIT_ON:
                    await _read_refusal(response, account)
                    return False
                place.began()
                await client.begin(response.status, answered_headers(response.headers))
                async for chunk in response.chunks():
                    account.read(chunk)
                    await client.send(chunk)
                account.complete()
                await client.end()
        except UpstreamError as error:
            account.fail(error.message)
            if not client.has_begun:  # else the server cuts the client's connection too
                if turn.failed(error) is Verdict.WAIT_ON:
                    return False
                await client.refuse(502, error.message)
        finally:
            account.close()
            self._under_way -= 1
            if self._is_suspended and not self._under_way:
                self._drained.set()
        return True


async def _read_refusal(response: Response, account: Account) -> None:
    """Hear why, for the ledger; the connection can then be used again."""
    size = 0
    with anyio.move_on_after(_REFUSAL_S), suppress(CutError):
        async for chunk in response.chunks():
            account.read(chunk)
            size += len(chunk)
            if size > _REFUSAL_BYTES:
                return


def _local_time() -> datetime:
    return datetime.now().astimezone()
