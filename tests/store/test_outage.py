"""PostgreSQL goes away: it is waited for as long as allowed, and nothing is lost."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import asyncpg
import pytest

from mas.errors import NotReadyError, OutageError, OwnershipLostError
from mas.store import outage, postgres
from mas.store.address import Address
from mas.store.postgres import TaskStore
from mas.store.sql import ConnectionLostError
from tests.store.support import (
    Door,
    Facts,
    Line,
    begin,
    completed,
    hang_up,
    refusal,
    started,
)

LONG_S = 60.0
"""An outage timeout that no test waits for."""


class Tries:
    """Counts the tries to reconnect, and does something before one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.actions: dict[int, Callable[[], Awaitable[None]]] = {}

    async def __call__(self) -> None:
        self.count += 1
        if action := self.actions.get(self.count):
            await action()


class Told:
    """What the store says of an outage."""

    def __init__(self) -> None:
        self.all: list[str | None] = []
        self.something = anyio.Event()

    def __call__(self, reason: str | None) -> None:
        self.all.append(reason)
        self.something.set()


@pytest.mark.parametrize("away", ["refused", "missing", "starting", "full", "hangs up"])
async def test_nothing_is_lost_however_the_server_is_away(
    door: Door, away: str
) -> None:
    tries, told = Tries(), Told()
    store = await TaskStore.connect(
        door.dsn, outage_timeout_s=LONG_S, revive=tries, on_outage=told
    )
    facts = await begin(store)
    tries.actions[5] = door.open
    async with anyio.create_task_group() as tasks:
        match away:
            case "refused":
                await door.refuse()
            case "missing":
                await door.remove()
            case "starting":
                said = "the database system is starting up"
                await door.answer(tasks, refusal("57P03", said))
            case "full":
                said = "sorry, too many clients already"
                await door.answer(tasks, refusal("53300", said))
            case _:
                await door.answer(tasks, b"")
        await store.commit(facts.task.id, 1, facts.add(started("a"), completed("a")))
    assert tries.count >= 5
    assert await store.events(facts.task.id) == facts.all
    [reason, back] = told.all
    assert reason is not None
    assert reason.startswith(f"PostgreSQL at {door.path} to come back: ")
    expected = {
        "refused": "Connection refused",
        "missing": "No such file",
        "starting": "starting up",
        "full": "too many clients",
    }
    assert expected.get(away, "") in reason
    assert back is None
    [task] = await store.tasks()
    assert task.owner_alive is True
    await store.close()


async def test_a_server_that_says_nothing_is_called_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TRY_TIMEOUT_S", 0.5)
    tries, told = Tries(), Told()
    store = await TaskStore.connect(
        door.dsn, outage_timeout_s=LONG_S, revive=tries, on_outage=told
    )
    facts = await begin(store)
    async with anyio.create_task_group() as tasks:
        await door.answer(tasks, None)

        async def patiently() -> None:
            await door.open()
            monkeypatch.setattr(postgres, "_TRY_TIMEOUT_S", 30)

        tries.actions[3] = patiently
        await store.commit(facts.task.id, 1, facts.add(started("a")))
        tasks.cancel_scope.cancel()
    assert tries.count >= 3
    assert len(told.all) == 2
    assert await store.events(facts.task.id) == facts.all
    await store.close()


async def test_what_waits_for_the_server_is_written_in_order(door: Door) -> None:
    tries = Tries()
    store = await TaskStore.connect(door.dsn, outage_timeout_s=LONG_S, revive=tries)
    facts = await begin(store)
    await door.refuse()
    order: list[int] = []

    async def commit(number: int) -> None:
        await store.commit(facts.task.id, 1, facts.add(started("a", number)))
        order.append(number)

    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(1, 6):
                tasks.start_soon(commit, number)
            tries.actions[3] = door.open
    assert order == [1, 2, 3, 4, 5]
    assert await store.events(facts.task.id) == facts.all
    await store.close()


async def test_an_outage_longer_than_allowed_is_an_error_for_all_who_wait(
    door: Door,
) -> None:
    told = Told()
    store = await TaskStore.connect(door.dsn, outage_timeout_s=1, on_outage=told)
    facts = await begin(store)
    await door.refuse()
    errors: list[OutageError] = []

    async def read() -> None:
        with pytest.raises(OutageError) as caught:
            await store.events(facts.task.id)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(read)
    assert len(errors) == 5
    for error in errors:
        assert "did not come back within 1 s" in error.message
        assert "mas resume" in error.hint
        assert "Connection refused" in error.evidence
        assert error.exit_code == 4
    assert len(told.all) == 1
    await door.open()
    await store.commit(facts.task.id, 1, facts.add(started("a")))
    assert told.all[1:] == [None]
    assert await store.events(facts.task.id) == facts.all
    await store.close()


