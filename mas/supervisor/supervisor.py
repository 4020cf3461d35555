"""The supervisor: plans a task, or takes one over, and runs it on its agents."""

import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from mas.config import Config
from mas.core.events import (
    CancelRequested,
    PlanAccepted,
    Recorded,
    SuspendTask,
    TaskCreated,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
    fact_of,
)
from mas.core.scheduler import Scheduler
from mas.errors import MasError, OutageError, OwnershipLostError, StoreError
from mas.model import Plan, Status, Task
from mas.store.agents_db import task_schema
from mas.store.commands import watch_cancel
from mas.supervisor.agents import agent_configuration
from mas.supervisor.engine import Engine, Job
from mas.supervisor.folder import (
    INPUTS_FOLDER,
    check_ready,
    check_request,
    copy_inputs,
    remove_folder,
)
from mas.supervisor.journal import Journal
from mas.supervisor.pool import AGENT_MODULE, AgentPool
from mas.supervisor.relay import Relay
from mas.supervisor.services import Services, open_services
from mas.supervisor.takeover import (
    Inheritance,
    find_unowned,
    owner_name,
    take_over,
)

_CLOSING_DEADLINE_S = 2.0
_NOTHING_RECORDED = "nothing was recorded yet"

_Error = TypeVar("_Error", bound=Exception)
Outcome = TaskFinished | TaskSuspended
_Work = Callable[[Services, AgentPool], Awaitable[Outcome]]


