"""The gateway's end towards a client: its request, whole, and the answer's way back."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from mas.gateway import sse
from mas.gateway.access import DeniedError
from mas.gateway.exchange import Headers, header

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 2**20
"""Claude itself takes 32 MB; more is a mistake, and would only fill the memory."""

_SHOWN_CHARS = 120


class Client:
    """One request of a client, as ASGI hands it over."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.target: bytes = scope["target"]
        self.headers: Headers = tuple(scope["headers"])
        self.has_begun = False
        """Whether the answer's status is sent: nothing else can be said then."""

    @property
    def place(self) -> str:
        """Method and path, for people."""
        path = self.target.partition(b"?")[0].decode("latin-1")
        return f"{self.method[:_SHOWN_CHARS]} {path[:_SHOWN_CHARS]!r}"

    async def body(self) -> bytes:
        """All that it sends; DeniedError where that is too much."""
        parts: list[bytes] = []
        length = header(self.headers, b"content-length")
        _check_size(int(length or 0))
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            size += len(part)
            _check_size(size)
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    async def cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        """Cancel ``scope`` when the client leaves before its answer is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def begin(self, status: int, headers: Headers) -> None:
        self.has_begun = True
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self._send(start)

    async def send(self, chunk: bytes) -> None:
        await self._send(
            {"type": "http.response.body", "body": chunk, "more_body": True}
        )

    async def end(self) -> None:
        """The answer is complete; without this, the server cuts the connection."""
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, status: int, reason: str) -> None:
        """Answer with an error in Anthropic's form, which is not to be tried again."""
        data = json.dumps(sse.error(status, f"mas: {reason}")).encode()
        headers = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(data)),
            (b"x-should-retry", b"true" if status >= 500 else b"false"),
        )
        await self.begin(status, headers)
        await self.send(data)
        await self.end()


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        most = MAX_BODY_BYTES // 2**20
        raise DeniedError(413, f"a request of more than {most} MiB does not pass")


class ClientGoneError(Exception):
    """It left before it had sent its request."""