async def test_a_short_interruption_is_not_worth_a_word(
    door: Door, database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_TOLD_AFTER_S", LONG_S)
    monkeypatch.setattr(outage, "_SLOW_S", LONG_S)
    told = Told()
    store = await TaskStore.connect(door.dsn, on_outage=told)
    await hang_up(database)
    assert await store.tasks() == []
    assert told.all == []
    await store.close()


async def test_why_the_server_cannot_be_revived_is_told(door: Door) -> None:
    async def revive() -> None:
        raise NotReadyError("the keeper does not start")

    store = await TaskStore.connect(door.dsn, outage_timeout_s=0.5, revive=revive)
    await door.remove()
    with pytest.raises(OutageError) as caught:
        await store.tasks()
    assert "the keeper does not start; No such file" in caught.value.evidence
    await door.open()
    assert await store.tasks() == []  # it is tried all the same
    await store.close()


async def test_a_limit_ends_the_outage_that_is_waited_for(door: Door) -> None:
    told = Told()
    store = await TaskStore.connect(
        door.dsn, outage_timeout_s=10 * LONG_S, on_outage=told
    )
    await door.refuse()
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(OutageError):
                    await store.tasks()

            tasks.start_soon(read)
            await told.something.wait()
            store.limit_outage(0.1)
        with pytest.raises(OutageError):  # the next one too
            await store.tasks()
    await store.close()


async def test_a_limit_ends_the_wait_for_an_answer_too(line: Line) -> None:
    store = await TaskStore.connect(line.url, outage_timeout_s=10 * LONG_S)
    facts = await begin(store)
    line.go_dead()
    line.refuses = True
    with anyio.fail_after(LONG_S / 2):  # the statement's own deadline comes later
        async with anyio.create_task_group() as tasks:

            async def commit() -> None:
                with pytest.raises(OutageError):
                    await store.commit(facts.task.id, 1, facts.add(started("a")))

            tasks.start_soon(commit)
            await line.swallowed.wait()
            store.limit_outage(0.1)
    line.refuses = False
    await store.close()


async def test_past_the_deadline_there_is_one_more_try_but_not_under_a_limit() -> None:
    waiting = outage.Outage("there", 0)
    tries = Tries()

    async def operation() -> int:
        if tries.count == 0:
            raise ConnectionLostError("lost", reason="it crashed")
        return tries.count

    assert await waiting.survive(operation, tries) == 1
    tries.count = 0
    waiting.limit(0, lambda: None)
    with pytest.raises(OutageError):
        await waiting.survive(operation, tries)
    assert tries.count == 0


async def test_a_slow_answer_is_told_of(
    store: TaskStore, database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_SLOW_S", 0.1)
    told = Told()
    slow = await TaskStore.connect(database.dsn, on_outage=told)
    admin = await asyncpg.connect(database.dsn)
    async with anyio.create_task_group() as tasks, admin.transaction():
        await admin.execute("LOCK TABLE task_events")
        tasks.start_soon(slow.events, "nothing")
        with anyio.fail_after(LONG_S):
            await told.something.wait()
    assert told.all == [f"PostgreSQL at {database.where} to answer", None]
    await admin.close()
    await slow.close()


async def test_a_stopped_server_process_keeps_its_task_until_it_goes(
    database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_STATEMENT_TIMEOUT_S", 1)
    tries, told = Tries(), Told()
    store = await TaskStore.connect(
        database.dsn, outage_timeout_s=LONG_S, revive=tries, on_outage=told
    )
    facts = await begin(store)
    admin = await asyncpg.connect(database.dsn)
    pid = await admin.fetchval(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = $1 AND application_name LIKE 'mas %'",
        database.database,
    )

    async def go_on() -> None:
        monkeypatch.setattr(postgres, "_STATEMENT_TIMEOUT_S", 30)
        os.kill(pid, signal.SIGCONT)

    tries.actions[3] = go_on
    os.kill(pid, signal.SIGSTOP)
    try:
        await store.commit(facts.task.id, 1, facts.add(started("a"), completed("a")))
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert tries.count >= 3
    assert told.all[-1] is None
    assert await store.events(facts.task.id) == facts.all
    assert len(await store.results(facts.task.id)) == 1
    await admin.close()
    await store.close()


async def test_a_task_taken_during_the_outage_is_not_written(
    door: Door, database: Address
) -> None:
    tries = Tries()
    store = await TaskStore.connect(door.dsn, outage_timeout_s=LONG_S, revive=tries)
    facts = await begin(store)
    await door.refuse()
    other = await TaskStore.connect(database.dsn)

    async def take() -> None:
        assert await other.take_task(facts.task.id, "supervisor-2") == 2
        await door.open()

    tries.actions[2] = take
    with pytest.raises(OwnershipLostError):
        await store.commit(facts.task.id, 1, facts.add(started("a")))
    assert await other.events(facts.task.id) == facts.all[:1]
    await other.close()
    await store.close()


async def test_other_work_with_the_server_is_waited_for_as_well(door: Door) -> None:
    tries = Tries()
    store = await TaskStore.connect(door.dsn, outage_timeout_s=LONG_S, revive=tries)
    await door.refuse()
    tries.actions[2] = door.open

    async def connect_anew() -> Facts:
        other = await TaskStore.connect(door.dsn)
        facts = await begin(other)
        await other.close()
        return facts

    facts = await store.outlast(connect_anew)
    assert await store.events(facts.task.id) == facts.all
    await store.close()


async def test_an_operation_that_ends_each_connection_is_not_repeated_for_ever() -> (
    None
):
    waiting = outage.Outage("there", 1)
    count = 0

    async def operation() -> None:
        nonlocal count
        count += 1
        raise ConnectionLostError("lost", reason="it crashed")

    async def reconnect() -> None:
        pass

    with pytest.raises(OutageError) as caught:
        await waiting.survive(operation, reconnect)
    assert caught.value.evidence == "it crashed"
    assert 1 < count < 20
