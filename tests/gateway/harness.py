"""A gateway in the test's loop, and who asks it.

Leaving ``gateway`` proves that it left no socket and no task behind.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import psutil

from mas.config import Credentials
from mas.gateway.exchange import Caller, Upstream
from mas.gateway.forward import forwarding
from mas.gateway.gateway import Gateway
from mas.gateway.pacing.admission import Admission
from mas.gateway.pacing.backoff import Backoff, Wait
from mas.gateway.pacing.wave import FirstWave
from mas.gateway.server import LoopbackServer, listen
from mas.gateway.spending.account import Book
from mas.gateway.spending.budget import Budget
from mas.gateway.spending.ledger import Ledger
from mas.gateway.spending.prices import Prices
from mas.model import CallState, ModelCall
from tests.gateway.wire import ASKED, Line, Message

KEY = "sk-ant-the-real-key-0123456789"
TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
DEADLINE_S = 15.0

_OURS = ("tests.", "anyio.abc._sockets.SocketListener")
"""Tasks of the tests, which end after the gateway."""


class Scene:
    """A gateway that listens, and all that came of it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.gateway: Gateway
        self.ledger: Ledger
        self.budget: Budget
        self.port = 0
        self.token = ""
        self.by_id: dict[str, ModelCall] = {}
        self.written: list[ModelCall] = []
        self.denials: list[str] = []
        self.suspensions: list[tuple[str, str]] = []
        self.waits: list[Wait | None] = []
        self.held: list[bool] = []
        self.notices: list[str] = []
        self.lines: list[Line] = []
        self._changed = anyio.Event()

    @property
    def calls(self) -> list[ModelCall]:
        """The calls as they stand, in the order in which they were sent."""
        return list(self.by_id.values())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def suspend(self, reason: str, hint: str) -> None:
        """As the gateway's listener."""
        self.suspensions.append((reason, hint))
        self._note()

    def denied(self, text: str) -> None:
        """As the gateway's listener."""
        self.denials.append(text)

    def note_call(self, call: ModelCall) -> None:
        self.by_id[call.id] = call
        self._note()

    def note_wait(self, wait: Wait | None) -> None:
        self.waits.append(wait)
        self._note()

    def note_held(self, _: Caller, is_held: bool) -> None:
        self.held.append(is_held)
        self._note()

    async def write(self, calls: Sequence[ModelCall]) -> float:
        self.written += calls
        return 0.0

    def _note(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds, asked after each change."""
        while not condition():
            await self._changed.wait()

    async def ended(self, count: int = 1) -> list[ModelCall]:
        """Wait until so many calls have ended."""
        await self.until(
            lambda: sum(c.state is not CallState.OPEN for c in self.calls) >= count
        )
        return self.calls

    async def line(self) -> Line:
        """A new connection to the gateway; it is closed at the end at the latest."""
        line = Line(await anyio.connect_tcp("127.0.0.1", self.port))
        self.lines.append(line)
        return line

    async def ask(self, raw: bytes | None = None) -> Message:
        """One request on a connection of its own."""
        line = await self.line()
        try:
            return await line.ask(raw or self.post())
        finally:
            await line.stream.aclose()

    def request(
        self,
        method: bytes = b"GET",
        target: bytes = b"/v1/models",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        token: str | None = None,
    ) -> bytes:
        """A request as it goes over the wire, with token and host."""
        host = b"host: 127.0.0.1:%d" % self.port
        key = b"x-api-key: %b" % (self.token if token is None else token).encode()
        lines = [b"%b %b HTTP/1.1" % (method, target), host, key]
        lines += [b"%b: %b" % pair for pair in headers]
        return b"\r\n".join([*lines, b"", body])

    def post(
        self,
        body: bytes = ASKED,
        headers: Sequence[tuple[bytes, bytes]] = (),
        target: bytes = b"/v1/messages?beta=true",
        token: str | None = None,
    ) -> bytes:
        length = (b"content-length", b"%d" % len(body))
        kind = (b"content-type", b"application/json")
        return self.request(b"POST", target, [kind, *headers, length], body, token)


@asynccontextmanager
async def gateway(
    to: str | Upstream,
    *,
    budget: Budget | None = None,
    longest_wait_s: float = 60.0,
    most_in_flight: int = 64,
    caller: Caller | None = None,
    first_wave_s: float = 0.0,
    deadline_s: float = DEADLINE_S,
    **forward_options: Any,
) -> AsyncIterator[Scene]:
    """A gateway in front of this; all within a deadline, and nothing left behind."""
    tasks_before, port = set(asyncio.all_tasks()), None
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(deadline_s))
        if isinstance(to, str):
            credentials = Credentials(api_key=KEY, base_url=to)
            port = urlsplit(to).port
            opened = forwarding(credentials, **forward_options)
            to = await stack.enter_async_context(opened)
        scene = await stack.enter_async_context(
            _listening(
                to,
                budget or Budget(None, None, None),
                Backoff(longest_wait_s=longest_wait_s, most_in_flight=most_in_flight),
                caller or worker(),
                FirstWave(first_wave_s),
            )
        )
        yield scene
    await anyio.wait_all_tasks_blocked()
    left = open_sockets(scene.port, port)
    assert not left, f"sockets are left open: {left}"
    alive = [
        task
        for task in set(asyncio.all_tasks()) - tasks_before
        if not task.get_name().startswith(_OURS)
    ]
    assert not alive, f"tasks are left: {alive}"


@asynccontextmanager
async def _listening(
    upstream: Upstream,
    budget: Budget,
    backoff: Backoff,
    caller: Caller,
    wave: FirstWave,
) -> AsyncIterator[Scene]:
    scene = Scene(caller)
    scene.budget = budget
    scene.ledger = Ledger(
        scene.write,
        changed=scene.note_call,
        day_total=budget.others_today,
        report=scene.notices.append,
    )

    def give_up(suspend: Any) -> None:
        scene.gateway.suspend(suspend.reason, "go on with mas resume")

    admission = Admission(
        backoff,
        on_wait=scene.note_wait,
        on_held=scene.note_held,
        on_suspend=give_up,
    )
    scene.gateway = Gateway(
        upstream,
        admission=admission,
        budget=budget,
        book=Book(scene.ledger, budget, Prices.load({}), scene.notices.append),
        wave=wave,
        listener=scene,
    )
    scene.token = scene.gateway.tokens.issue(caller)
    listener = listen()
    scene.port = listener.getsockname()[1]
    server = LoopbackServer(scene.gateway, listener)
    async with anyio.create_task_group() as working:
        working.start_soon(admission.run)
        working.start_soon(scene.ledger.write_forever)
        async with anyio.create_task_group() as serving:
            serving.start_soon(server.serve_until_stopped)
            await server.ready.wait()
            try:
                yield scene
            finally:
                for line in scene.lines:
                    await line.stream.aclose()
                server.stop()
        await scene.ledger.close()
        working.cancel_scope.cancel()


def worker(attempt: int = 1, **more: Any) -> Caller:
    return Caller(
        task_id=TASK, agent_id="agent_1", subtask_id="load", attempt=attempt, **more
    )


def open_sockets(*ports: int | None) -> list[Any]:
    """This process's ends of connections that the gateway should have closed.

    ``ports`` are its own, where it listens, and its upstream's, to which it connects.
    """
    own, upstream = ports
    return [
        each
        for each in psutil.Process().net_connections(kind="tcp")
        if each.laddr.port == own or (each.raddr and each.raddr.port == upstream)
    ]
