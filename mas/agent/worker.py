"""The agent's life: take orders, run one attempt at a time, beat, and end in time."""

import asyncio
import importlib
import logging
import threading
from typing import TYPE_CHECKING, NoReturn

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from mas.agent import processes
from mas.agent.leaving import ABANDONED_GRACE_S, SHUTDOWN_GRACE_S, Leaving
from mas.agent.logs import FrameHandler
from mas.agent.outcome import failed
from mas.agent.pipe import Outbox, read_messages
from mas.model import FailureKind, Usage
from mas.wire.messages import (
    AttemptDone,
    Configure,
    Heartbeat,
    HoldAttempt,
    RunAttempt,
    Shutdown,
    StopAttempt,
    ToAgent,
)

if TYPE_CHECKING:
    from mas.agent.attempt import Attempt

STOP_GRACE_S = 3.0
"""How long a stopped attempt may take to unwind before its processes are killed.

An interrupt and a disconnect take about 1.4 s; the SDK alone would wait up to 20 s.
"""

_log = logging.getLogger(__name__)


def serve(agent_id: str, wire_in: int, wire_out: int) -> NoReturn:
    """Run the agent ``agent_id`` on these two descriptors until its end."""
    processes.claim_descendants()
    outbox = Outbox(
        wire_out, on_broken=lambda: leaving.ask(0, grace_s=ABANDONED_GRACE_S)
    )
    leaving = Leaving(outbox.close)
    processes.on_terminate(
        lambda number: leaving.ask(128 + number, grace_s=ABANDONED_GRACE_S)
    )
    try:
        anyio.run(_serve, agent_id, wire_in, outbox, leaving)
    except BaseException as error:  # noqa: BLE001 - the end of the process, whatever it was
        outbox.close()
        processes.end_process(1, f"{agent_id} failed: {describe(error)}")
    leaving.now()


async def _serve(agent_id: str, wire_in: int, outbox: Outbox, leaving: Leaving) -> None:
    """Work until the process is to end, and then until the attempt has unwound."""
    loop = asyncio.get_running_loop()
    leaving.attach(loop)
    deliver, inbox = anyio.create_memory_object_stream[ToAgent](float("inf"))

    def take(message: ToAgent) -> None:
        if isinstance(message, Shutdown):
            leaving.ask(0, grace_s=SHUTDOWN_GRACE_S)
        else:
            # Not anyio.from_thread, which waits for the loop: a loop that is stuck must
            # not keep the reader from seeing the end of the pipe.
            loop.call_soon_threadsafe(deliver.send_nowait, message)

    def read() -> None:
        try:
            reason = read_messages(wire_in, take)
        except Exception as error:  # noqa: BLE001 - unheard, the supervisor's end would be too
            reason = describe(error)
        line = f"{agent_id}: {reason}" if reason else ""
        leaving.ask(1 if reason else 0, line, grace_s=ABANDONED_GRACE_S)

    worker = Worker(outbox)
    handler = FrameHandler(outbox.send, lambda: worker.subtask_id)
    # The libraries' warnings, and what mas itself has to tell.
    logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.WARNING)
    logging.getLogger("mas").setLevel(logging.INFO)
    outbox.start()
    threading.Thread(target=read, name="mas-inbox", daemon=True).start()
    async with deliver, inbox, anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, inbox)
        await leaving.asked()
        await worker.abandon(leaving.grace_s)
        leaving.now()  # not by unwinding: that would wait for an import, or a thread


class _Running:
    """The attempt that is under way."""

    def __init__(self, order: RunAttempt) -> None:
        self.order = order
        self.attempt: Attempt | None = None
        self.scope = anyio.CancelScope()
        self.finished = anyio.Event()
        self.stop_reason: str | None = None

    @property
    def usage(self) -> Usage:
        return self.attempt.usage if self.attempt else Usage()

    def is_meant_by(self, message: StopAttempt | HoldAttempt) -> bool:
        mine = (self.order.subtask.id, self.order.attempt)
        return mine == (message.subtask_id, message.attempt)


