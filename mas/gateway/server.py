"""A web server on loopback, told from outside when to end."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_CLOSING_S = 2
_KEEP_ALIVE_S = 120
"""A CLI that runs a long command comes back on the same connection."""

_LOGGER = logging.getLogger("mas.gateway.server")
# A cut stream is a response that is not completed, which uvicorn reports as an error.
_LOGGER.addFilter(
    lambda record: not str(record.msg).startswith("ASGI callable returned without")
)


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
                timeout_graceful_shutdown=_CLOSING_S,
                h11_max_incomplete_event_size=256 * 1024,
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
        """Serve until ``stop``; when this returns, no connection is left."""
        with self._listener:
            await self.serve(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(port: int = 0) -> socket.socket:
    """A socket on 127.0.0.1; port 0 is one that is free. OSError where it is taken."""
    return socket.create_server(("127.0.0.1", port), backlog=256)


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, silent about what is done on purpose."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOGGER
        self.access_log = False
