"""The supervisor: plans a task, or takes one over, and runs it on its agents."""

import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec import structs

from mas.config import Config
from mas.core.events import (
    CancelRequested,
    Recorded,
    SuspendTask,
    TaskCreated,
    TaskFinished,
    TaskSuspended,
    fact_of,
)
from mas.core.scheduler import Scheduler
from mas.errors import MasError, OutageError, StoreError
from mas.gateway.exchange import Upstream
from mas.gateway.forward import forwarding
from mas.store.commands import watch_cancel
from mas.supervisor.agents import agent_configuration
from mas.supervisor.breaking import broken_off, cause_of
from mas.supervisor.claude import NOBODY, Allowance, Claude, open_claude
from mas.supervisor.engine import Engine, Job, job_of
from mas.supervisor.folder import (
    check_ready,
    check_request,
    copy_inputs,
    remove_folder,
)
from mas.supervisor.journal import Journal
from mas.supervisor.planning import new_task, plan
from mas.supervisor.pool import AGENT_MODULE, AgentPool
from mas.supervisor.relay import Relay
from mas.supervisor.services import Services, open_services
from mas.supervisor.takeover import (
    Inheritance,
    allowance_of,
    calls_of_former_runs,
    clear_board,
    find_unowned,
    owner_name,
    resumed_by,
    take_over,
)

_CLOSING_DEADLINE_S = 2.0
_NOTHING_RECORDED = "nothing was recorded yet"

Outcome = TaskFinished | TaskSuspended
OpenUpstream = Callable[[], AbstractAsyncContextManager[Upstream]]
_Work = Callable[[Services, AgentPool], Awaitable[Outcome]]


