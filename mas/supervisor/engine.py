"""The shell of ``core.scheduler``: performs its commands, feeds events back.

Two tasks. One takes what happened, asks the scheduler and queues its commands in order.
The other takes all that is queued, makes the facts durable in one commit, and only then
shows them and performs their effects; what is queued meanwhile is the next batch. So
the commit sets the pace, without a timer.
"""

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import structs

from mas.core.events import (
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Command,
    Event,
    Fact,
    FinishTask,
    Record,
    Recorded,
    SchedulerInput,
    StartAttempt,
    StopAttempt,
    TaskFinished,
    Tick,
)
from mas.core.result import aggregate, check_result, inside_output
from mas.core.scheduler import Scheduler
from mas.errors import ProtocolError
from mas.model import FailureKind, Plan, Status
from mas.supervisor.folder import INPUTS_FOLDER
from mas.supervisor.journal import Journal
from mas.supervisor.pool import AgentPool
from mas.wire import messages


@dataclass
class _LiveAttempt:
    session_id: str
    started_at: float = field(default_factory=time.monotonic)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Engine:
    """Runs one task's plan on the pool's agents until it is finished or stopped."""

    def __init__(
        self,
        *,
        task_id: str,
        description: str,
        plan: Plan,
        folder: Path,
        database_schema: str,
        has_inputs: bool,
        scheduler: Scheduler,
        journal: Journal,
        pool: AgentPool,
        show: Callable[[Recorded], None],
        stop_grace_s: float,
    ) -> None:
        self._task_id = task_id
        self._description = description
        self._plan = plan
        self._subtasks = {subtask.id: subtask for subtask in plan.subtasks}
        self._folder = folder
        self._database_schema = database_schema
        self._has_inputs = has_inputs
        self._scheduler = scheduler
        self._journal = journal
        self._pool = pool
        self._show = show
        self._stop_grace_s = stop_grace_s
        self._push, self._inputs = anyio.create_memory_object_stream[SchedulerInput](
            math.inf  # at most one result an agent, and the coming and going of agents
        )
        self._queued: list[Command] = []
        self._wake_writer = anyio.Event()
        self._live: dict[tuple[str, int], _LiveAttempt] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, list[messages.PreviousAttempt]] = {}
        self._finished: TaskFinished | None = None

    @property
    def finished(self) -> TaskFinished | None:
        """How the task ended, as soon as that is durable."""
        return self._finished

    def feed(self, event: SchedulerInput) -> None:
        """Something happened: an agent came or went, or the user cancels."""
        try:
            self._push.send_nowait(event)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the task is finished: what agents still say changes nothing

    def received(self, agent_id: str, message: messages.FromAgent) -> None:
        """An agent said how an attempt goes or how it ended."""
        if isinstance(message, messages.Progress):
            self._show_now(
                AttemptProgress(
                    subtask_id=message.subtask_id,
                    attempt=message.attempt,
                    agent_id=agent_id,
                    activity=message.activity,
                    subagent=message.subagent,
                    subagent_status=message.subagent_status,
                    usage=message.usage,
                )
            )
        elif isinstance(message, messages.AttemptDone):
            self.feed(self._judged(agent_id, message))

    async def run(self) -> TaskFinished:
        """Return when the task is finished and that fact is durable."""
        with self._inputs, self._push:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, tasks)
                await self._decide()
        assert self._finished is not None
        return self._finished

    async def _decide(self) -> None:
        event: SchedulerInput = Tick()
        while True:
            commands = self._scheduler.handle(event, time.monotonic())
            if commands:
                self._queued += commands
                self._wake_writer.set()
            if self._scheduler.is_finished:
                return
            event = await self._next_input()

    async def _next_input(self) -> SchedulerInput:
        try:
            return self._inputs.receive_nowait()
        except anyio.WouldBlock:
            wakeup = self._scheduler.next_wakeup()
        if wakeup is None:
            return await self._inputs.receive()
        with anyio.move_on_after(max(0.0, wakeup - time.monotonic())):
            return await self._inputs.receive()
        return Tick()

    async def _write(self, tasks: TaskGroup) -> None:
        while self._finished is None:
            await self._wake_writer.wait()
            self._wake_writer = anyio.Event()
            batch, self._queued = self._queued, []
            facts = [fact for command in batch if (fact := self._fact(command))]
            # A commit is never cancelled half-way: what is durable must be known to be.
            with anyio.CancelScope(shield=True):
                kept = await self._journal.append(facts) if facts else []
            for recorded in kept:
                self._note(recorded.event)
                self._show(recorded)
            for command in batch:
                if isinstance(command, StartAttempt):
                    self._start(command)
                elif isinstance(command, StopAttempt):
                    tasks.start_soon(self._stop, command)

    def _fact(self, command: Command) -> Fact | None:
        """The fact of a command, completed with what only the shell knows."""
        if isinstance(command, FinishTask):
            return TaskFinished(
                status=command.status,
                error=command.error,
                result=aggregate(
                    self._plan, self._outputs, self._scheduler.statuses, self._files()
                ),
            )
        if not isinstance(command, Record):
            return None
        fact = command.fact
        if isinstance(fact, AttemptStarted):
            live = _LiveAttempt(session_id=str(uuid.uuid4()))
            self._live[fact.subtask_id, fact.attempt] = live
            return structs.replace(fact, session_id=live.session_id)
        if isinstance(fact, AttemptFinished) and fact.output is not None:
            self._outputs[fact.subtask_id] = fact.output
        return fact

    def _note(self, fact: Event) -> None:
        """Remember what later attempts need, now that the fact is durable."""
        if isinstance(fact, AttemptFinished):
            live = self._live.pop((fact.subtask_id, fact.attempt), None)
            if live:
                live.ended.set()
            if fact.error:
                failure = messages.PreviousAttempt(
                    attempt=fact.attempt, agent_id=fact.agent_id, error=fact.error
                )
                self._failures.setdefault(fact.subtask_id, []).append(failure)
        elif isinstance(fact, TaskFinished):
            self._finished = fact

    def _start(self, command: StartAttempt) -> None:
        live = self._live.get((command.subtask_id, command.attempt))
        if live is None:
            return  # it ended before it was sent: its agent was lost meanwhile
        live.started_at = time.monotonic()
        subtask = self._subtasks[command.subtask_id]
        message = messages.RunAttempt(
            task_id=self._task_id,
            task_description=self._description,
            subtask=subtask,
            attempt=command.attempt,
            session_id=live.session_id,
            workspace=str(self._folder / subtask.id),
            database_schema=self._database_schema,
            dependencies=tuple(map(self._handed_over, subtask.dependencies)),
            previous_attempts=tuple(self._failures.get(subtask.id, ())),
            inputs_dir=str(self._folder / INPUTS_FOLDER) if self._has_inputs else None,
        )
        try:
            self._pool.send(command.agent_id, message)
        except ProtocolError as error:  # dependencies' results too large together
            done = messages.AttemptDone(
                subtask_id=subtask.id,
                attempt=command.attempt,
                failure=FailureKind.INTERNAL,
                error=error.message,
            )
            self.feed(self._judged(command.agent_id, done))

    async def _stop(self, command: StopAttempt) -> None:
        """Interrupt the attempt; an agent that does not obey in time is ended."""
        live = self._live.get((command.subtask_id, command.attempt))
        if live is None:
            return
        message = messages.StopAttempt(
            subtask_id=command.subtask_id,
            attempt=command.attempt,
            reason=command.reason,
        )
        self._pool.send(command.agent_id, message)
        with anyio.move_on_after(self._stop_grace_s):
            await live.ended.wait()
        if not live.ended.is_set():
            self._pool.kill(command.agent_id, f"it did not stop: {command.reason}")

    def _judged(self, agent_id: str, done: messages.AttemptDone) -> AttemptFinished:
        """Decide what an attempt came to. Only here does a result count."""
        output, failure, error = None, done.failure, done.error
        if done.result is not None:
            output_dir = self._output_dir(done.subtask_id)
            output, faults = check_result(done.result, PurePosixPath(output_dir))
            if output is None:
                failure = FailureKind.NO_RESULT
                error = "result.json is not usable: " + "; ".join(faults)
            elif output["success"] is not True:
                failure = FailureKind.REPORTED_FAILURE
                error = output["summary"] or "result.json says success: false"
        elif failure is None:
            failure = FailureKind.NO_RESULT
        live = self._live.get((done.subtask_id, done.attempt))
        status = Status.COMPLETED
        if failure is not None:
            cancelled = failure is FailureKind.CANCELLED
            status = Status.CANCELLED if cancelled else Status.FAILED
        return AttemptFinished(
            subtask_id=done.subtask_id,
            attempt=done.attempt,
            agent_id=agent_id,
            status=status,
            output=output if failure is None else None,
            error=error,
            failure=failure,
            execution_time=time.monotonic() - live.started_at if live else 0.0,
            usage=done.usage,
        )

    def _handed_over(self, dependency: str) -> messages.DependencyResult:
        return messages.DependencyResult(
            subtask_id=dependency,
            description=self._subtasks[dependency].description,
            output=self._outputs[dependency],
            output_dir=str(self._output_dir(dependency)),
        )

    def _output_dir(self, subtask_id: str) -> Path:
        return self._folder / subtask_id / "output"

    def _files(self) -> dict[str, list[str]]:
        """Every completed subtask's files, absolute, as its result names them."""
        files: dict[str, list[str]] = {}
        for subtask_id, output in self._outputs.items():
            folder = self._output_dir(subtask_id)
            paths = [
                inside_output(path, PurePosixPath(folder))
                for path in output["files_created"]
            ]
            files[subtask_id] = [str(folder / path) for path in paths if path]
        return files

    def _show_now(self, event: Event) -> None:
        self._show(
            Recorded(seq=None, at=datetime.now(UTC), task_id=self._task_id, event=event)
        )
