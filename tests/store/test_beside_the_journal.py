"""Logs and statuses in an outage: kept or dropped, reported once, never in the way."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import asyncpg
import pytest

from mas.core.events import AgentLost, AgentReady
from mas.keeper import Servers
from mas.model import LogRecord
from mas.store.address import Address
from mas.store.postgres import TaskStore
from mas.store.redis import AgentBoard
from mas.supervisor import logs
from mas.supervisor.board import BoardWriter
from mas.supervisor.logs import LogWriter
from mas.wire.messages import Heartbeat
from tests.store.support import Door, Line, line_to
from tests.support import until

LONG_S = 60.0


class Reports:
    """What a person is told."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.something = anyio.Event()

    def __call__(self, text: str) -> None:
        self.all.append(text)
        self.something.set()

    async def first(self) -> str:
        with anyio.fail_after(LONG_S):
            await self.something.wait()
        return self.all[0]


def record(number: int, message: str = "") -> LogRecord:
    return LogRecord(
        at=datetime.now(UTC),
        agent_id="agent_1",
        level="info",
        message=message or f"record {number}",
    )


@asynccontextmanager
async def log_writer(door: Door, reports: Reports) -> AsyncIterator[LogWriter]:
    store = await TaskStore.connect(door.dsn, outage_timeout_s=0.2)
    writer = LogWriter(store, report=reports)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.write)
        yield writer
        tasks.cancel_scope.cancel()
    await writer.close()
    await store.close()


async def rename_table(database: Address, former: str, new: str) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(f"ALTER TABLE {former} RENAME TO {new}")
    await admin.close()


async def until_logged(store: TaskStore, messages: list[str]) -> None:
    async def are_logged() -> bool:
        return [each.message for each in await store.logs()] == messages

    await until(are_logged, f"{messages} are logged", deadline_s=LONG_S)


async def test_logs_of_an_outage_are_written_after_it(
    door: Door, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_RETRY_AFTER_S", 0.05)
    reports = Reports()
    async with log_writer(door, reports) as writer:
        await door.refuse()
        for number in range(3):
            writer.add(record(number))
        assert "kept for later" in await reports.first()
        writer.add(record(3))
        await door.open()
        await until_logged(store, [f"record {number}" for number in range(4)])
        writer.add(record(4))
        await until_logged(store, [f"record {number}" for number in range(5)])
    assert len(reports.all) == 1


@pytest.mark.parametrize("limit", ["_QUEUE", "_QUEUE_CHARS"])
async def test_logs_of_a_long_outage_do_not_grow_without_bound(
    door: Door, store: TaskStore, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(logs, "_RETRY_AFTER_S", 0.05)
    monkeypatch.setattr(logs, limit, 4)
    reports = Reports()
    async with log_writer(door, reports) as writer:
        await door.refuse()
        writer.add(record(0, "0"))
        assert "kept for later" in await reports.first()
        for number in range(1, 7):
            writer.add(record(number, str(number)))
        await door.open()
        await until_logged(store, ["0", "1", "2", "3"])
        writer.add(record(9, "9"))
        await until_logged(store, ["0", "1", "2", "3", "9"])
    assert reports.all[1:] == ["1 log records are lost: too many at once"]


async def test_a_refused_batch_is_reported_once_and_does_not_stay(
    door: Door, store: TaskStore, database: Address
) -> None:
    reports = Reports()
    async with log_writer(door, reports) as writer:
        await rename_table(database, "agent_logs", "gone")
        writer.add(record(0))
        assert "1 log records are lost" in await reports.first()
        await rename_table(database, "gone", "agent_logs")
        writer.add(record(1))
        await until_logged(store, ["record 1"])
    assert len(reports.all) == 1


async def test_a_batch_that_is_written_when_the_end_comes_is_written_once(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_FLUSH_DEADLINE_S", LONG_S)
    is_durable, answer = anyio.Event(), anyio.Event()
    write = store.write_logs

    async def write_slowly(rows: Sequence[LogRecord]) -> None:
        await write(rows)
        is_durable.set()
        await answer.wait()

    monkeypatch.setattr(store, "write_logs", write_slowly)
    writer = LogWriter(store, report=Reports())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.write)
        writer.add(record(0))
        with anyio.fail_after(LONG_S):
            await is_durable.wait()
        tasks.cancel_scope.cancel()
        answer.set()
    writer.add(record(1))
    await writer.close()
    assert [each.message for each in await store.logs()] == ["record 0", "record 1"]


async def test_a_write_without_an_end_does_not_hold_up_the_end(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_FLUSH_DEADLINE_S", 0.05)
    is_begun = anyio.Event()

    async def hang(rows: Sequence[LogRecord]) -> None:
        is_begun.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(store, "write_logs", hang)
    writer = LogWriter(store, report=Reports())
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.write)
            writer.add(record(0))
            await is_begun.wait()
            tasks.cancel_scope.cancel()
        await writer.close()
    monkeypatch.undo()
    monkeypatch.setattr(logs, "_FLUSH_DEADLINE_S", LONG_S)
    await writer.close()
    assert [each.message for each in await store.logs()] == ["record 0"]


@pytest.fixture
async def redis_line(servers: Servers) -> AsyncIterator[Line]:
    socket = servers.redis_url.removeprefix("unix://")
    async with line_to(socket, "redis://{place}/0") as line:
        yield line


def ready(agent_id: str) -> AgentReady:
    return AgentReady(agent_id=agent_id, pid=1, capabilities=("x",))


async def test_redis_away_is_reported_once_and_all_is_shown_again_after(
    redis_line: Line, servers: Servers
) -> None:
    reports = Reports()
    direct = await AgentBoard.connect(servers.redis_url)
    board = await AgentBoard.connect(redis_line.url)
    writer = BoardWriter(board, "board-test", ttl_s=60, report=reports)
    cpu = 0.0

    def beat(agent_id: str) -> None:
        heartbeat = Heartbeat(
            cpu_percent=cpu, memory_mib=1, subtask_id=None, tasks_completed=0
        )
        writer.heartbeat(agent_id, heartbeat)

    async def shown() -> dict[str, float]:
        mine = [a for a in await direct.agents() if a.supervisor == "board-test"]
        return {status.agent_id: status.cpu_usage for status in mine}

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.write)
        writer.ready(ready("agent_1"))
        writer.ready(ready("agent_2"))

        async def both_are_shown() -> bool:
            return set(await shown()) == {"agent_1", "agent_2"}

        await until(both_are_shown, "both are shown", deadline_s=LONG_S)
        redis_line.refuses = True
        redis_line.lose_answer()
        cpu = 7.0
        beat("agent_1")
        assert "the work goes on without" in await reports.first()
        writer.lost(AgentLost(agent_id="agent_2", error="gone"))
        # What Redis knew is lost as well.
        await direct.remove("board-test", "agent_1")
        redis_line.refuses = False

        async def is_shown_again() -> bool:
            beat("agent_1")
            return await shown() == {"agent_1": 7.0}

        await until(is_shown_again, "the one that is left is shown", deadline_s=LONG_S)
        tasks.cancel_scope.cancel()
    assert len(reports.all) == 1
    await writer.remove_all()
    assert await shown() == {}
    await board.close()
    await direct.close()
