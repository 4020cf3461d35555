"""The shell of ``core.scheduler``: performs its commands, feeds events back.

Two tasks. One takes what happened, asks the scheduler and queues its commands in order.
The other takes all that is queued, makes the facts durable in one commit, and only then
shows them and performs their effects; what is queued meanwhile is the next batch. So
the commit sets the pace, without a timer.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup
from msgspec import Struct

from mas.core.events import (
    AgentLost,
    AttemptFinished,
    AttemptHeld,
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
    SuspendTask,
    TaskCreated,
    TaskFinished,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.errors import ProtocolError
from mas.gateway.exchange import Caller
from mas.model import FailureKind, Plan, Usage
from mas.store.agents_db import task_schema
from mas.supervisor.claude import Claude
from mas.supervisor.folder import INPUTS_FOLDER
from mas.supervisor.journal import Journal
from mas.supervisor.pool import AgentPool
from mas.supervisor.results import CutOff, Results
from mas.wire import messages

_OWNER_GONE = "its supervisor was gone before it ended"


class Job(Struct, frozen=True, kw_only=True):
    """The task as its attempts need it."""

    task_id: str
    description: str
    plan: Plan
    folder: Path
    """Absolute; each subtask's workspace is below it."""
    inputs_dir: Path | None
    """The copies of the user's files."""
    database_schema: str


def job_of(task_id: str, created: TaskCreated, plan: Plan) -> Job:
    """The task as its first fact and its plan tell it."""
    folder = Path(created.folder)
    return Job(
        task_id=task_id,
        description=created.description,
        plan=plan,
        folder=folder,
        inputs_dir=folder / INPUTS_FOLDER if created.inputs else None,
        database_schema=task_schema(task_id),
    )


@dataclass
class _LiveAttempt:
    started: AttemptStarted
    sent_at: float = field(default_factory=time.monotonic)
    ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def execution_time(self) -> float:
        return time.monotonic() - self.sent_at


