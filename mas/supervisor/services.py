"""The shared services of a run: embedded or configured, opened and closed together."""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec import Struct

from mas import keeper
from mas.config import Config
from mas.errors import NotReadyError
from mas.store import agents_db
from mas.store.agents_db import AgentsDatabase
from mas.store.outage import OnOutage, Revive
from mas.store.postgres import TaskStore
from mas.store.redis import AgentBoard

_SECRET_BYTES = 32
_REVIVE_TIMEOUT_S = 10.0
_LOG_OUTAGE_S = 5.0
"""Logs are kept and tried again; see ``LogWriter``."""


class Addresses(Struct, frozen=True, kw_only=True):
    """Where the servers are, and whether mas owns PostgreSQL."""

    postgres_dsn: str
    redis_url: str
    owns_postgres: bool
    revive_postgres: Revive | None = None
    """Brings PostgreSQL back where the keeper was killed; None where it is not ours."""
    revive_redis: Revive | None = None
    """The same for Redis."""


class Services(Struct, kw_only=True):
    """What a supervisor needs; closed by ``open_services``."""

    addresses: Addresses
    store: TaskStore
    log_store: TaskStore
    """A connection of its own: logs never wait for, or hold up, the journal."""
    board: AgentBoard
    agents_database: AgentsDatabase

    async def create_task_schema(self, task_id: str) -> str:
        """The task's schema for its agents' SQL, by name; an outage is waited out."""
        return await self.store.outlast(
            lambda: self.agents_database.create_task_schema(task_id)
        )


class _Join(Struct):
    """One join that is under way, for all who wait for it."""

    is_over: anyio.Event
    error: Exception | None = None


class _Reviver:
    """Joins the servers once more, which starts a keeper where none is left.

    The lease that the run holds stays what it is: it is as good with a new keeper.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._under_way: _Join | None = None
        self._is_closed = False

    async def revive(self) -> None:
        """Return when the servers are ready; NotReadyError when they will not be.

        Several connections are lost at once: they share one join.
        """
        if self._is_closed:
            raise NotReadyError("the embedded servers are not used any more")
        join = self._under_way
        if join is None:
            join = _Join(anyio.Event())
            # Not a worker thread: the process's end would wait for that.
            threading.Thread(
                target=self._join,
                args=(join, asyncio.get_running_loop()),
                name="mas revive",
                daemon=True,
            ).start()
            self._under_way = join
        await join.is_over.wait()
        if join.error is not None:
            raise join.error

    def close(self) -> None:
        """Begin no join any more; one that is under way leaves no lease."""
        self._is_closed = True

    def _join(self, join: _Join, loop: asyncio.AbstractEventLoop) -> None:
        try:
            keeper.join(self._home, timeout_s=_REVIVE_TIMEOUT_S).close()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            join.error = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._end, join)

    def _end(self, join: _Join) -> None:
        self._under_way = None
        join.is_over.set()


@asynccontextmanager
async def reach_servers(config: Config) -> AsyncIterator[Addresses]:
    """Start or join the embedded servers, unless both are configured."""
    if config.postgres.dsn and config.redis.url:
        yield Addresses(
            postgres_dsn=config.postgres.dsn,
            redis_url=config.redis.url,
            owns_postgres=False,
        )
        return
    lease = await to_thread.run_sync(keeper.join, config.home)
    reviver = _Reviver(config.home)
    try:
        yield Addresses(
            postgres_dsn=config.postgres.dsn or lease.servers.postgres_dsn,
            redis_url=config.redis.url or lease.servers.redis_url,
            owns_postgres=not config.postgres.dsn,
            revive_postgres=None if config.postgres.dsn else reviver.revive,
            revive_redis=None if config.redis.url else reviver.revive,
        )
    finally:
        reviver.close()
        lease.close()


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[TaskStore]:
    """The recorded tasks alone: what the commands that only look need."""
    async with reach_servers(config) as addresses:
        store = await TaskStore.connect(
            addresses.postgres_dsn, revive=addresses.revive_postgres
        )
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def open_services(
    config: Config, *, on_outage: OnOutage | None = None
) -> AsyncIterator[Services]:
    """Everything that a supervisor needs, ready to use.

    ``on_outage`` hears when the journal has to wait for PostgreSQL, and None after.
    """
    async with AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(reach_servers(config))
        store = await TaskStore.connect(
            addresses.postgres_dsn,
            outage_timeout_s=config.supervisor.outage_timeout_s,
            on_outage=on_outage,
            revive=addresses.revive_postgres,
        )
        stack.push_async_callback(store.close)
        log_store = await TaskStore.connect(
            addresses.postgres_dsn,
            outage_timeout_s=_LOG_OUTAGE_S,
            revive=addresses.revive_postgres,
        )
        stack.push_async_callback(log_store.close)
        board = await AgentBoard.connect(addresses.redis_url)
        stack.push_async_callback(board.close)
        agents_database = await agents_db.provision(
            addresses.postgres_dsn,
            owns_server=addresses.owns_postgres,
            secret=_home_secret(config.home),
        )
        yield Services(
            addresses=addresses,
            store=store,
            log_store=log_store,
            board=board,
            agents_database=agents_database,
        )


def _home_secret(home: Path) -> bytes:
    """This home's secret, from which the agents' database password is derived."""
    path = home / "secret"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f"secret.{os.getpid()}")
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(_SECRET_BYTES))
            with suppress(FileExistsError):  # another mas was quicker: its secret holds
                path.hardlink_to(fresh)
            fresh.unlink()
        secret = path.read_bytes()
    except OSError as error:
        raise NotReadyError(
            f"MAS_HOME cannot be used: {error}", hint=f"make {home} a folder of yours"
        ) from error
    if len(secret) != _SECRET_BYTES:
        raise NotReadyError(f"{path} is damaged", hint="remove it; a new one is made")
    return secret
