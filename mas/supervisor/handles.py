"""The supervisor's end of one agent: a process, its pipes, and what it says."""

import os
from collections.abc import Callable
from subprocess import PIPE

import anyio
import msgspec
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, to_thread
from anyio.abc import Process

from mas.errors import AgentError, MasError, ProtocolError
from mas.model import AgentSpec
from mas.supervisor.processes import (
    agent_command,
    agent_environment,
    remove_marked,
    remove_tree,
)
from mas.wire.framing import FrameDecoder, frame
from mas.wire.messages import (
    PROTOCOL_VERSION,
    Configure,
    FromAgent,
    Hello,
    Shutdown,
    ToAgent,
    decode_from_agent,
    encode,
)

_READ_BYTES = 65536
_STDERR_TAIL_BYTES = 4096
_SEND_QUEUE = 64
_EXIT_S = 1.0
"""For an agent that closed its pipe to end by itself."""


class AgentHandle:
    """Runs one agent process once: ``run`` starts it and returns when it is gone."""

    def __init__(
        self,
        spec: AgentSpec,
        *,
        module: str,
        marker: str,
        handshake_timeout_s: float,
        silence_timeout_s: float,
        shutdown_grace_s: float,
    ) -> None:
        self.spec = spec
        self.pid = 0
        self._module = module
        self._marker = marker
        self._handshake_timeout_s = handshake_timeout_s
        self._silence_timeout_s = silence_timeout_s
        self._shutdown_grace_s = shutdown_grace_s
        self._send, self._to_send = anyio.create_memory_object_stream[bytes](
            _SEND_QUEUE
        )
        self._stderr = b""
        self._stopping = False
        self._verdict: MasError | None = None
        self._scope = anyio.CancelScope()

    def send(self, message: ToAgent) -> None:
        """Queue a message; an agent that does not read its messages is ended.

        Raises ProtocolError for one that no frame can carry.
        """
        try:
            payload = frame(encode(message))
        except (OverflowError, RecursionError) as error:
            raise ProtocolError(f"a message cannot be sent: {error}") from error
        try:
            self._send.send_nowait(payload)
        except anyio.WouldBlock:
            self.kill("it does not read its messages")
        except (BrokenResourceError, ClosedResourceError):
            return  # it is gone; run() reports that

    def stop(self) -> None:
        """Ask the agent to end; what is left after the grace is killed."""
        self._stopping = True
        self._scope.deadline = anyio.current_time() + self._shutdown_grace_s
        self.send(Shutdown())

    def kill(self, reason: str) -> None:
        """End the agent now, for ``reason``."""
        if self._verdict is None:
            self._verdict = AgentError(f"{self.spec.id} was ended: {reason}")
        self._scope.cancel()

    async def run(
        self,
        configure: Configure,
        ready: Callable[[], None],
        received: Callable[[FromAgent], None],
    ) -> AgentError | None:
        """Run the agent until it is gone; return why, or None where it was asked to.

        ``ready`` is called after the handshake, ``received`` for each later message.
        When this returns, no process that carries the marker is left.
        """
        read_fd, write_fd = os.pipe()
        command = agent_command(self.spec.command, self._module, self.spec.id)
        try:
            process = await anyio.open_process(
                command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=write_fd,
                start_new_session=True,
                env=agent_environment(os.environ, self._marker),
            )
        except OSError as error:
            os.close(read_fd)
            return AgentError(
                f"{self.spec.id} could not be started: {error}",
                evidence=" ".join(command),
            )
        finally:
            os.close(write_fd)
        self.pid = process.pid
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._drain_stderr, read_fd)
                with self._scope:
                    await self._converse(process, configure, ready, received)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._remove(process)
            self._read_stderr(read_fd)
            os.close(read_fd)
        return self._reason(process.returncode)

    async def _converse(
        self,
        process: Process,
        configure: Configure,
        ready: Callable[[], None],
        received: Callable[[FromAgent], None],
    ) -> None:
        """Handshake, then read and write until an end comes, for whatever reason."""
        decoder = FrameDecoder(marker=True)
        try:
            with anyio.fail_after(self._handshake_timeout_s):
                early = await self._handshake(process, decoder)
            self.send(configure)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, process)
                ready()
                verdict = await self._read(process, decoder, early, received)
                self._verdict = self._verdict or verdict
                tasks.cancel_scope.cancel()
        except TimeoutError:
            self._verdict = AgentError(
                f"{self.spec.id} did not say hello within "
                f"{self._handshake_timeout_s:g} s",
                evidence=decoder.preamble[-400:].decode(errors="replace"),
            )
        except MasError as error:
            self._verdict = self._verdict or error

    async def _handshake(self, process: Process, decoder: FrameDecoder) -> list[bytes]:
        frames: list[bytes] = []
        while not frames:
            data = await self._receive(process)
            if not data:
                decoder.close()
                raise AgentError(
                    f"{self.spec.id} ended before it said hello",
                    evidence=decoder.preamble[-400:].decode(errors="replace"),
                )
            frames = decoder.feed(data)
        hello = _decode(frames[0])
        if not isinstance(hello, Hello):
            raise ProtocolError(f"{self.spec.id} did not open with hello")
        if hello.agent_id != self.spec.id:
            raise ProtocolError(f"{self.spec.id} says that it is {hello.agent_id}")
        if hello.protocol != PROTOCOL_VERSION:
            raise ProtocolError(
                f"{self.spec.id} speaks protocol {hello.protocol}, this mas speaks "
                f"{PROTOCOL_VERSION}",
                hint="install the same version of mas on both ends",
            )
        return frames[1:]

    async def _read(
        self,
        process: Process,
        decoder: FrameDecoder,
        early: list[bytes],
        received: Callable[[FromAgent], None],
    ) -> MasError | None:
        """Pass on every message until the stream ends; return what was wrong."""
        frames = early
        try:
            while True:
                for payload in frames:
                    received(_decode(payload))
                with anyio.fail_after(self._silence_timeout_s):
                    data = await self._receive(process)
                if not data:
                    decoder.close()
                    return None
                frames = decoder.feed(data)
        except TimeoutError:
            return AgentError(
                f"{self.spec.id} was not heard for {self._silence_timeout_s:g} s"
            )
        except ProtocolError as error:
            return error

    async def _receive(self, process: Process) -> bytes:
        """The next bytes from the agent; empty at the end."""
        assert process.stdout is not None
        try:
            return await process.stdout.receive(_READ_BYTES)
        except (EndOfStream, BrokenResourceError, ClosedResourceError):
            return b""

    async def _write(self, process: Process) -> None:
        assert process.stdin is not None
        async for payload in self._to_send:
            try:
                with anyio.fail_after(self._silence_timeout_s):
                    await process.stdin.send(payload)
            except TimeoutError:
                self.kill("it does not read its messages")
            except (BrokenResourceError, ClosedResourceError):
                return  # the reader sees the end

    async def _drain_stderr(self, fd: int) -> None:
        while True:
            await anyio.wait_readable(fd)
            data = os.read(fd, _READ_BYTES)
            if not data:
                return
            self._stderr = (self._stderr + data)[-_STDERR_TAIL_BYTES:]

    def _read_stderr(self, fd: int) -> None:
        """What is still in the pipe; a process that holds it open is not waited for."""
        os.set_blocking(fd, False)
        try:
            while data := os.read(fd, _READ_BYTES):
                self._stderr = (self._stderr + data)[-_STDERR_TAIL_BYTES:]
        except BlockingIOError:
            return

    async def _remove(self, process: Process) -> None:
        """Leave nothing: the agent, what is below it, and what has left its tree."""
        self._send.close()
        self._to_send.close()
        with anyio.move_on_after(_EXIT_S if self._verdict is None else 0):
            await process.wait()
        if process.returncode is None:
            await to_thread.run_sync(remove_tree, process.pid)
        await to_thread.run_sync(remove_marked, self._marker)
        with anyio.move_on_after(2):
            await process.wait()
        with anyio.move_on_after(2):
            await process.aclose()

    def _reason(self, returncode: int | None) -> AgentError | None:
        verdict = self._verdict
        if self._stopping and (verdict is None or returncode == 0):
            return None
        tail = self._stderr.decode(errors="replace").strip()
        if verdict is None:
            verdict = AgentError(f"{self.spec.id} {_how(returncode)}")
        evidence = "\n".join(part for part in (verdict.evidence, tail) if part)
        return AgentError(verdict.message, hint=verdict.hint, evidence=evidence)


def _decode(payload: bytes) -> FromAgent:
    try:
        message: FromAgent = decode_from_agent(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # ValueError is text that is no UTF-8, RecursionError something nested too deep.
        raise ProtocolError(
            f"a frame that is no message: {error}", evidence=repr(payload[:120])
        ) from error
    return message


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "closed its pipe"
    if returncode < 0:
        return f"was killed by signal {-returncode}"
    return f"ended with exit code {returncode}"