class Supervisor:
    """Runs one task; ``show`` gets every event as soon as it is durable.

    ``recall`` gets the facts of former runs when a task is gone on with. ``script`` is
    the name under which the task's first fact says who plays Claude.
    """

    def __init__(
        self,
        config: Config,
        show: Callable[[Recorded], None],
        *,
        recall: Callable[[Recorded], None] = lambda recorded: None,
        script: str | None = None,
        agent_module: str = AGENT_MODULE,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.task_id = str(uuid.uuid4())
        self._config = config
        self._relay = Relay(self.task_id, show)
        self._recall = recall
        self._script = script
        self._agent_module = agent_module
        self.opened = anyio.Event()
        """Set once the servers are there: until then there is nothing to stop."""
        self._services: Services | None = None
        self._agents: AgentPool | None = None
        self._engine: Engine | None = None
        self._journal: Journal | None = None
        self._is_recorded = False
        self._work = anyio.CancelScope()
        self._interruption: str | None = None

    @property
    def folder(self) -> Path:
        """Where a new task's workspaces are."""
        return self._config.files.path / self.task_id

    def interrupt(self, reason: str) -> None:
        """Stop cleanly and keep the task: ``run`` returns ``TaskSuspended``."""
        self._interruption = reason
        if self._services:
            self._services.store.limit_outage(_CLOSING_DEADLINE_S)
        if self._agents:
            self._agents.ask_to_end()  # while the last facts are written
        self._work.cancel()

    async def run(self, description: str, inputs: Sequence[Path] = ()) -> Outcome:
        """Plan the task, run it, and return how it ended, with that fact durable.

        Nothing is recorded before the plan is accepted. When this returns or raises,
        no process that it started is left, but for the shared keeper.
        """
        inputs = [path.resolve() for path in inputs]
        check_request(description, inputs, self._config)
        return await self._supervise(partial(self._begin, description, inputs))

    async def resume(self, task: str) -> Outcome:
        """Go on with a task whose owner is gone, from its journal alone.

        ``task`` is an id, the beginning of one, or ``-``. UsageError where there is
        nothing to go on with. Otherwise as ``run``.
        """
        check_ready(self._config)
        self.task_id = self._relay.task_id = task
        self._is_recorded = True
        return await self._supervise(partial(self._go_on, task))

    async def cancel(self, task: str, reason: str) -> Outcome:
        """End a task whose owner is gone as cancelled; no agent is started."""
        async with open_services(self._config, on_outage=self._outage) as services:
            self._services = services
            ours = await self._adopt(task, services, needs_folder=False)
            job = self._job(ours.created, ours.plan)
            self._relay.feed(CancelRequested(reason))
            idle = self._pool(services)
            return await self._execute(services, idle, job, ours.recorded)

    async def _supervise(self, work: _Work) -> Outcome:
        """Do the work with all that it needs running around it."""
        self._relay.wait_for("the servers")
        async with open_services(self._config, on_outage=self._outage) as services:
            self._services = services
            self.opened.set()
            return await self._with_agents(services, work)

    async def _with_agents(self, services: Services, work: _Work) -> Outcome:
        pool = self._agents = self._pool(services)
        outcome: Outcome | None = None
        failure: MasError | ExceptionGroup[Exception] | None = None
        try:
            async with anyio.create_task_group() as tasks:
                self._relay.start(tasks, services, self._config, self.id)
                tasks.start_soon(pool.run, self._config.roster)
                try:
                    outcome = await self._interruptibly(services, pool, work)
                except (MasError, ExceptionGroup) as error:
                    failure = error
                await pool.stop()
                tasks.cancel_scope.cancel()
        finally:
            await self._relay.close()
        if failure is not None:
            self._show_failure(failure)
            raise failure
        assert outcome is not None
        return outcome

    def _pool(self, services: Services) -> AgentPool:
        return AgentPool(
            self._config,
            self.id,
            configure=partial(agent_configuration, self._config, self.id, services),
            changed=self._relay.agent_changed,
            received=self._relay.received,
            module=self._agent_module,
        )

    async def _interruptibly(
        self, services: Services, pool: AgentPool, work: _Work
    ) -> Outcome:
        outage: OutageError | None = None
        try:
            with self._work:
                return await work(services, pool)
        except (OutageError, ExceptionGroup) as error:
            outage = _cause(error, OutageError)
            if outage is None or self._journal is None:
                raise
        if self._engine and self._engine.finished:
            return self._engine.finished  # the interruption came too late
        suspended = TaskSuspended(
            reason=self._interruption or (outage.message if outage else "stopped"),
            hint=self._resume_hint() if self._is_recorded else _NOTHING_RECORDED,
            interrupted=self._interruption is not None,
        )
        if outage is None and self._journal:
            return await self._suspend(suspended)
        self._relay.show_now(suspended)
        return suspended

    async def _begin(
        self,
        description: str,
        inputs: Sequence[Path],
        services: Services,
        pool: AgentPool,
    ) -> Outcome:
        try:
            self._relay.wait_for("the plan")
            created, accepted = await self._plan(description, inputs)
            await to_thread.run_sync(copy_inputs, inputs, self.folder)
            now = datetime.now(UTC)
            task = Task(
                id=self.task_id,
                description=description,
                status=Status.IN_PROGRESS,
                plan=accepted.plan,
                created_at=now,
                updated_at=now,
                owner=owner_name(self.id),
                owner_epoch=1,
            )
            await services.create_task_schema(self.task_id)
        except BaseException:
            remove_folder(self.folder)
            raise
        # From here on it may be recorded, whether or not the answer comes.
        self._is_recorded = True
        with anyio.CancelScope(shield=True):
            self._journal, recorded = await Journal.create(
                services.store, task, (created, accepted)
            )
        for record in recorded:
            self._relay.show(record)
        job = self._job(created, accepted.plan)
        return await self._execute(services, pool, job)

    async def _plan(
        self, description: str, inputs: Sequence[Path]
    ) -> tuple[TaskCreated, PlanAccepted]:
        # Over a second of CPU to import, so not before the agents have been started.
        planner = await to_thread.run_sync(
            import_module, "mas.planner", abandon_on_cancel=True
        )
        planned = await planner.plan_task(description, inputs, self._config)
        created = TaskCreated(
            description=description,
            inputs=tuple(path.name for path in inputs),
            folder=str(self.folder),
            script=self._script,
        )
        return created, PlanAccepted(
            plan=planned.plan, warning=planned.warning, usage=planned.usage
        )

    async def _go_on(self, task: str, services: Services, pool: AgentPool) -> Outcome:
        ours = await self._adopt(task, services, needs_folder=True)
        await services.create_task_schema(self.task_id)
        job = self._job(ours.created, ours.plan)
        return await self._execute(services, pool, job, ours.recorded)

    async def _adopt(
        self, task: str, services: Services, *, needs_folder: bool
    ) -> Inheritance:
        """Own a task that nobody works on, and record that."""
        found = await find_unowned(services.store, task)
        ours = await take_over(
            services.store, found, self.id, needs_folder=needs_folder
        )
        self.task_id = self._relay.task_id = found.id
        await self._clear_board(services, ours)
        for recorded in ours.recorded:
            self._recall(recorded)
        self._journal = Journal(
            services.store, found.id, epoch=ours.epoch, seq=len(ours.recorded)
        )
        resumed = TaskResumed(owner=owner_name(self.id), epoch=ours.epoch)
        for recorded in await self._journal.append([resumed]):
            self._relay.show(recorded)
        return ours

    async def _clear_board(self, services: Services, ours: Inheritance) -> None:
        try:
            for supervisor in ours.former:
                await services.board.remove_all_of(supervisor)
        except StoreError as error:
            self._relay.wait_for(f"{error.message}; the work goes on without")

    def _job(self, created: TaskCreated, plan: Plan) -> Job:
        folder = Path(created.folder)
        return Job(
            task_id=self.task_id,
            description=created.description,
            plan=plan,
            folder=folder,
            inputs_dir=folder / INPUTS_FOLDER if created.inputs else None,
            database_schema=task_schema(self.task_id),
        )

    async def _execute(
        self,
        services: Services,
        pool: AgentPool,
        job: Job,
        history: Sequence[Recorded] = (),
    ) -> Outcome:
        assert self._journal is not None
        limits = self._config.limits
        self._engine = Engine(
            job,
            scheduler=Scheduler(
                job.plan,
                self._config.roster,
                new_session_id=lambda: str(uuid.uuid4()),
                max_attempts=limits.max_attempts,
                attempt_timeout_s=limits.attempt_timeout_s,
                task_timeout_s=limits.task_timeout_s,
                history=map(fact_of, history),
            ),
            journal=self._journal,
            pool=pool,
            show=self._relay.show,
            stop_grace_s=self._config.supervisor.shutdown_grace_s,
            history=history,
        )
        self._relay.attach(self._engine)
        async with anyio.create_task_group() as tasks:
            addresses = services.addresses
            watch = partial(watch_cancel, revive=addresses.revive_postgres)
            tasks.start_soon(watch, addresses.postgres_dsn, job.task_id, self._cancel)
            outcome = await self._engine.run()
            tasks.cancel_scope.cancel()
        if isinstance(outcome, SuspendTask):
            return await self._suspend(
                TaskSuspended(reason=outcome.reason, hint=outcome.hint)
            )
        return outcome

    def _cancel(self, reason: str) -> None:
        self._relay.feed(CancelRequested(reason))

    async def _suspend(self, suspended: TaskSuspended) -> TaskSuspended:
        """Record that the work stops here; what was finished stays finished."""
        assert self._journal is not None
        try:
            with anyio.fail_after(_CLOSING_DEADLINE_S, shield=True):
                for recorded in await self._journal.append([suspended]):
                    self._relay.show(recorded)
        except (TimeoutError, StoreError):
            self._relay.show_now(suspended)  # it was stopped all the same
        return suspended

    def _show_failure(self, failure: MasError | ExceptionGroup[Exception]) -> None:
        """A run that was recorded ends with a word on why it stops."""
        if self._journal is not None:
            cause = _cause(failure, MasError)
            told = cause.message if cause else "it broke off"
            lost = isinstance(cause, OwnershipLostError)
            hint = cause.hint if cause and lost else self._resume_hint()
            self._relay.show_now(TaskSuspended(reason=told, hint=hint))

    def _resume_hint(self) -> str:
        return f"go on with mas resume {self.task_id}"

    def _outage(self, reason: str | None) -> None:
        self._relay.wait_for(reason or "")


def _cause(error: Exception, kind: type[_Error]) -> _Error | None:
    """The first error of this kind, however many task groups are around it."""
    if isinstance(error, kind):
        return error
    if isinstance(error, ExceptionGroup):
        return next((it for e in error.exceptions if (it := _cause(e, kind))), None)
    return None
