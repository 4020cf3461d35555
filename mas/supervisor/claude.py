"""Claude as the agents of one run reach it: through the gateway, and counted."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, to_builtins

from mas.config import Config
from mas.errors import BudgetError, NotReadyError
from mas.gateway.client import Client, Receive, Send
from mas.gateway.exchange import (
    PLANNER,
    Caller,
    Request,
    Response,
    Upstream,
    UpstreamError,
)
from mas.gateway.gateway import Gateway
from mas.gateway.pacing.admission import Admission
from mas.gateway.pacing.backoff import Backoff, Suspend, Wait, WaitKind
from mas.gateway.pacing.wave import FirstWave
from mas.gateway.patience import Patience
from mas.gateway.server import LoopbackServer, listen
from mas.gateway.spending.account import Book
from mas.gateway.spending.budget import Budget
from mas.gateway.spending.ledger import Ledger
from mas.gateway.spending.prices import Prices
from mas.gateway.spending.reconcile import reconcile
from mas.model import ModelCall, Usage
from mas.store.postgres import TaskStore

_FIRST_WAVE_S = 5.0
_DRAIN_S = 30.0
"""For answers that are under way when the task is suspended: they are paid for."""


class Allowance(Struct, frozen=True, kw_only=True):
    """What a task may use, over all its runs; None is no limit."""

    usd: float | None = None
    tokens: int | None = None


class Hearer(Protocol):
    """Who hears of what goes on; each method returns at once. See ``Relay``."""

    def wait_for(self, reason: str, *, until: datetime | None = None) -> None: ...
    def noticed(self, text: str, *, is_passing: bool = False) -> None: ...
    def log(self, level: str, message: str, subtask_id: str | None = None) -> None: ...
    def used(self, subtask_id: str, attempt: int, usage: Usage) -> None: ...
    def held(self, subtask_id: str, attempt: int, is_held: bool) -> None: ...


class _Nobody:
    """The upstream of a run that asks Claude nothing."""

    is_first_party = False
    is_paid = False

    def open(self, request: Request) -> AbstractAsyncContextManager[Response]:
        raise UpstreamError("this run asks Claude nothing")


NOBODY = _Nobody()


class Claude:
    """One run's way to Claude; ``open_claude`` gives it.

    It listens as soon as it is open, and lets calls through from ``begin`` on.
    ``suspended`` hears, once, that no call goes out any more, when those that were
    under way have come.
    """

    def __init__(
        self,
        config: Config,
        upstream: Upstream,
        store: TaskStore,
        relay: Hearer,
        suspended: Callable[[str, str], None],
        tasks: TaskGroup,
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._store = store
        self._relay = relay
        self._suspended = suspended
        self._tasks = tasks
        listed = configured_prices(config)
        self._prices = listed if upstream.is_paid else Prices.free()
        self._server = LoopbackServer(self._answer, _listen(config.gateway.port))
        self._patience: Patience | None = None
        self._tokens: dict[tuple[str, int], str] = {}
        self._gateway: Gateway | None = None
        self._ledger: Ledger | None = None
        self._budget: Budget | None = None
        self._others_usd = 0.0
        self._says_wait = False

    @property
    def url(self) -> str:
        """Where agents and planner find it."""
        return self._server.url

    async def begin(
        self, task_id: str, allowance: Allowance, calls: Sequence[ModelCall] = ()
    ) -> None:
        """Let calls through from now on, for this task; ``calls`` are its earlier ones.

        ``check_budget`` says whether any would get through.
        """
        limits = self._config.limits
        spent_usd = await self._store.spent_since(_day_began())
        ledger = self._ledger = Ledger(
            self._write,
            history=calls,
            changed=self._used,
            day_total=self._spent_today,
            report=self._relay.noticed,
            day_usd=spent_usd,
        )
        self._budget = Budget(
            allowance.usd,
            allowance.tokens,
            limits.budget_usd_per_day,
            spent=ledger.total,
            spent_today_usd=spent_usd,
        )
        admission = Admission(
            Backoff(longest_wait_s=self._config.gateway.longest_wait_s),
            on_wait=self._waits,
            on_held=self._held,
            on_suspend=self._suspend_for,
        )
        self._gateway = Gateway(
            self._upstream,
            admission=admission,
            budget=self._budget,
            book=Book(
                ledger,
                self._budget,
                self._prices,
                self._relay.noticed,
                warn=partial(self._relay.noticed, is_passing=True),
            ),
            wave=FirstWave(self._first_wave_s()),
            listener=self,
        )
        self._tasks.start_soon(admission.run)
        self._tasks.start_soon(ledger.write_forever)

    def check_budget(self, task_id: str) -> None:
        """BudgetError where the task may use no more than it has used.

        NotReadyError where its budget could not be kept.
        """
        assert self._budget is not None, "begin comes first"
        unpriced = [it for it in _models(self._config) if not self._prices.of(it)]
        if unpriced and self._budget.counts_usd:
            raise NotReadyError(
                f"the price of {unpriced[0]} is not known, so a budget in US dollars "
                "would not hold",
                hint=f'add [prices."{unpriced[0]}"] to mas.toml, or give a budget in '
                "tokens: --budget-tokens",
            )
        refusal = self._budget.refusal(datetime.now().astimezone())
        if refusal is not None:
            raise BudgetError(refusal.reason, hint=refusal.hint.format(task=task_id))

    def planner(self, task_id: str, patience: Patience) -> str:
        """A token for the planner; its deadline stands still while it must wait."""
        self._patience = patience
        caller = Caller(task_id=task_id, agent_id=PLANNER, priority=10)
        return self._opened.tokens.issue(caller)

    def token(self, caller: Caller) -> str:
        """A token for one attempt, good until ``revoke``."""
        assert caller.subtask_id is not None
        assert caller.attempt is not None
        token = self._opened.tokens.issue(caller)
        self._tokens[caller.subtask_id, caller.attempt] = token
        return token

    def revoke(self, subtask_id: str, attempt: int) -> None:
        """The attempt has ended: what it still asks for is refused."""
        if token := self._tokens.pop((subtask_id, attempt), None):
            self._opened.tokens.revoke(token)

    def usage_of(self, subtask_id: str, attempt: int) -> Usage:
        """What the attempt's calls took so far; nothing before ``begin``."""
        if self._ledger is None:
            return Usage()
        return self._ledger.usage_of(subtask_id, attempt)

    @property
    def planner_usage(self) -> Usage:
        return self._ledger.usage_of_planner() if self._ledger else Usage()

    def spent(self) -> dict[str, Any]:
        """What the task took so far, all runs together, for its result."""
        if self._ledger is None:
            return {}
        by_model = self._ledger.by_model()
        return {
            **to_builtins(self._ledger.total),
            "by_model": {name: to_builtins(it) for name, it in by_model.items()},
        }

    def reconcile(self, subtask_id: str, attempt: int, reported: Usage) -> None:
        """Compare with what the CLI says that an attempt took, and log what differs."""
        difference = reconcile(self.usage_of(subtask_id, attempt), reported)
        if difference:
            words = f"attempt {attempt}: ledger and CLI disagree: {difference}"
            self._relay.log("warning", words, subtask_id)

    def suspend(self, reason: str, hint: str) -> None:
        """As the gateway's listener: wait for what is under way, then tell."""
        self._relay.wait_for(f"the answers that are under way: {reason}")
        self._tasks.start_soon(self._drain, reason, hint)

    def denied(self, text: str) -> None:
        """As the gateway's listener."""
        self._relay.log("warning", f"not let through to Claude: {text}")

    async def serve(self) -> None:
        """Answer until cancelled; the ledger is written before this ends."""
        try:
            await self._server.serve_until_stopped()
        finally:
            if self._ledger is not None:
                await self._ledger.close()

    def stop(self) -> None:
        self._server.stop()

    @property
    def _opened(self) -> Gateway:
        assert self._gateway is not None, "begin comes first"
        return self._gateway

    async def _answer(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        if self._gateway is None:
            client = Client(scope, receive, send)
            await client.refuse(401, "no token has been given out yet")
        else:
            await self._gateway(scope, receive, send)

    async def _write(self, calls: Sequence[ModelCall]) -> float:
        return await self._store.write_calls(calls, day_began=_day_began())

    async def _drain(self, reason: str, hint: str) -> None:
        with anyio.move_on_after(_DRAIN_S):
            await self._opened.drained()
        self._suspended(reason, hint)

    def _suspend_for(self, suspend: Suspend) -> None:
        hint = "go on with mas resume {task}"
        if suspend.until is not None:
            hint = (
                f"go on after {suspend.until:%Y-%m-%d %H:%M} with mas resume {{task}}"
            )
        self._opened.suspend(suspend.reason, hint)

    def _spent_today(self, day_usd: float) -> None:
        assert self._budget is not None
        ours_usd = self._budget.spent_today_usd - self._others_usd
        self._others_usd = max(0.0, day_usd - ours_usd)
        self._budget.others_today(self._others_usd)

    def _used(self, call: ModelCall) -> None:
        if call.subtask_id is not None and call.attempt is not None:
            usage = self.usage_of(call.subtask_id, call.attempt)
            self._relay.used(call.subtask_id, call.attempt, usage)

    def _held(self, caller: Caller, is_held: bool) -> None:
        if caller.subtask_id is not None and caller.attempt is not None:
            self._relay.held(caller.subtask_id, caller.attempt, is_held)
        elif self._patience is not None:
            self._patience.hold(is_held)

    def _waits(self, wait: Wait | None) -> None:
        # Where requests only go out slowly all goes on: each attempt says that it waits
        # for its turn.
        had_said = self._says_wait
        self._says_wait = wait is not None and wait.kind is not WaitKind.PACE
        if wait is not None and self._says_wait:
            left = timedelta(seconds=wait.left_s(time.monotonic()))
            self._relay.wait_for(wait.words, until=datetime.now(UTC) + left)
        elif had_said:
            self._relay.wait_for("")

    def _first_wave_s(self) -> float:
        configured_s = self._config.gateway.first_wave_s
        if configured_s is not None:
            return configured_s
        return _FIRST_WAVE_S if self._upstream.is_first_party else 0.0


@asynccontextmanager
async def open_claude(
    config: Config,
    upstream: Upstream,
    store: TaskStore,
    relay: Hearer,
    suspended: Callable[[str, str], None],
) -> AsyncIterator[Claude]:
    """Listen on loopback while this is entered."""
    tasks = anyio.create_task_group()
    claude = Claude(config, upstream, store, relay, suspended, tasks)
    failure: Exception | None = None
    async with tasks:
        async with anyio.create_task_group() as serving:
            serving.start_soon(claude.serve)
            try:
                yield claude
            except Exception as error:  # noqa: BLE001 - raised below, not as the groups'
                failure = error
            claude.stop()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _listen(port: int) -> Any:
    try:
        return listen(port)
    except OSError as error:
        raise NotReadyError(
            f"the gateway cannot listen on port {port}: {error.strerror or error}",
            hint="choose another [gateway] port in mas.toml, or 0 for one that is free",
        ) from error


def _models(config: Config) -> list[str]:
    """Every model that is configured, each once."""
    claude = config.claude
    own = [spec.model for spec in config.roster if spec.model]
    return list(
        dict.fromkeys([claude.model, claude.planner_model or claude.model, *own])
    )


def configured_prices(config: Config) -> Prices:
    """The table in the package, where mas.toml does not overrule it."""
    sections = {
        model: {
            name: value
            for name, value in to_builtins(section).items()
            if value is not None
        }
        for model, section in config.prices.items()
    }
    return Prices.load(sections)


def _day_began() -> datetime:
    """The last midnight, by this machine's clock and zone."""
    now = datetime.now().astimezone()
    return now.replace(hour=0, minute=0, second=0, microsecond=0)
