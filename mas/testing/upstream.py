"""Scripted Claude as an upstream of the gateway: in process, without a server."""

from collections.abc import (
    AsyncIterator,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from mas.gateway.exchange import (
    CutError,
    Headers,
    Request,
    Response,
    UpstreamError,
)
from mas.testing.api import MessagesApi
from mas.testing.script import Conversation, Script

_PARTS = 64
"""So many parts of an answer are made before they are asked for."""


class ScriptedUpstream:
    """Answers from a script; ``errors`` says what the script had no answer for."""

    is_first_party = False
    is_paid = False

    def __init__(
        self,
        script: Script | Sequence[Conversation],
        *,
        latency_s: float = 0.0,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = MessagesApi(
            script if isinstance(script, Script) else Script(script),
            latency_s=latency_s,
            on_change=on_change,
        )

    @property
    def requests(self) -> Sequence[object]:
        """Every request so far; see ``mas.testing.Request``."""
        return self._api.requests

    @property
    def errors(self) -> list[str]:
        return self._api.errors

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        """See ``Upstream.open``."""
        push, parts = anyio.create_memory_object_stream[Mapping[str, Any]](_PARTS)
        sent: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": request.body, "more_body": False}
        ]

        async def receive() -> MutableMapping[str, Any]:
            if sent:
                return sent.pop()
            await anyio.sleep_forever()
            raise AssertionError("unreachable")

        async def play() -> None:
            with push:
                await self._api(_scope(request), receive, push.send)

        failure: UpstreamError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play)
            try:
                with parts:
                    yield await _Answer.begin(parts)
            except UpstreamError as error:
                failure = error  # bare, not as the group's
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


class _Answer:
    def __init__(
        self, start: Mapping[str, Any], parts: MemoryObjectReceiveStream[Any]
    ) -> None:
        self.status: int = start["status"]
        self.headers: Headers = tuple(start["headers"])
        self._parts = parts

    @classmethod
    async def begin(cls, parts: MemoryObjectReceiveStream[Any]) -> "_Answer":
        try:
            return cls(await parts.receive(), parts)
        except anyio.EndOfStream:
            raise UpstreamError("the script closed the connection") from None

    async def chunks(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            if part["body"]:
                yield part["body"]
            if not part.get("more_body"):
                return
        raise CutError("the script cut the answer")


def _scope(request: Request) -> dict[str, Any]:
    path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "headers": list(request.headers),
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
