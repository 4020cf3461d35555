"""The embedded servers are killed, stopped and lost: who uses them goes on."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import asyncpg
import pytest

from mas import keeper
from mas.config import Config
from mas.core.events import AgentReady
from mas.errors import NotReadyError, StoreError
from mas.model import LogRecord
from mas.store import postgres
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
        addresses.postgres_dsn, outage_timeout_s=LONG_S, revive=addresses.revive
    )


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
        revive=addresses.revive,
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
    assert addresses.revive is not None
    await addresses.revive()  # one that was begun is over, and leaves no lease


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
