"""A web server on loopback, told from outside when to end."""

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mas.gateway import sse

_CLOSING_S = 2
_KEEP_ALIVE_S = 120
"""A CLI that runs a long command comes back on the same connection."""
_MOST_HEAD_BYTES = 256 * 1024

_LOGGER = logging.getLogger("mas.gateway.server")
# A cut stream is a response that is not completed, which uvicorn reports as an error;
# who sends no HTTP is told so itself.
_ON_PURPOSE = ("ASGI callable returned without", "Invalid HTTP request")


def _is_news(record: logging.LogRecord) -> bool:
    is_end = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not is_end and not str(record.msg).startswith(_ON_PURPOSE)


_LOGGER.addFilter(_is_news)


class LoopbackServer(uvicorn.Server):
    """uvicorn without its signals, its ticking and its own headers.

    Run ``serve_until_stopped`` as a task; ``ready`` is set once it listens.
    """

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                interface="asgi3",
                proxy_headers=False,
                ws="none",
                lifespan="off",
                log_config=None,
                date_header=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._listener = listener
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """End it: answers that are under way have two seconds."""
        self._stopping.set()

    async def serve_until_stopped(self) -> None:
        """Serve until ``stop``; when this returns, no connection and no task is left.

        Cancelled, it ends all answers at once.
        """
        with self._listener:
            try:
                await self.serve(sockets=[self._listener])
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end(within_s=0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._end(within_s=_CLOSING_S)

    async def _end(self, *, within_s: float) -> None:
        """End everything; a second time changes nothing."""
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        answers = set(state.tasks)
        if answers:
            _, late = await asyncio.wait(answers, timeout=within_s)
            for answer in late:
                answer.cancel()
            await asyncio.wait(answers)
        await asyncio.sleep(0)  # connections that have nothing more to send close now
        for connection in list(state.connections):
            connection.transport.abort()
        for server in self.servers:
            await server.wait_closed()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int = 0) -> socket.socket:
    """A socket on 127.0.0.1; port 0 is one that is free. OSError where it is taken."""
    # With the protocol named, as asyncio looks at it: without, what is written in two
    # parts waits 40 ms for the first one to be acknowledged.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


class _Connection(h11.Connection):
    """Knows the last request's target as it was written."""

    target = b""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.target = event.target
        return event


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, silent about what is done on purpose.

    The scope's ``target`` is the request's, where ASGI knows path and query alone: the
    question mark of an empty query is lost between them.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOGGER
        self.access_log = False
        self.conn = self._reader = _Connection(h11.SERVER, _MOST_HEAD_BYTES)

    def _should_upgrade(self) -> bool:
        # Asked when the scope is complete and nobody has it yet.
        self.scope["target"] = self._reader.target  # type: ignore[typeddict-unknown-key]
        return False

    def send_400_response(self, msg: str) -> None:
        """Say in Anthropic's form that it was no HTTP, where that can be said."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            data = json.dumps(sse.error(400, f"mas: {msg}")).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(data))),
                ("connection", "close"),
            ]
            start = h11.Response(status_code=400, headers=headers)
            for event in (start, h11.Data(data), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
