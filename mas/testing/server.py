"""Scripted Claude as a server on loopback, in a thread of its own."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mas.gateway.server import listen
from mas.testing.api import MessagesApi
from mas.testing.request import Request
from mas.testing.script import Conversation, Script

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0


class ScriptedClaude:
    """A Messages API on 127.0.0.1 that answers from a script while it is entered.

    It runs in a thread of its own, so ``with`` suits synchronous and async code. Give
    ``url`` to a client as its base URL. ``require_key``: another key is answered with
    401. ``latency_s`` and ``tokens_per_second`` pace every turn that says nothing else.
    """

    def __init__(
        self,
        script: Script | Sequence[Conversation],
        *,
        require_key: str | None = None,
        latency_s: float = 0.0,
        tokens_per_second: float | None = None,
        port: int = 0,
    ) -> None:
        self._changed = threading.Condition()
        self._api = MessagesApi(
            script if isinstance(script, Script) else Script(script),
            require_key=require_key,
            latency_s=latency_s,
            tokens_per_second=tokens_per_second,
            on_change=self._notify,
        )
        self._port = port
        self._key = require_key or "sk-ant-scripted"
        self._url = ""
        self._server: _Server

    @property
    def url(self) -> str:
        """Where it listens, for ANTHROPIC_BASE_URL; empty before it is entered."""
        return self._url

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the Claude CLI and the ``anthropic`` client here."""
        return {
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self._key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order they came."""
        return self._api.requests

    @property
    def errors(self) -> list[str]:
        """Requests that the script did not foresee, and failures of its functions."""
        return self._api.errors

    def wait_until(
        self, condition: Callable[[], object], *, timeout_s: float = 10.0
    ) -> None:
        """Block until the condition holds, asked after each request and answer.

        Raises TimeoutError. In async code, call it in a thread.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise TimeoutError(
                    f"not so after {timeout_s:g} s; requests: {self.requests}, "
                    f"errors: {self.errors}"
                )

    def __enter__(self) -> Self:
        listener = listen(self._port)
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = _Server(self._api, listener)
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        self._url = ""

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Server(uvicorn.Server):
    """uvicorn, told from outside when to end, without its signals and its ticking."""

    def __init__(self, api: MessagesApi, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                timeout_graceful_shutdown=2,
            )
        )
        self._api = api
        self._listener = listener
        self._ready: Future[None] = Future()
        self._finished: Future[None] = Future()
        self._stopping: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        # A daemon: a stop that fails must not hold up the interpreter's exit.
        self._thread = threading.Thread(
            target=self._run, name="scripted-claude", daemon=True
        )

    def start(self) -> None:
        """Return when it listens, or raise why it does not."""
        self._thread.start()
        self._ready.result(_START_TIMEOUT_S)

    def stop(self) -> None:
        """End every answer and the server, or raise what ended it before."""
        if not self._finished.done():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._finished.result(_STOP_TIMEOUT_S)
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with self._listener:
                asyncio.run(self.serve(sockets=[self._listener]))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future = self._finished if self._ready.done() else self._ready
            future.set_exception(error)
        else:
            self._finished.set_result(None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._api.open()
        await super().startup(sockets=sockets)
        self._ready.set_result(None)

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the Date header
        await self._stopping.wait()
        self._api.close()


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, silent about what a script does on purpose."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = _LOGGER
        self.access_log = False


_LOGGER = logging.getLogger("mas.testing")
# A cut stream is a response that is not completed, which uvicorn reports as an error.
_LOGGER.addFilter(
    lambda record: not str(record.msg).startswith("ASGI callable returned without")
)
