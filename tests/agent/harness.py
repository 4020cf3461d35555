"""The supervisor's side of one agent, as a test plays it: a real process."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import TypeVar

import anyio
import psutil
from anyio.abc import Process, TaskGroup

from mas.wire.framing import FrameDecoder, frame
from mas.wire.messages import (
    AttemptDone,
    Configure,
    FromAgent,
    Hello,
    Log,
    Progress,
    RunAttempt,
    Shutdown,
    ToAgent,
    decode_from_agent,
    encode,
)

COMMAND = [sys.executable, "-m", "mas.agent", "--id", "agent_1"]
DEADLINE_S = 30
IMPATIENT = {"CLAUDE_CODE_MAX_RETRIES": "1"}
"""For the environment of an agent whose CLI is to give up quickly."""

M = TypeVar("M", bound=FromAgent)


class Agent:
    """A started agent; ``received`` is all that it has said so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.received: list[FromAgent] = []
        self.stderr = b""
        self.preamble = b""
        self._news = anyio.Event()
        self._taken = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    async def send(self, message: ToAgent) -> None:
        await self.send_bytes(frame(encode(message)))

    async def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(data)

    async def close_stdin(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def next(self, kind: type[M], *, deadline_s: float = DEADLINE_S) -> M:
        """The next message of this kind; those before it are passed over."""
        with anyio.fail_after(deadline_s):
            while True:
                while self._taken < len(self.received):
                    message = self.received[self._taken]
                    self._taken += 1
                    if isinstance(message, kind):
                        return message
                await self._news.wait()

    async def run(self, order: RunAttempt) -> AttemptDone:
        """Give the order, and return how the attempt ended."""
        await self.send(order)
        return await self.next(AttemptDone)

    async def activity(self, words: str) -> Progress:
        """Wait until the agent shows that it does something with these words."""
        while True:
            progress = await self.next(Progress)
            if words in progress.activity:
                return progress

    async def ended(self, *, deadline_s: float = 10) -> int:
        """Wait for the process's end; its exit code."""
        with anyio.fail_after(deadline_s):
            return await self.process.wait()

    def children(self) -> list[psutil.Process]:
        """All processes below the agent."""
        found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        return found

    def said(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]

    def log(self) -> str:
        return "\n".join(message.message for message in self.said(Log))

    async def _read(self) -> None:
        assert self.process.stdout is not None
        decoder = FrameDecoder(marker=True)
        async for data in self.process.stdout:
            payloads = decoder.feed(data)
            self.received += [decode_from_agent(payload) for payload in payloads]
            self.preamble = decoder.preamble
            self._tell()
        self._tell()

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for data in self.process.stderr:
            self.stderr += data

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def follow(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._read)
        tasks.start_soon(self._read_stderr)


@asynccontextmanager
async def agent(
    configuration: Configure | None = None, environment: dict[str, str] | None = None
) -> AsyncIterator[Agent]:
    """An agent that has greeted and is configured; it is shut down at the end."""
    variables = os.environ | (environment or {})
    process = await anyio.open_process(
        COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=variables
    )
    async with process:
        started = Agent(process)
        async with anyio.create_task_group() as tasks:
            started.follow(tasks)
            assert (await started.next(Hello)).pid == process.pid
            if configuration is not None:
                await started.send(configuration)
            yield started
            if process.returncode is None:
                await started.send(Shutdown())
            await started.ended()
