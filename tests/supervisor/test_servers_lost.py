"""The embedded servers are killed, stopped and lost: who uses them goes on."""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import asyncpg
import pytest
from anyio import to_thread

from mas import keeper
from mas.config import Config, Postgres, Redis
from mas.core.events import AgentReady
from mas.errors import NotReadyError, StoreError
from mas.model import LogRecord
from mas.store import postgres
from mas.store.outage import Revive
from mas.store.postgres import TaskStore
from mas.store.redis import AgentBoard
from mas.supervisor.board import BoardWriter
from mas.supervisor.services import Addresses, open_services, reach_servers
from mas.wire.messages import Heartbeat
from tests.keeper.support import assert_ended, assert_gone, kill_keeper, processes, the
from tests.store.support import begin, completed, started
from tests.support import until

LONG_S = 120.0
READY = AgentReady(agent_id="agent_1", pid=1, capabilities=("x",))
BEAT = Heartbeat(cpu_percent=1, memory_mib=2, subtask_id=None, tasks_completed=0)


@pytest.fixture(scope="module")
def own_home() -> Iterator[Path]:
    """A home with servers of its own, for killing."""
    folder = Path(tempfile.mkdtemp(prefix="mas-lost-", dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    with keeper.join(folder / "home"):
        yield folder / "home"
    assert_gone(folder / "home")
    shutil.rmtree(folder)


@pytest.fixture
async def addresses(own_home: Path) -> AsyncIterator[Addresses]:
    async with reach_servers(Config(home=own_home)) as addresses:
        yield addresses


def kill_with_servers(home: Path) -> None:
    """Kill the keeper, and wait for the servers to follow it."""
    running = processes(home)
    kill_keeper(home)
    assert_ended(running)


async def connect(addresses: Addresses) -> TaskStore:
    return await TaskStore.connect(
        addresses.postgres_dsn,
        outage_timeout_s=LONG_S,
        revive=addresses.revive_postgres,
    )


async def bring_back(revive: Revive | None) -> None:
    assert revive is not None
    await revive()


async def test_a_killed_postgresql_is_waited_for(
    own_home: Path, addresses: Addresses
) -> None:
    store = await connect(addresses)
    facts = await begin(store)
    the(own_home, "postgres").kill()
    await store.commit(facts.task.id, 1, facts.add(started("a"), completed("a")))
    assert await store.events(facts.task.id) == facts.all
    assert len(await store.results(facts.task.id)) == 1
    assert (await store.find_task(facts.task.id)).owner_alive is True
    await store.close()


async def test_a_stopped_postgresql_is_waited_for(
    own_home: Path, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []
    is_told = anyio.Event()

    def tell(reason: str | None) -> None:
        told.append(reason)
        is_told.set()

    store = await TaskStore.connect(
        addresses.postgres_dsn, outage_timeout_s=LONG_S, on_outage=tell
    )
    facts = await begin(store)
    server = the(own_home, "postgres")
    admin = await asyncpg.connect(addresses.postgres_dsn)
    server.suspend()
    try:
        # Its children go on, but no new one comes: who calls hears nothing.
        await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'mas %'"
        )
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "_TRY_TIMEOUT_S", 0.5)
            async with anyio.create_task_group() as tasks:
                new = facts.add(started("a"))
                tasks.start_soon(store.commit, facts.task.id, 1, new)
                with anyio.fail_after(LONG_S):
                    await is_told.wait()
                patch.setattr(postgres, "_TRY_TIMEOUT_S", 30)
                server.resume()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert len(told) == 2
    assert await store.events(facts.task.id) == facts.all
    await admin.close()
    await store.close()


async def test_a_killed_keeper_is_replaced(
    own_home: Path, addresses: Addresses
) -> None:
    store, log_store = await connect(addresses), await connect(addresses)
    facts = await begin(store)
    former = the(own_home, "keeper")
    kill_with_servers(own_home)
    record = LogRecord(
        at=facts.task.created_at,
        agent_id="agent_1",
        level="info",
        message="still here",
        task_id=facts.task.id,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log_store.write_logs, [record])
        new = facts.add(started("a"), completed("a"))
        tasks.start_soon(store.commit, facts.task.id, 1, new)
    assert the(own_home, "keeper") != former
    assert await store.events(facts.task.id) == facts.all
    assert await store.logs(facts.task.id) == [record]
    await log_store.close()
    await store.close()


async def test_a_task_is_prepared_although_postgresql_was_killed(
    own_home: Path,
) -> None:
    async with open_services(Config(home=own_home)) as services:
        the(own_home, "postgres").kill()
        schema = await services.create_task_schema("some-task")
        assert await services.create_task_schema("some-task") == schema


@pytest.mark.parametrize("victim", ["valkey-server", "keeper"])
async def test_statuses_are_shown_again_after_redis_was_lost(
    own_home: Path, addresses: Addresses, victim: str
) -> None:
    reports: list[str] = []
    board = await AgentBoard.connect(addresses.redis_url)
    writer = BoardWriter(
        board,
        "supervisor-1",
        ttl_s=60,
        report=reports.append,
        revive=addresses.revive_redis,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.write)
        writer.ready(READY)
        if victim == "keeper":
            kill_with_servers(own_home)
        else:
            the(own_home, "valkey-server").kill()

        async def is_shown() -> bool:
            writer.heartbeat("agent_1", BEAT)
            return await _shown(addresses) == [("agent_1", 1.0)]

        await until(is_shown, "the status is published", deadline_s=LONG_S)
        tasks.cancel_scope.cancel()
    assert len(reports) <= 1
    await writer.remove_all()
    assert await _shown(addresses) == []
    await board.close()
    await bring_back(
        addresses.revive_redis
    )  # one that was begun is over, and leaves no lease


class Joins:
    """Stands for ``keeper.join``: says that it was called, and blocks until told."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.left = threading.Event()

    def __call__(self, home: Path, *, timeout_s: float) -> "Joins":
        self.count += 1
        self.begun.set()
        assert self.may_end.wait(LONG_S)
        return self

    def close(self) -> None:
        self.left.set()


async def test_all_who_lost_their_server_share_one_join(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins = Joins()
    monkeypatch.setattr(keeper, "join", joins)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bring_back, addresses.revive_postgres)
        tasks.start_soon(bring_back, addresses.revive_postgres)
        tasks.start_soon(bring_back, addresses.revive_redis)
        assert await to_thread.run_sync(joins.begun.wait, LONG_S)
        joins.may_end.set()
    assert joins.count == 1
    assert joins.left.is_set()
    await bring_back(addresses.revive_redis)
    assert joins.count == 2


async def test_why_the_servers_do_not_come_back_is_told_to_all(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(home: Path, *, timeout_s: float) -> keeper.Lease:
        raise NotReadyError("the keeper does not start")

    monkeypatch.setattr(keeper, "join", join)
    told: list[str] = []

    async def revive(again: Revive | None) -> None:
        with pytest.raises(NotReadyError) as caught:
            await bring_back(again)
        told.append(caught.value.message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(revive, addresses.revive_postgres)
        tasks.start_soon(revive, addresses.revive_postgres)
    assert told == ["the keeper does not start"] * 2


async def test_after_the_end_no_join_begins_and_a_late_one_leaves_no_lease(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joins = Joins()
    async with reach_servers(Config(home=own_home)) as addresses:
        monkeypatch.setattr(keeper, "join", joins)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bring_back, addresses.revive_postgres)
            assert await to_thread.run_sync(joins.begun.wait, LONG_S)
            tasks.cancel_scope.cancel()
    with pytest.raises(NotReadyError):
        await bring_back(addresses.revive_postgres)
    joins.may_end.set()
    assert await to_thread.run_sync(joins.left.wait, LONG_S)
    assert joins.count == 1


_ENDS_IN_A_JOIN = """
import sys, threading
from pathlib import Path
import anyio
from mas import keeper
from mas.config import Config
from mas.supervisor.services import reach_servers

begun = threading.Event()

def never(home, *, timeout_s):
    begun.set()
    threading.Event().wait()

async def main():
    async with reach_servers(Config(home=Path(sys.argv[1]))) as addresses:
        keeper.join = never
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(addresses.revive_postgres)
            assert await anyio.to_thread.run_sync(begun.wait, 60)
            tasks.cancel_scope.cancel()
    print("over")

anyio.run(main)
"""


async def test_a_process_ends_although_a_join_is_under_way(own_home: Path) -> None:
    command = [sys.executable, "-c", _ENDS_IN_A_JOIN, str(own_home)]
    with anyio.fail_after(LONG_S):
        ended = await anyio.run_process(command, stderr=None)
    assert ended.stdout == b"over\n"


@pytest.mark.parametrize("configured", ["postgres", "redis"])
async def test_only_a_server_of_ours_is_revived(
    own_home: Path, configured: str
) -> None:
    config = Config(home=own_home, redis=Redis(url="redis://elsewhere/0"))
    if configured == "postgres":
        config = Config(
            home=own_home, postgres=Postgres(dsn="postgresql://me@elsewhere/mas")
        )
    async with reach_servers(config) as addresses:
        assert (addresses.revive_postgres is None) is (configured == "postgres")
        assert (addresses.revive_redis is None) is (configured == "redis")


async def _shown(addresses: Addresses) -> list[tuple[str, float]]:
    """Which agents a look shows; none where Redis is not there."""
    try:
        board = await AgentBoard.connect(addresses.redis_url)
        try:
            return [(each.agent_id, each.cpu_usage) for each in await board.agents()]
        finally:
            await board.close()
    except (NotReadyError, StoreError):
        return []
