"""The supervisor: plans a task, runs it on its agents and records it."""

import secrets
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import anyio
from anyio import to_thread

from mas.config import Config
from mas.core.events import (
    AgentLost,
    AgentReady,
    Event,
    PlanAccepted,
    Recorded,
    TaskCreated,
    TaskFinished,
    TaskSuspended,
    Waiting,
)
from mas.core.scheduler import Scheduler
from mas.errors import MasError, StoreError
from mas.model import AgentSpec, LogRecord, Status, Task
from mas.supervisor.board import BoardWriter
from mas.supervisor.engine import Engine
from mas.supervisor.folder import check_request, copy_inputs, remove_folder
from mas.supervisor.journal import Journal
from mas.supervisor.logs import LogWriter
from mas.supervisor.pool import AGENT_MODULE, AgentPool
from mas.supervisor.services import Services, open_services
from mas.wire import messages

_CLOSING_DEADLINE_S = 2.0


class Supervisor:
    """Runs one task; ``show`` gets every event as soon as it is durable."""

    def __init__(
        self,
        config: Config,
        show: Callable[[Recorded], None],
        *,
        agent_module: str = AGENT_MODULE,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.task_id = str(uuid.uuid4())
        self._config = config
        self._show_outside = show
        self._agent_module = agent_module
        self._engine: Engine | None = None
        self._journal: Journal | None = None
        self._board: BoardWriter | None = None
        self._logs: LogWriter | None = None
        self._agent_events: list[AgentReady | AgentLost] = []
        self._work = anyio.CancelScope()
        self._interruption: str | None = None
        self._over = False

    @property
    def folder(self) -> Path:
        """Where this task's workspaces are."""
        return self._config.files.path / self.task_id

    def interrupt(self, reason: str) -> None:
        """Stop cleanly and keep the task: ``run`` returns ``TaskSuspended``."""
        self._interruption = reason
        self._work.cancel()

    async def run(
        self, description: str, inputs: Sequence[Path] = ()
    ) -> TaskFinished | TaskSuspended:
        """Plan the task, run it, and return how it ended, with that fact durable.

        Nothing is recorded before the plan is accepted. When this returns or raises,
        no process that it started is left, but for the shared keeper.
        """
        inputs = [path.resolve() for path in inputs]
        check_request(description, inputs, self._config)
        self._wait_for("the servers")
        async with open_services(self._config) as services:
            return await self._run_on(services, description, inputs)

    async def _run_on(
        self, services: Services, description: str, inputs: Sequence[Path]
    ) -> TaskFinished | TaskSuspended:
        self._logs = LogWriter(services.log_store, report=self._wait_for)
        self._board = BoardWriter(
            services.board,
            self.id,
            ttl_s=self._config.supervisor.agent_ttl_s,
            report=self._wait_for,
        )
        pool = AgentPool(
            self._config,
            self.id,
            configure=lambda spec: self._configure(spec, services),
            changed=self._agent_changed,
            received=self._received,
            module=self._agent_module,
        )
        outcome: TaskFinished | TaskSuspended | None = None
        failure: MasError | ExceptionGroup[Exception] | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._board.write)
                tasks.start_soon(self._logs.write)
                tasks.start_soon(pool.run, self._config.roster)
                try:
                    outcome = await self._plan_and_run(
                        services, pool, description, inputs
                    )
                except (MasError, ExceptionGroup) as error:
                    failure = error
                await pool.stop()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(_CLOSING_DEADLINE_S, shield=True):
                await self._logs.close()
                await self._board.remove_all()
        if failure is not None:
            self._show_failure(failure)
            raise failure
        assert outcome is not None
        return outcome

    async def _plan_and_run(
        self,
        services: Services,
        pool: AgentPool,
        description: str,
        inputs: Sequence[Path],
    ) -> TaskFinished | TaskSuspended:
        try:
            with self._work:
                self._wait_for("the plan")
                facts = await self._plan(description, inputs)
                await to_thread.run_sync(copy_inputs, inputs, self.folder)
                return await self._execute(services, pool, *facts)
        finally:
            if self._journal is None:
                remove_folder(self.folder)
        if self._engine and self._engine.finished:
            return self._engine.finished  # the interruption came too late
        return await self._suspend()

    async def _plan(
        self, description: str, inputs: Sequence[Path]
    ) -> tuple[TaskCreated, PlanAccepted]:
        # Over a second of CPU to import, so not before the agents have been started.
        planner = await to_thread.run_sync(
            import_module, "mas.planner", abandon_on_cancel=True
        )
        planned = await planner.plan_task(description, inputs, self._config)
        created = TaskCreated(
            description=description, inputs=tuple(path.name for path in inputs)
        )
        return created, PlanAccepted(
            plan=planned.plan, warning=planned.warning, usage=planned.usage
        )

    async def _execute(
        self,
        services: Services,
        pool: AgentPool,
        created: TaskCreated,
        accepted: PlanAccepted,
    ) -> TaskFinished:
        schema = await services.agents_database.create_task_schema(self.task_id)
        limits = self._config.limits
        now = datetime.now(UTC)
        task = Task(
            id=self.task_id,
            description=created.description,
            status=Status.IN_PROGRESS,
            plan=accepted.plan,
            created_at=now,
            updated_at=now,
            owner=self.id,
            owner_epoch=1,
        )
        self._journal, recorded = await Journal.create(
            services.store, task, (created, accepted)
        )
        for record in recorded:
            self._show(record)
        self._engine = Engine(
            task_id=self.task_id,
            description=created.description,
            plan=accepted.plan,
            folder=self.folder,
            database_schema=schema,
            has_inputs=bool(created.inputs),
            scheduler=Scheduler(
                accepted.plan,
                self._config.roster,
                max_attempts=limits.max_attempts,
                attempt_timeout_s=limits.attempt_timeout_s,
                task_timeout_s=limits.task_timeout_s,
            ),
            journal=self._journal,
            pool=pool,
            show=self._show,
            stop_grace_s=self._config.supervisor.shutdown_grace_s,
        )
        for event in self._agent_events:
            self._engine.feed(event)
        return await self._engine.run()

    async def _suspend(self) -> TaskSuspended:
        """Record that the work stops here; what was finished stays finished."""
        reason = self._interruption or "stopped"
        if self._journal is None:
            suspended = TaskSuspended(reason=reason, hint="nothing was recorded yet")
            self._show_now(suspended)
            return suspended
        suspended = TaskSuspended(
            reason=reason, hint=f"what is done: mas show {self.task_id}"
        )
        try:
            with anyio.fail_after(_CLOSING_DEADLINE_S):
                for recorded in await self._journal.append([suspended]):
                    self._show(recorded)
        except (TimeoutError, StoreError):
            self._show_now(suspended)  # it was stopped all the same
        return suspended

    def _show_failure(self, failure: MasError | ExceptionGroup[Exception]) -> None:
        """A run that was recorded ends with a word on why it stops."""
        if self._journal is not None:
            told = failure.message if isinstance(failure, MasError) else "it broke off"
            hint = f"what is done: mas show {self.task_id}"
            self._show_now(TaskSuspended(reason=told, hint=hint))

    def _configure(self, spec: AgentSpec, services: Services) -> messages.Configure:
        claude = self._config.claude
        config_dir = self._config.home / "claude"
        config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return messages.Configure(
            supervisor=self.id,
            claude=messages.ClaudeSettings(
                model=spec.model or claude.model,
                permission_mode=spec.permission_mode or claude.permission_mode,
                max_turns=claude.max_turns,
                inactivity_timeout_s=self._config.limits.inactivity_timeout_s,
                config_dir=str(config_dir),
                environment=self._config.credentials.environment(),
            ),
            services=messages.ServiceSettings(
                database_dsn=services.agents_database.dsn,
                redis_url=services.addresses.redis_url,
                embedding_url=self._config.embeddings.url,
            ),
            heartbeat_s=self._config.supervisor.heartbeat_s,
        )

    def _agent_changed(self, event: AgentReady | AgentLost) -> None:
        assert self._board is not None
        if isinstance(event, AgentReady):
            self._board.ready(event)
        else:
            self._board.lost(event)
        if self._engine:
            self._engine.feed(event)
        else:
            self._agent_events.append(event)  # the engine comes after the plan

    def _received(self, agent_id: str, message: messages.FromAgent) -> None:
        assert self._board is not None and self._logs is not None
        if isinstance(message, messages.Heartbeat):
            self._board.heartbeat(agent_id, message)
        elif isinstance(message, messages.Log):
            record = LogRecord(
                at=message.at,
                agent_id=agent_id,
                level=message.level,
                message=message.message,
                task_id=self.task_id if self._journal else None,
                subtask_id=message.subtask_id,
            )
            self._logs.add(record)
        elif self._engine:
            self._engine.received(agent_id, message)

    def _wait_for(self, reason: str) -> None:
        self._show_now(Waiting(reason=reason))

    def _show_now(self, event: Event) -> None:
        at = datetime.now(UTC)
        self._show(Recorded(seq=None, at=at, task_id=self.task_id, event=event))

    def _show(self, recorded: Recorded) -> None:
        if self._over:
            return  # what ended the run is the last thing shown of it
        self._over = isinstance(recorded.event, TaskFinished | TaskSuspended)
        if self._board:
            self._board.show(recorded)
        self._show_outside(recorded)
