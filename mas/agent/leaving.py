"""How the agent ends: asked to by whomever, once, and over in time whatever happens."""

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import anyio

from mas.agent import processes

SHUTDOWN_GRACE_S = 3.0
"""For an attempt to unwind when the supervisor says so; it waits longer itself."""

ABANDONED_GRACE_S = 2.0
"""The same when the supervisor is gone or a signal came: all is to be over in 5 s."""

STUCK_S = 0.5
"""How much later the process ends by force: the event loop may be stuck."""


class Leaving:
    """The end of the process. ``ask`` may be called from any thread, and by signals."""

    def __init__(self, silence: Callable[[], object]) -> None:
        self._silence = silence
        self._once = threading.Lock()
        self._code = 0
        self._line = ""
        self._loop: AbstractEventLoop | None = None
        self._asked: anyio.Event | None = None
        self.grace_s = 0.0

    def attach(self, loop: AbstractEventLoop) -> None:
        """From now on the loop is asked first, and unwinds; called in the loop."""
        self._asked = anyio.Event()
        self._loop = loop

    async def asked(self) -> None:
        """Wait until the process is to end."""
        assert self._asked is not None
        await self._asked.wait()

    def ask(self, code: int, line: str = "", *, grace_s: float) -> None:
        """Have the process end with ``code``; only the first to ask is heard.

        Nothing more is sent: the supervisor has said goodbye, or is gone.
        """
        if not self._once.acquire(blocking=False):
            return
        self._code, self._line, self.grace_s = code, line, grace_s
        self._silence()
        if self._loop is None or self._asked is None:
            self.now()
        force = threading.Timer(grace_s + STUCK_S, self.now)
        force.daemon = True
        force.start()
        with suppress(RuntimeError):  # the loop is closed: the process ends already
            self._loop.call_soon_threadsafe(self._asked.set)

    def now(self) -> NoReturn:
        """Kill everything below the process, and end as it was asked to."""
        processes.end_process(self._code, self._line)
