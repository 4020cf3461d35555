"""Commands between processes are seen whenever they come, and the end of a task too."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import asyncpg
import pytest

from mas.core.events import TaskFinished
from mas.errors import UsageError
from mas.model import Status
from mas.store.address import Address
from mas.store.commands import watch_cancel
from mas.store.postgres import TaskStore
from tests.store.support import Door, Line, begin, hang_up
from tests.support import until

LONG_S = 60.0

FINISHED = TaskFinished(status=Status.CANCELLED, result={}, error="enough")


class Reasons:
    """What a watcher was told."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._heard = anyio.Event()

    def __call__(self, reason: str) -> None:
        self.all.append(reason)
        self._heard.set()

    async def next(self) -> None:
        with anyio.fail_after(LONG_S):
            await self._heard.wait()
        self._heard = anyio.Event()


@asynccontextmanager
async def watching(dsn: str, task_id: str) -> AsyncIterator[Reasons]:
    reasons = Reasons()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_cancel, dsn, task_id, reasons)
        yield reasons
        tasks.cancel_scope.cancel()


async def until_idle(database: Address, query: str) -> None:
    """Return when a session has run the statement and waits."""
    admin = await asyncpg.connect(database.dsn)

    async def is_there() -> bool:
        found = await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
            " AND state = 'idle' AND starts_with(ltrim(query, E' \\n'), $2)",
            database.database,
            query,
        )
        return bool(found)

    await until(is_there, f"a session waits after {query}", deadline_s=LONG_S)
    await admin.close()


async def pending(database: Address) -> int:
    admin = await asyncpg.connect(database.dsn)
    count = await admin.fetchval(
        "SELECT count(*) FROM task_commands WHERE taken_at IS NULL"
    )
    await admin.close()
    return int(count)


async def until_taken(database: Address) -> None:
    async def is_taken() -> bool:
        return await pending(database) == 0

    await until(is_taken, "the request is marked as taken", deadline_s=LONG_S)


async def test_a_watcher_that_listens_is_told(
    store: TaskStore, database: Address
) -> None:
    task_id = (await begin(store)).task.id
    async with watching(database.dsn, task_id) as reasons:
        await until_idle(database, "SELECT id, reason FROM task_commands")
        await store.request_cancel(task_id, "mas cancel")
        await reasons.next()
        await until_taken(database)
        await store.request_cancel(task_id, "once \x00 more")
        await reasons.next()
        await until_taken(database)
    assert reasons.all == ["mas cancel", "once \ufffd more"]


async def test_a_request_from_before_the_watcher_is_seen(
    store: TaskStore, database: Address
) -> None:
    task_id = (await begin(store)).task.id
    for _ in range(2):  # the second says nothing new
        await store.request_cancel(task_id, "mas cancel")
    async with watching(database.dsn, task_id) as reasons:
        await reasons.next()
        await until_taken(database)
    assert reasons.all == ["mas cancel"]


async def test_another_tasks_cancel_is_not_heard(
    store: TaskStore, database: Address
) -> None:
    mine, other = (await begin(store)).task.id, (await begin(store)).task.id
    async with watching(database.dsn, mine) as reasons:
        await store.request_cancel(other, "not this one")
        await store.request_cancel(mine, "this one")
        await reasons.next()
    assert reasons.all == ["this one"]
    assert await pending(database) >= 1


async def test_a_request_made_while_the_line_is_lost_is_seen(
    store: TaskStore, database: Address, door: Door
) -> None:
    task_id = (await begin(store)).task.id
    async with watching(door.dsn, task_id) as reasons:
        await until_idle(database, "SELECT id, reason FROM task_commands")
        await door.refuse()  # no timer woke it: the end of the connection did
        await store.request_cancel(task_id, "mas cancel")
        await door.open()
        await reasons.next()
        await until_taken(database)
    assert reasons.all == ["mas cancel"]


