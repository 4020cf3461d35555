"""An upstream in a process of its own: it plays a script and counts what comes.

Within so many requests a second it answers, beyond that with 429. A parent starts it
with ``ScriptedProcess``, hears of every request, and may kill it and bring it back.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec import json as msgspec_json
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from mas.gateway import sse
from mas.gateway.server import LoopbackServer, listen
from mas.testing import Conversation, Request, Script, plan, planner, tool_use
from mas.testing.api import MessagesApi
from tests.benchmarks.counters import COUNTERS, Counter
from tests.scripts import describes, result_json

_MODULE = "tests.benchmarks.upstream"
_START_S = 20.0
_STOP_S = 10.0


class Part(Struct, frozen=True, kw_only=True):
    """What the upstream plays, and how much of it at a time."""

    subtasks: int = 5
    turns: int = 4
    """Requests that each subtask takes; at least two."""
    per_s: float | None = None
    """Requests a second that are answered; None: all."""
    counter: str = "sliding"
    """How they are counted; see ``counters``."""
    retry_after_s: int = 1
    """What is said to who came too many; 0: nothing."""
    latency_s: float = 0.0


class Call(NamedTuple):
    """A request as the upstream saw it."""

    at: float
    """Seconds of the monotonic clock, which all processes share."""
    status: int


def script(part: Part) -> Script:
    """Independent subtasks; each writes small files, one a turn, then its result."""
    keys = keys_of(part)
    planned = [{"key": key, "description": f"do {key}"} for key in keys]
    return Script(
        [
            Conversation(planner, [[plan(planned)]]),
            *(_busy(key, part.turns) for key in keys),
        ]
    )


def keys_of(part: Part) -> list[str]:
    return [f"s{number:02}" for number in range(1, part.subtasks + 1)]


def _busy(key: str, turns: int) -> Conversation:
    def write(path: str, content: str) -> Callable[[Request], list[dict[str, Any]]]:
        return lambda request: [
            tool_use("Write", file_path=f"{request.cwd}/{path}", content=content)
        ]

    drafts = [write(f"temp/{number}.txt", "draft") for number in range(turns - 2)]
    result = write("output/result.json", result_json(f"{key} is done"))
    return Conversation(describes(key), [*drafts, result, "done"], name=key)


def _counter(part: Part) -> Counter:
    if part.per_s is None:
        return lambda _: True
    return COUNTERS[part.counter](part.per_s)


class _Counting:
    """The script behind a counter; ``tell`` hears of every call."""

    def __init__(self, part: Part, tell: Callable[[Call], None]) -> None:
        self._api = MessagesApi(script(part), latency_s=part.latency_s)
        self._accepts = _counter(part)
        self._retry_after_s = part.retry_after_s
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.monotonic()
        if scope["path"] != "/v1/messages":
            await self._api(scope, receive, send)
            return
        is_accepted = self._accepts(now)
        self._tell(Call(now, 200 if is_accepted else 429))
        if is_accepted:
            await self._api(scope, receive, send)
            return
        await HttpRequest(scope, receive).body()
        after = {"retry-after": str(self._retry_after_s)} if self._retry_after_s else {}
        refusal = JSONResponse(sse.error(429), status_code=429, headers=after)
        await refusal(scope, receive, send)


class ScriptedProcess:
    """The process, from the parent's side, while it is entered.

    ``calls`` are all so far, those before a ``kill`` too.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self.calls: list[Call] = []
        self.url = ""
        self._port = 0
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        finally:
            self.kill()

    def start(self) -> None:
        """Listen, on the same port as before."""
        part = msgspec_json.encode(self._part).decode()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(self._port), part],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        listening = threading.Event()
        self._reader = threading.Thread(target=self._read, args=[listening])
        self._reader.start()
        if not listening.wait(_START_S) or not self._port:
            raise RuntimeError("the upstream does not listen")

    def kill(self) -> None:
        """End it at once, in the middle of whatever it sends; twice is once."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _read(self, listening: threading.Event) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if isinstance(said, list):
                self.calls.append(Call(*said))
            else:
                self._port = said
                self.url = f"http://127.0.0.1:{said}"
                listening.set()
        listening.set()  # it has ended, maybe without a word


class Figures(Struct, frozen=True, kw_only=True):
    """What an upstream saw of a run."""

    calls: int
    rejected: int
    span_s: float
    """From the first call to the last."""
    most_in_a_second: int

    @property
    def rejected_share(self) -> float:
        return self.rejected / self.calls if self.calls else 0.0

    @property
    def answered_per_s(self) -> float:
        return (self.calls - self.rejected) / self.span_s if self.span_s else 0.0


def figures(calls: list[Call]) -> Figures:
    times = sorted(call.at for call in calls)
    return Figures(
        calls=len(calls),
        rejected=sum(call.status == 429 for call in calls),
        span_s=times[-1] - times[0] if times else 0.0,
        most_in_a_second=max(
            (sum(at <= other < at + 1 for other in times) for at in times), default=0
        ),
    )


def longest_gap_s(calls: list[Call]) -> float:
    """The longest time without a call."""
    return max((b.at - a.at for a, b in pairwise(calls)), default=0.0)


async def _serve(port: int, part: Part) -> None:
    def tell(line: object) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    listener = listen(port)
    server = LoopbackServer(_Counting(part, tell), listener)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve_until_stopped)
        await server.ready.wait()
        tell(listener.getsockname()[1])
        # The parent's end of the pipe closes, whether it means it or dies.
        await to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        server.stop()


if __name__ == "__main__":
    anyio.run(_serve, int(sys.argv[1]), msgspec_json.decode(sys.argv[2], type=Part))
