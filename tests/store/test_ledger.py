"""The ledger's table: each call once, as it ended; what a day cost; calls left open."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import asyncpg
import pytest

from mas.errors import OutageError
from mas.gateway.spending import ledger as gateway_ledger
from mas.gateway.spending.ledger import Ledger
from mas.model import CallState, ModelCall, Usage
from mas.store import ledger, postgres
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import Door, Line
from tests.support import until

DAY = datetime(2026, 11, 22, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
LONG_S = 60.0
USAGE = Usage(10, 20, 30, 40, 0.25, 50, 6)


def call(name: str, **fields: Any) -> ModelCall:
    made: dict[str, Any] = {
        "id": name,
        "task_id": "t",
        "subtask_id": "a",
        "attempt": 1,
        "agent_id": "agent_1",
        "path": "/v1/messages",
        "model": "claude-sonnet-5-5",
        "started_at": NOON,
    }
    return ModelCall(**(made | fields))


def ended(name: str, cost_usd: float = 0.25, **fields: Any) -> ModelCall:
    made: dict[str, Any] = {
        "state": CallState.COMPLETE,
        "http_status": 200,
        "usage": Usage(input_tokens=7, output_tokens=9, cost_usd=cost_usd),
        "first_byte_s": 0.5,
        "duration_s": 2.5,
    }
    return call(name, **(made | fields))


async def write(store: TaskStore, *calls: ModelCall) -> float:
    return await store.write_calls(calls, day_began=DAY)


async def test_a_call_comes_back_as_it_was_written_by_its_start(
    store: TaskStore,
) -> None:
    whole = ended("c", usage=USAGE, subagent="s", held_s=1.5, error="e")
    later = call("a", started_at=NOON + timedelta(microseconds=1))
    bare = call("d", subtask_id=None, attempt=None, agent_id="planner", model="")
    await write(store, later, whole, bare, call("b", task_id="another"))
    assert await store.calls("t") == [whole, bare, later]
    assert await store.calls("nothing") == []


@pytest.mark.parametrize(
    "state", [state for state in CallState if state is not CallState.OPEN]
)
async def test_a_call_that_ended_is_not_open_again_in_any_order(
    store: TaskStore, state: CallState
) -> None:
    first, more = call("x"), call("x", usage=Usage(input_tokens=7))
    end = ended("x", state=state)
    await write(store, first)
    assert await write(store, more) == 0
    assert await store.calls("t") == [more]
    assert await write(store, end, first) == 0.25
    assert await write(store, more) == 0.25
    assert await write(store, first, more, end, end) == 0.25
    assert await write(store, ended("x", 99.0)) == 0.25  # its end was said already
    assert await store.calls("t") == [end]


async def test_what_is_open_is_as_it_was_said_last_in_a_batch(store: TaskStore) -> None:
    more = call("x", usage=Usage(output_tokens=2), model="m")
    await write(store, call("x"), more)
    assert await store.calls("t") == [more]


async def test_repeating_writes_no_row_again(
    store: TaskStore, database: Address
) -> None:
    admin = await asyncpg.connect(database.dsn)
    batch = [ended("x"), ended("y")]
    await write(store, *batch)
    versions = await admin.fetch("SELECT id, xmin::text FROM model_calls")
    assert await write(store, *batch) == 0.5
    assert await admin.fetch("SELECT id, xmin::text FROM model_calls") == versions
    await admin.close()


async def test_a_day_counts_the_calls_that_were_sent_in_it_of_all_tasks(
    store: TaskStore,
) -> None:
    moment = timedelta(microseconds=1)
    assert await write(store) == 0
    total = await write(
        store,
        ended("yesterday", 100.0, started_at=DAY - moment, duration_s=60.0),
        ended("midnight", 1.0, started_at=DAY),
        ended("other", 2.0, task_id="another"),
        call("open", usage=Usage(cost_usd=4.0)),
    )
    assert total == 7
    assert await write(store, ended("open", 8.0)) == 11
    assert await write(store) == await store.spent_since(DAY) == 11
    assert await store.spent_since(DAY + moment) == 10
    assert await store.spent_since(DAY - moment) == 111
    tomorrow = DAY + timedelta(days=1)
    assert await store.spent_since(tomorrow) == 0
    assert await store.write_calls([ended("n")], day_began=tomorrow) == 0


async def test_a_day_may_begin_in_any_time_zone(store: TaskStore) -> None:
    east = datetime.fromisoformat("2026-11-22T00:00:00+13:00")
    sent = east - timedelta(seconds=1)
    assert await store.write_calls([ended("x", started_at=sent)], day_began=east) == 0
    [kept] = await store.calls("t")
    assert kept.started_at == sent


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"error": "a\0b"}, {"error": "a\ufffdb"}),
        ({"model": "\ud83d"}, {"model": "\ufffd"}),
        ({"subagent": "\0", "path": "/\0"}, {"subagent": "\ufffd", "path": "/\ufffd"}),
        ({"error": "x" * 3_000_000}, {"error": "x" * 2000}),
        ({"usage": Usage(2**70, -1)}, {"usage": Usage(2**63 - 1, 0)}),
        ({"usage": Usage(cost_usd=float("nan"))}, {"usage": Usage()}),
        ({"usage": Usage(cost_usd=float("inf"))}, {"usage": Usage()}),
        ({"usage": Usage(cost_usd=-5.0)}, {"usage": Usage()}),
        ({"usage": Usage(cost_usd=1e308)}, {"usage": Usage(cost_usd=1e12)}),
    ],
    ids=["NUL", "surrogate", "key", "long", "tokens", "nan", "inf", "negative", "huge"],
)
async def test_what_postgresql_cannot_hold_costs_neither_the_call_nor_its_batch(
    store: TaskStore, fields: dict[str, Any], kept: dict[str, Any]
) -> None:
    await write(store, ended("a"), ended("b", **fields), ended("c"))
    expected = [ended("a"), ended("b", **(fields | kept)), ended("c")]
    assert await store.calls("t") == expected
    cost = 0.5 + expected[1].usage.cost_usd
    assert await store.spent_since(DAY) == cost


async def test_a_batch_whose_answer_was_lost_is_there_once(
    line: Line, store: TaskStore
) -> None:
    lossy = await TaskStore.connect(line.url)
    await write(lossy, call("x"), call("y"))
    line.lose_answer()
    assert await write(lossy, ended("x"), ended("y", 0.5)) == 0.75
    assert line.swallowed.is_set()
    assert await store.calls("t") == [ended("x"), ended("y", 0.5)]
    await lossy.close()


async def test_calls_are_on_the_disk_when_they_are_written(
    store: TaskStore, database: Address
) -> None:
    admin = await asyncpg.connect(database.dsn)
    for number in range(5):
        before = await admin.fetchval("SELECT pg_current_wal_insert_lsn()")
        await write(store, ended(f"{number}"))
        assert await admin.fetchval("SELECT pg_current_wal_flush_lsn() > $1", before)
    await admin.close()


async def test_two_supervisors_count_one_day(
    store: TaskStore, database: Address
) -> None:
    other = await TaskStore.connect(database.dsn)
    told: dict[str, list[float]] = {"t": [], "u": []}

    async def work(mine: TaskStore, task_id: str) -> None:
        for number in range(30):
            name = f"{task_id}{number}"
            await write(mine, call(name, task_id=task_id))
            total = await write(mine, ended(name, 1.0, task_id=task_id))
            told[task_id].append(total)
            assert number + 1 <= total <= number + 1 + 30

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, store, "t")
        tasks.start_soon(work, other, "u")
    # Not sooner: two writes at the same moment do not see each other.
    assert await write(store) == await write(other) == 60
    assert all(totals == sorted(totals) for totals in told.values())
    await other.close()


async def test_who_takes_a_task_closes_what_was_left_open_and_nothing_else(
    store: TaskStore,
) -> None:
    sent = call("sent")
    begun = call("begun", usage=Usage(100, 5, 30, 40, 0.25))
    others = call("others", task_id="another", usage=Usage(output_tokens=1))
    done = ended("done")
    await write(store, sent, begun, others, done)
    assert await store.close_open_calls("t") == 2
    assert await store.close_open_calls("t") == 0
    closed = {"state": CallState.CUT, "error": ledger.ABANDONED}
    counted = Usage(100, 5, 30, 40, 0.25, estimated_tokens=5)
    assert await store.calls("t") == [
        call("begun", usage=counted, **closed),
        done,
        call("sent", **closed),
    ]
    assert await store.calls("another") == [others]
    assert await store.spent_since(DAY) == 0.5


async def test_a_supervisor_taken_for_dead_may_say_how_its_calls_ended(
    store: TaskStore,
) -> None:
    await write(store, call("x"), call("y"), call("z"))
    await store.close_open_calls("t")
    closed = await store.calls("t")
    cut_again = call("z", state=CallState.CUT)
    assert await write(store, call("y"), cut_again) == 0
    assert await store.calls("t") == closed
    assert await write(store, ended("x")) == 0.25
    assert await store.calls("t") == [ended("x"), *closed[1:]]
    assert await store.close_open_calls("t") == 0


async def test_closing_and_writing_at_once_block_nobody(
    store: TaskStore, database: Address
) -> None:
    other = await TaskStore.connect(database.dsn)
    names = [f"{number:03}" for number in range(200)]
    await write(store, *map(call, names))

    async def end_all() -> None:
        for name in reversed(names):
            await write(store, ended(name), *map(call, names))

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_all)
            for _ in range(20):
                await other.close_open_calls("t")
    assert await other.calls("t") == list(map(ended, names))
    await other.close()


async def test_an_outage_longer_than_allowed_leaves_all_or_nothing(
    door: Door, store: TaskStore
) -> None:
    mine = await TaskStore.connect(door.dsn, outage_timeout_s=0.2)
    await write(mine, call("x"))
    await door.refuse()
    with pytest.raises(OutageError):
        await write(mine, ended("x"), ended("y"))
    assert await store.calls("t") == [call("x")]
    await door.open()
    assert await write(mine, ended("x"), ended("y")) == 0.5
    await mine.close()


async def test_the_ledger_of_a_run_outlasts_an_outage_in_the_middle(
    door: Door, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_ledger, "_RETRY_SOONEST_S", 0.05)
    monkeypatch.setattr(gateway_ledger, "_RETRY_LATEST_S", 0.1)
    mine = await TaskStore.connect(door.dsn, outage_timeout_s=0.2)
    reports: list[str] = []
    is_reported = anyio.Event()
    totals: list[float] = []

    def report(text: str) -> None:
        reports.append(text)
        is_reported.set()

    async def write_today(calls: Sequence[ModelCall]) -> float:
        return await mine.write_calls(calls, day_began=DAY)

    counted = Ledger(
        write_today, changed=lambda call: None, day_total=totals.append, report=report
    )
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(call("x"))
            counted.begin(call("y"))

            async def are_kept() -> bool:
                return await store.calls("t") == [call("x"), call("y")]

            await until(are_kept, "the calls are kept")
            await door.refuse()
            counted.end(ended("x"))
            await is_reported.wait()
            counted.end(ended("y"))
            counted.begin(call("z"))
            await door.open()

            async def are_written() -> bool:
                expected = [ended("x"), ended("y"), call("z")]
                return await store.calls("t") == expected

            await until(are_written, "what was kept is written")
            tasks.cancel_scope.cancel()
    counted.end(ended("z"))
    await counted.close()
    assert await store.calls("t") == [ended("x"), ended("y"), ended("z")]
    assert totals[-1] == 0.75
    [told] = reports
    assert "model calls are recorded later" in told
    await mine.close()


async def test_a_cancelled_write_is_repeated_by_the_next(
    store: TaskStore, database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off while a lock holds it up: the connection is good for what follows."""
    monkeypatch.setattr(postgres, "_STATEMENT_TIMEOUT_S", LONG_S)
    mine = await TaskStore.connect(database.dsn)
    admin = await asyncpg.connect(database.dsn)

    async def waits() -> bool:
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(await admin.fetchval(blocked))

    async with admin.transaction():
        await admin.execute("LOCK TABLE model_calls IN EXCLUSIVE MODE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, mine, ended("x"))
            await until(waits, "the write waits for the lock")
            tasks.cancel_scope.cancel()
    assert await write(mine, ended("x"), ended("y")) == 0.5
    assert await store.calls("t") == [ended("x"), ended("y")]
    await admin.close()
    await mine.close()