class Worker:
    """Performs the supervisor's orders; one ``AttemptDone`` for each ``RunAttempt``."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._configuration: Configure | None = None
        self._beats = anyio.CancelScope()
        self._loaded = anyio.Event()
        self._attempt_class: type[Attempt] | None = None
        self._load_error = ""
        self._running: _Running | None = None
        self._tasks_completed = 0
        self._is_leaving = False

    @property
    def subtask_id(self) -> str | None:
        """The subtask that is worked on now."""
        return self._running.order.subtask.id if self._running else None

    async def run(self, inbox: MemoryObjectReceiveStream[ToAgent]) -> None:
        """Obey until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._load)
            async for message in inbox:
                self._obey(message, tasks)

    def _obey(self, message: ToAgent, tasks: TaskGroup) -> None:
        match message:
            case Configure():
                self._configuration = message
                self._beats.cancel()
                self._beats = anyio.CancelScope()
                tasks.start_soon(self._beat, message.heartbeat_s, self._beats)
            case RunAttempt():
                self._start(message, tasks)
            case StopAttempt():
                self._stop(message, tasks)
            case HoldAttempt():
                self._hold(message)
            case Shutdown():
                pass  # the reader of the pipe has seen to it

    async def abandon(self, grace_s: float) -> None:
        """Interrupt the attempt, and wait until its processes are gone or the grace is.

        What it has used and made until then is in its workspace and its transcript.
        """
        self._is_leaving = True
        if self._running is not None:
            self._running.scope.cancel()
            with anyio.move_on_after(grace_s):
                await self._running.finished.wait()

    def _start(self, order: RunAttempt, tasks: TaskGroup) -> None:
        if self._is_leaving:
            return  # nobody waits for an answer
        if self._configuration is None:
            error = "the agent was given an attempt before its configuration"
        elif self._running is not None:
            error = f"the agent is still busy with {self.subtask_id}"
        else:
            self._running = _Running(order)
            tasks.start_soon(self._run, self._running, self._configuration)
            return
        self._outbox.send(failed(order, FailureKind.INTERNAL, error))

    def _stop(self, message: StopAttempt, tasks: TaskGroup) -> None:
        running = self._running
        if running is None or not running.is_meant_by(message):
            return  # it ended meanwhile, and its AttemptDone is on the way
        running.stop_reason = message.reason
        running.scope.cancel()
        tasks.start_soon(self._kill_after_grace, running)

    def _hold(self, message: HoldAttempt) -> None:
        running = self._running
        if running and running.attempt and running.is_meant_by(message):
            running.attempt.hold(message.is_held)

    async def _run(self, running: _Running, configuration: Configure) -> None:
        order = running.order
        done: AttemptDone | None = None
        _log.info("attempt %d begins", order.attempt)
        try:
            with running.scope:
                await self._loaded.wait()
                done = await self._attempt(running, configuration)
        except Exception as error:  # noqa: BLE001 - an AttemptDone is owed in any case
            _log.exception("the attempt at %s failed inside mas", order.subtask.id)
            if running.stop_reason is None:
                error_text = describe(error)
                done = failed(order, FailureKind.INTERNAL, error_text, running.usage)
        if done is None:
            reason = running.stop_reason or "the attempt was stopped"
            done = failed(order, FailureKind.CANCELLED, reason, running.usage)
        await sweep()
        told = f"{done.failure}: {done.error}" if done.failure else "completed"
        _log.info("attempt %d ends, %s", order.attempt, told)
        self._tasks_completed += done.failure is None
        self._running = None
        running.finished.set()
        self._outbox.send(done)

    async def _attempt(
        self, running: _Running, configuration: Configure
    ) -> AttemptDone:
        if self._attempt_class is None:
            return failed(running.order, FailureKind.INTERNAL, self._load_error)
        running.attempt = self._attempt_class(
            running.order, configuration, self._outbox.send
        )
        return await running.attempt.run()

    async def _kill_after_grace(self, running: _Running) -> None:
        with anyio.move_on_after(STOP_GRACE_S):
            await running.finished.wait()
            return
        _log.warning("the attempt did not stop in %g s; killing it", STOP_GRACE_S)
        await anyio.to_thread.run_sync(processes.kill_descendants)

    async def _beat(self, heartbeat_s: float, scope: anyio.CancelScope) -> None:
        with scope:
            meter = await anyio.to_thread.run_sync(processes.TreeMeter)
            while True:
                cpu_percent, memory_mib = await anyio.to_thread.run_sync(meter.sample)
                self._outbox.send(
                    Heartbeat(
                        cpu_percent=cpu_percent,
                        memory_mib=memory_mib,
                        subtask_id=self.subtask_id,
                        tasks_completed=self._tasks_completed,
                    )
                )
                await anyio.sleep(heartbeat_s)

    async def _load(self) -> None:
        """Import the SDK, a second's work, while the supervisor goes on."""
        try:
            module = await anyio.to_thread.run_sync(
                importlib.import_module, "mas.agent.attempt"
            )
            self._attempt_class = module.Attempt
        except Exception as error:  # noqa: BLE001 - told with every attempt
            _log.exception("the Claude Agent SDK cannot be loaded")
            self._load_error = f"the Claude Agent SDK cannot be loaded: {error}"
        self._loaded.set()


async def sweep() -> None:
    """Leave no process of the attempt behind: not even one that called setsid."""
    with anyio.CancelScope(shield=True):  # bounded by kill_descendants' own deadline
        survivors = await anyio.to_thread.run_sync(processes.kill_descendants)
    processes.reap_orphans()
    if survivors:
        _log.error("processes of the attempt outlive SIGKILL: %s", survivors)


def describe(error: BaseException) -> str:
    """What went wrong, without the task groups around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