async def test_a_watcher_revives_the_server_when_it_goes(
    store: TaskStore, database: Address, door: Door
) -> None:
    task_id = (await begin(store)).task.id
    reasons = Reasons()

    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await watch_cancel(door.dsn, task_id, reasons, revive=door.open)

        tasks.start_soon(watch)
        await until_idle(database, "SELECT id, reason FROM task_commands")
        await door.remove()
        await store.request_cancel(task_id, "mas cancel")
        await reasons.next()
        tasks.cancel_scope.cancel()
    assert reasons.all == ["mas cancel"]


@pytest.mark.parametrize("answers", [2, 3])
async def test_a_request_whose_taking_is_not_answered_is_told_once(
    store: TaskStore, database: Address, line: Line, answers: int
) -> None:
    task_id = (await begin(store)).task.id
    async with watching(line.url, task_id) as reasons:
        await until_idle(database, "SELECT id, reason FROM task_commands")
        line.lose_answer(after=answers)  # the notice and the request come, and a bit
        await store.request_cancel(task_id, "mas cancel")
        await reasons.next()
        with anyio.fail_after(LONG_S):
            await line.swallowed.wait()
        await until_taken(database)
    assert reasons.all == ["mas cancel"]


async def test_what_was_asked_of_a_former_owner_is_not_asked_of_the_next(
    store: TaskStore, database: Address
) -> None:
    task_id = (await begin(store)).task.id
    await store.request_cancel(task_id, "too late")
    await store.release_task(task_id)
    await store.take_task(task_id, "supervisor-2")
    assert await pending(database) == 0
    async with watching(database.dsn, task_id) as reasons:
        await until_idle(database, "SELECT id, reason FROM task_commands")
        await store.request_cancel(task_id, "in time")
        await reasons.next()
    assert reasons.all == ["in time"]


async def test_a_request_outlasts_the_owners_lost_connection(
    store: TaskStore, database: Address
) -> None:
    task_id = (await begin(store)).task.id
    await store.request_cancel(task_id, "mas cancel")
    await hang_up(database)
    assert (await store.task(task_id)) is not None
    async with watching(database.dsn, task_id) as reasons:
        await reasons.next()
    assert reasons.all == ["mas cancel"]


Waiting = Callable[[str], AbstractAsyncContextManager[list[Status | None]]]


@pytest.fixture
async def waiting(database: Address, door: Door) -> AsyncIterator[Waiting]:
    """Wait, in the background, for a task's end, over a way that can be shut."""
    other = await TaskStore.connect(door.dsn)

    @asynccontextmanager
    async def wait(task_id: str) -> AsyncIterator[list[Status | None]]:
        ended: list[Status | None] = []
        async with anyio.create_task_group() as tasks:

            async def see() -> None:
                ended.append(await other.wait_until_finished(task_id, LONG_S))

            tasks.start_soon(see)
            await until_idle(database, "SELECT status FROM tasks")
            yield ended

    yield wait
    await other.close()


async def test_the_end_of_a_task_is_told_at_once(
    store: TaskStore, waiting: Waiting
) -> None:
    facts = await begin(store)
    async with waiting(facts.task.id) as ended:
        assert ended == []
        await store.commit(facts.task.id, 1, facts.add(FINISHED))
    assert ended == [Status.CANCELLED]


async def test_the_end_of_a_task_is_told_across_a_lost_connection(
    store: TaskStore, waiting: Waiting, door: Door
) -> None:
    facts = await begin(store)
    async with waiting(facts.task.id) as ended:
        await door.refuse()
        await store.commit(facts.task.id, 1, facts.add(FINISHED))
        await door.open()
    assert ended == [Status.CANCELLED]


async def test_a_task_that_has_ended_is_not_waited_for(store: TaskStore) -> None:
    facts = await begin(store)
    await store.commit(facts.task.id, 1, facts.add(FINISHED))
    ended = await store.wait_until_finished(facts.task.id, LONG_S)
    assert ended is Status.CANCELLED


async def test_a_task_that_does_not_end_in_time_has_no_end(store: TaskStore) -> None:
    facts = await begin(store)
    assert await store.wait_until_finished(facts.task.id, 0.3) is None


async def test_the_end_of_an_unknown_task_is_not_waited_for(store: TaskStore) -> None:
    with pytest.raises(UsageError, match="there is no task"):
        await store.wait_until_finished("nothing", LONG_S)
