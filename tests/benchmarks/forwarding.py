"""What the gateway costs: time a request, and CPU while agents stream.

    python -m tests.benchmarks.forwarding [--requests 400] [--agents 5] [--seconds 20]

The upstream and the gateway are processes of their own; this one is the clients. Time:
the same small request is sent to the upstream directly and through the gateway, by
turns, each on a connection that is kept. CPU: agents read streams as a fast model
writes them, 80 tokens a second each, a few tokens an event, with pings in between.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from msgspec import Struct

from tests.gateway.harness import gateway
from tests.gateway.wire import (
    END,
    MODEL,
    PING,
    START,
    STREAM_HEAD,
    Line,
    Message,
    chunked,
    delta,
    response,
    upstream,
)

MOST_MS = 3.0
"""What a request may cost, in the median."""
MOST_CPU = 0.05
"""What five streaming agents may take of a core."""

_MODULE = "tests.benchmarks.forwarding"
_TOKENS_PER_S = 80.0
_TOKENS_PER_EVENT = 3.5
_PING_S = 1.0
_WARM_UP = 20
_PROMPT_BYTES = 25_000
"""As large as the CLI's requests are at the beginning of a session."""


class Cost(Struct, frozen=True, kw_only=True):
    """What was measured."""

    requests: int
    direct_ms: float
    """The median of a request that is sent directly."""
    through_ms: float
    """The median of the same through the gateway."""
    agents: int
    seconds: float
    events_per_s: float
    cpu: float
    """Of one core, while the agents stream."""

    @property
    def added_ms(self) -> float:
        return self.through_ms - self.direct_ms

    @property
    def is_within_bounds(self) -> bool:
        return self.added_ms < MOST_MS and self.cpu < MOST_CPU

    def lines(self) -> list[str]:
        """The table."""
        streams = f"{self.agents} agents, {self.events_per_s:.0f} events/s"
        return [
            f"{'':30} {'measured':>9} {'bound':>9}",
            f"{'request, directly':30} {self.direct_ms:6.2f} ms",
            f"{'request, through the gateway':30} {self.through_ms:6.2f} ms",
            f"{'what that adds':30} {self.added_ms:6.2f} ms {MOST_MS:6.2f} ms",
            f"{streams:30} {self.cpu * 100:5.1f} % {MOST_CPU * 100:7.1f} %  of a core",
        ]


def measure(*, requests: int, agents: int, seconds: float) -> Cost:
    """Start everything, measure, and end it."""
    with ExitStack() as stack:
        claude = stack.enter_context(_process("upstream"))
        through = stack.enter_context(_process("gateway", claude.told["url"]))
        return anyio.run(_measured, claude, through, requests, agents, seconds)


async def _measured(
    claude: "_Process", through: "_Process", requests: int, agents: int, seconds: float
) -> Cost:
    port = int(claude.told["url"].rpartition(":")[2])
    token = through.told["token"]
    direct_ms, through_ms = await _times_ms(port, through.told["port"], token, requests)
    before_s, events, began = through.cpu_s(), [0], time.monotonic()
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            for _ in range(agents):
                tasks.start_soon(_stream, through.told["port"], token, events)
    took_s = time.monotonic() - began
    return Cost(
        requests=requests,
        direct_ms=statistics.median(direct_ms),
        through_ms=statistics.median(through_ms),
        agents=agents,
        seconds=took_s,
        events_per_s=events[0] / took_s,
        cpu=(through.cpu_s() - before_s) / took_s,
    )


async def _times_ms(
    direct: int, through: int, token: str, count: int
) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    async with (
        await anyio.connect_tcp("127.0.0.1", direct) as first,
        await anyio.connect_tcp("127.0.0.1", through) as second,
    ):
        ways = ((Line(first), taken[0]), (Line(second), taken[1]))
        raw = _request(token, stream=False)
        for at in range(_WARM_UP + count):
            for line, times in ways:
                began = time.perf_counter()
                answer = await line.ask(raw)
                took_ms = (time.perf_counter() - began) * 1000
                assert answer.status == 200
                if at >= _WARM_UP:
                    times.append(took_ms)
    return taken


async def _stream(port: int, token: str, events: list[int]) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        line = Line(stream)
        await line.send(_request(token, stream=True))
        await line.head()
        while await line.chunk():
            events[0] += 1


def _request(token: str, *, stream: bool) -> bytes:
    body = json.dumps(
        {
            "model": MODEL,
            "stream": stream,
            "system": "x" * _PROMPT_BYTES,
            "messages": [{"role": "user", "content": "Count."}],
        }
    ).encode()
    head = (
        f"POST /v1/messages?beta=true HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        f"x-api-key: {token}\r\ncontent-type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Process:
    """A process of the benchmark, from the parent's side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.told: dict[str, Any] = self._hear()
        """Where it is."""

    def cpu_s(self) -> float:
        """What CPU it has taken so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        taken: float = self._hear()["cpu_s"]
        return taken

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def _process(*arguments: str) -> Iterator[_Process]:
    with subprocess.Popen(
        [sys.executable, "-m", _MODULE, *arguments],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Process(process)
        finally:
            process.kill()


async def _be_upstream() -> None:
    async def answer(line: Line, heard: Message) -> None:
        if not heard.json["stream"]:
            await line.send(response())
            return
        await line.send(STREAM_HEAD + chunked(START, end=False))
        began = time.monotonic()
        pinged = 0
        for at in range(1, 10**6):
            due = began + at * _TOKENS_PER_EVENT / _TOKENS_PER_S
            await anyio.sleep(max(0.0, due - time.monotonic()))
            await line.send(chunked(delta(f" some words, {at}"), end=False))
            if due - began >= (pinged + 1) * _PING_S:
                pinged += 1
                await line.send(chunked(PING, end=False))
        await line.send(chunked(END))

    async with upstream(answer) as server:
        await _report(url=server.url)


async def _be_gateway(url: str) -> None:
    async with gateway(url, deadline_s=math.inf) as scene:
        await _report(port=scene.port, token=scene.token)


async def _report(**told: Any) -> None:
    """Tell where it is, and the CPU taken so far whenever a line comes."""
    _tell(told)
    while await to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        _tell({"cpu_s": time.process_time()})


def _tell(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    cost = measure(requests=given.requests, agents=given.agents, seconds=given.seconds)
    sys.stdout.write("\n".join(cost.lines()) + "\n")
    return 0 if cost.is_within_bounds else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream"]:
            anyio.run(_be_upstream)
        case ["gateway", url]:
            anyio.run(_be_gateway, url)
        case _:
            sys.exit(main())