class Supervisor:
    """Runs one task; ``show`` gets every event as soon as it is durable.

    ``recall`` gets the facts of former runs when a task is gone on with. ``upstream``
    opens what answers in Claude's place, and ``script`` is the name under which the
    task's first fact says what that is.
    """

    def __init__(
        self,
        config: Config,
        show: Callable[[Recorded], None],
        *,
        recall: Callable[[Recorded], None] = lambda recorded: None,
        upstream: OpenUpstream | None = None,
        script: str | None = None,
        agent_module: str = AGENT_MODULE,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.task_id = str(uuid.uuid4())
        self._config = config
        self._relay = Relay(self.task_id, show)
        self._recall = recall
        self._upstream = upstream
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
        self._stop: TaskSuspended | None = None
        self._claude: Claude | None = None

    @property
    def folder(self) -> Path:
        """Where a new task's workspaces are."""
        return self._config.files.path / self.task_id

    def interrupt(self, reason: str) -> None:
        """Stop cleanly and keep the task: ``run`` returns ``TaskSuspended``."""
        self._stop_for(TaskSuspended(reason=reason, hint="", interrupted=True))

    def _stop_for(self, suspended: TaskSuspended) -> None:
        self._stop = self._stop or suspended
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
        check_request(description, inputs)
        check_ready(self._config, asks_claude=self._upstream is None)
        return await self._supervise(partial(self._begin, description, inputs))

    async def resume(self, task: str, allowance: Allowance | None = None) -> Outcome:
        """Go on with a task whose owner is gone, from its journal alone.

        ``task`` is an id, the beginning of one, or ``-``. What ``allowance`` leaves
        open is as it was. UsageError where there is nothing to go on with, BudgetError
        where it may use no more than it has used. Otherwise as ``run``.
        """
        check_ready(self._config, asks_claude=self._upstream is None)
        self.task_id = self._relay.task_id = task
        self._is_recorded = True
        work = partial(self._go_on, task, allowance or Allowance())
        return await self._supervise(work)

    async def cancel(self, task: str, reason: str) -> Outcome:
        """End a task whose owner is gone as cancelled; no agent is started."""
        async with open_services(self._config, on_outage=self._outage) as services:
            self._services = services
            ours = await self._take(task, services, needs_folder=False)
            async with self._open_claude(services, NOBODY) as claude:
                await self._adopt(ours, services, Allowance(), works=False)
                job = job_of(self.task_id, ours.created, ours.plan)
                self._relay.feed(CancelRequested(reason))
                idle = self._pool(services, claude.url)
                return await self._execute(services, idle, job, ours.recorded)

    async def _supervise(self, work: _Work) -> Outcome:
        """Do the work with all that it needs running around it."""
        self._relay.wait_for("the servers")
        async with open_services(self._config, on_outage=self._outage) as services:
            self._services = services
            self.opened.set()
            opened = self._upstream or partial(forwarding, self._config.credentials)
            async with (
                opened() as upstream,
                self._open_claude(services, upstream) as claude,
            ):
                return await self._with_agents(services, claude, work)

    @asynccontextmanager
    async def _open_claude(
        self, services: Services, upstream: Upstream
    ) -> AsyncIterator[Claude]:
        async with open_claude(
            self._config, upstream, services.log_store, self._relay, self._suspended
        ) as claude:
            self._claude = claude
            yield claude

    async def _with_agents(
        self, services: Services, claude: Claude, work: _Work
    ) -> Outcome:
        pool = self._agents = self._pool(services, claude.url)
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

    def _pool(self, services: Services, claude_url: str) -> AgentPool:
        return AgentPool(
            self._config,
            self.id,
            configure=partial(
                agent_configuration, self._config, self.id, services, claude_url
            ),
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
            outage = cause_of(error, OutageError)
            if outage is None or self._journal is None:
                raise
        if self._engine and self._engine.finished:
            return self._engine.finished  # the interruption came too late
        suspended = self._stop or TaskSuspended(
            reason=outage.message if outage else "stopped", hint=""
        )
        if not self._is_recorded:
            suspended = structs.replace(suspended, hint=_NOTHING_RECORDED)
        elif not suspended.hint:
            suspended = structs.replace(suspended, hint=self._resume_hint())
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
            claude, limits = self._way_to_claude, self._config.limits
            allowance = Allowance(usd=limits.budget_usd, tokens=limits.budget_tokens)
            await claude.begin(self.task_id, allowance)
            claude.check_budget(self.task_id)
            self._relay.wait_for("the plan")
            accepted = await plan(
                self.task_id, description, inputs, self._config, claude
            )
            created = TaskCreated(
                description=description,
                inputs=tuple(path.name for path in inputs),
                folder=str(self.folder),
                script=self._script,
                budget_usd=allowance.usd,
                budget_tokens=allowance.tokens,
            )
            await to_thread.run_sync(copy_inputs, inputs, self.folder)
            owner = owner_name(self.id)
            task = new_task(self.task_id, description, accepted.plan, owner)
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
        job = job_of(self.task_id, created, accepted.plan)
        return await self._execute(services, pool, job)

    async def _go_on(
        self, task: str, allowance: Allowance, services: Services, pool: AgentPool
    ) -> Outcome:
        ours = await self._take(task, services, needs_folder=True)
        await self._adopt(ours, services, allowance, works=True)
        await services.create_task_schema(self.task_id)
        job = job_of(self.task_id, ours.created, ours.plan)
        return await self._execute(services, pool, job, ours.recorded)

    async def _take(
        self, task: str, services: Services, *, needs_folder: bool
    ) -> Inheritance:
        """Own a task that nobody works on."""
        store = services.store
        found = await find_unowned(store, task)
        ours = await take_over(store, found, self.id, needs_folder=needs_folder)
        self.task_id = self._relay.task_id = found.id
        await clear_board(services.board, ours.former, report=self._relay.wait_for)
        return ours

    async def _adopt(
        self, ours: Inheritance, services: Services, given: Allowance, *, works: bool
    ) -> None:
        """Record that we go on with it, and with what budget; ``works``: Claude too."""
        claude = self._way_to_claude
        allowance = allowance_of(ours.recorded, given, self._config.limits)
        calls = await calls_of_former_runs(services.log_store, self.task_id)
        await claude.begin(self.task_id, allowance, calls)
        if works:
            claude.check_budget(self.task_id)
        for recorded in ours.recorded:
            self._recall(recorded)
        self._journal = Journal(
            services.store, self.task_id, epoch=ours.epoch, seq=len(ours.recorded)
        )
        resumed = resumed_by(self.id, ours.epoch, allowance)
        for recorded in await self._journal.append([resumed]):
            self._relay.show(recorded)

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
            claude=self._way_to_claude,
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
            self._relay.show_now(broken_off(failure, hint=self._resume_hint()))

    @property
    def _way_to_claude(self) -> Claude:
        assert self._claude is not None
        return self._claude

    def _suspended(self, reason: str, hint: str) -> None:
        """Claude is asked nothing any more: stop, and keep all for later."""
        hint = hint.format(task=self.task_id)
        self._stop_for(TaskSuspended(reason=reason, hint=hint))

    def _resume_hint(self) -> str:
        return f"go on with mas resume {self.task_id}"

    def _outage(self, reason: str | None) -> None:
        self._relay.wait_for(reason or "")