class Engine:
    """Runs one task's plan on the pool's agents until it is finished or stopped.

    With ``history``, the facts that are recorded already, it goes on where they end;
    the scheduler must know them too.
    """

    def __init__(
        self,
        job: Job,
        *,
        scheduler: Scheduler,
        journal: Journal,
        pool: AgentPool,
        claude: Claude,
        show: Callable[[Recorded], None],
        stop_grace_s: float,
        history: Iterable[Recorded] = (),
    ) -> None:
        self._job = job
        self._subtasks = {subtask.id: subtask for subtask in job.plan.subtasks}
        self._scheduler = scheduler
        self._journal = journal
        self._pool = pool
        self._claude = claude
        self._show = show
        self._stop_grace_s = stop_grace_s
        self._push, self._inputs = anyio.create_memory_object_stream[SchedulerInput](
            math.inf  # at most one result an agent, and the coming and going of agents
        )
        self._queued: list[Command] = []
        self._wake_writer = anyio.Event()
        self._live: dict[tuple[str, int], _LiveAttempt] = {}
        self._agentless: set[tuple[str, int]] = set()
        """Attempts whose agent was lost: one of its name may be there again."""
        self._results = Results(job.plan, job.folder)
        self._cut_off = self._recall(history)
        self._finished: TaskFinished | None = None
        self._suspended: SuspendTask | None = None

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
                )
            )
        elif isinstance(message, messages.AttemptDone):
            if live := self._live.get((message.subtask_id, message.attempt)):
                live.ended.set()
            self._claude.revoke(message.subtask_id, message.attempt)
            self._claude.reconcile(message.subtask_id, message.attempt, message.usage)
            self.feed(self._judged(agent_id, message))

    def used(self, subtask_id: str, attempt: int, usage: Usage) -> None:
        """The attempt's calls of Claude took so much, all together."""
        if live := self._live.get((subtask_id, attempt)):
            self._show_now(
                AttemptProgress(
                    subtask_id=subtask_id,
                    attempt=attempt,
                    agent_id=live.started.agent_id,
                    activity="",
                    usage=usage,
                )
            )

    def held(self, subtask_id: str, attempt: int, is_held: bool) -> None:
        """The attempt waits for its turn at Claude, or does not any more."""
        if live := self._live.get((subtask_id, attempt)):
            self.feed(AttemptHeld(subtask_id, attempt, is_held))
            self._show_now(
                AttemptProgress(
                    subtask_id=subtask_id,
                    attempt=attempt,
                    agent_id=live.started.agent_id,
                    activity="",
                    held=is_held,
                )
            )
            message = messages.HoldAttempt(
                subtask_id=subtask_id, attempt=attempt, is_held=is_held
            )
            self._pool.send(live.started.agent_id, message)

    async def run(self) -> TaskFinished | SuspendTask:
        """Return when the task is finished, and that durable, or cannot go on now."""
        with self._inputs, self._push:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, tasks)
                await self._decide()
        outcome = self._finished or self._suspended
        assert outcome is not None
        return outcome

    async def _decide(self) -> None:
        self._handle(Tick())
        for attempt in self._cut_off:
            self._handle(await to_thread.run_sync(self._results.judge_left, attempt))
        while not self._scheduler.is_over:
            event = await self._next_input()
            left = await self._left_by(event) if isinstance(event, AgentLost) else None
            self._handle(event, left)

    def _handle(
        self, event: SchedulerInput, left: AttemptFinished | None = None
    ) -> None:
        commands = self._scheduler.handle(event, time.monotonic(), left=left)
        if commands:
            self._queued += commands
            self._wake_writer.set()

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

    async def _left_by(self, lost: AgentLost) -> AttemptFinished | None:
        """What the lost agent's attempt came to, by the files that it left."""
        for running in self._scheduler.live_attempts:
            if running.agent_id != lost.agent_id:
                continue
            key = running.subtask_id, running.attempt
            self._agentless.add(key)
            live = self._live.get(key)
            if live is None:
                return None
            live.ended.set()
            cut_off = CutOff(
                started=live.started,
                error=f"{lost.agent_id} was lost: {lost.error}",
                execution_time=live.execution_time,
                usage=self._claude.usage_of(*key),
            )
            self._claude.revoke(*key)
            return await to_thread.run_sync(self._results.judge_left, cut_off)
        return None

    async def _write(self, tasks: TaskGroup) -> None:
        while self._finished is None and self._suspended is None:
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
                elif isinstance(command, SuspendTask):
                    self._suspended = command

    def _fact(self, command: Command) -> Fact | None:
        """The fact of a command, completed with what only the shell knows."""
        if isinstance(command, FinishTask):
            return TaskFinished(
                status=command.status,
                error=command.error,
                result=self._results.of_task(self._scheduler.statuses)
                | {"usage": self._claude.spent()},
            )
        if not isinstance(command, Record):
            return None
        fact = command.fact
        if isinstance(fact, AttemptStarted):
            self._live[fact.subtask_id, fact.attempt] = _LiveAttempt(fact)
        self._results.note(fact)
        return fact

    def _note(self, fact: Event) -> None:
        """Take note that the fact is durable."""
        if isinstance(fact, AttemptFinished):
            self._agentless.discard((fact.subtask_id, fact.attempt))
            self._claude.revoke(fact.subtask_id, fact.attempt)
            if live := self._live.pop((fact.subtask_id, fact.attempt), None):
                live.ended.set()
        elif isinstance(fact, TaskFinished):
            self._finished = fact

    def _start(self, command: StartAttempt) -> None:
        key = command.subtask_id, command.attempt
        live = self._live.get(key)
        if live is None or key in self._agentless:
            return  # its agent was lost before the start was recorded
        live.sent_at = time.monotonic()
        job = self._job
        subtask = self._subtasks[command.subtask_id]
        message = messages.RunAttempt(
            task_id=job.task_id,
            task_description=job.description,
            subtask=subtask,
            attempt=command.attempt,
            session_id=live.started.session_id or "",
            resumes=live.started.resumes,
            workspace=str(job.folder / subtask.id),
            database_schema=job.database_schema,
            dependencies=tuple(map(self._results.handed_over, subtask.dependencies)),
            previous_attempts=self._results.failures(subtask.id),
            inputs_dir=str(job.inputs_dir) if job.inputs_dir else None,
            token=self._claude.token(self._caller(command)),
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

    def _caller(self, command: StartAttempt) -> Caller:
        subtask = self._subtasks[command.subtask_id]
        return Caller(
            task_id=self._job.task_id,
            agent_id=command.agent_id,
            subtask_id=subtask.id,
            attempt=command.attempt,
            priority=subtask.priority,
            workspace=str(self._job.folder / subtask.id),
        )

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
        live = self._live.get((done.subtask_id, done.attempt))
        execution_time = live.execution_time if live else 0.0
        usage = self._claude.usage_of(done.subtask_id, done.attempt)
        return self._results.judge(
            agent_id, done, execution_time=execution_time, usage=usage
        )

    def _recall(self, history: Iterable[Recorded]) -> list[CutOff]:
        """Take in what is recorded; return the attempts that it leaves open."""
        open_attempts: dict[tuple[str, int], CutOff] = {}
        for recorded in history:
            match recorded.event:
                case AttemptStarted() as begun:
                    cut_off = CutOff(
                        started=begun,
                        error=_OWNER_GONE,
                        since=recorded.at,
                        usage=self._claude.usage_of(begun.subtask_id, begun.attempt),
                    )
                    open_attempts[begun.subtask_id, begun.attempt] = cut_off
                case AttemptFinished() as ended:
                    open_attempts.pop((ended.subtask_id, ended.attempt), None)
                    self._results.note(ended)
                case _:
                    pass
        return list(open_attempts.values())

    def _show_now(self, event: Event) -> None:
        at = datetime.now(UTC)
        task_id = self._job.task_id
        self._show(Recorded(seq=None, at=at, task_id=task_id, event=event))
