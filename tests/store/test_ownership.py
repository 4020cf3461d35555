"""One supervisor at a time holds a task; lost lines and lost answers harm nothing."""

import anyio
import asyncpg
import pytest

from mas.core.events import TaskFinished
from mas.errors import OwnershipLostError, StoreError, UsageError
from mas.model import LogRecord, Status
from mas.store import postgres
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import (
    Facts,
    Line,
    begin,
    completed,
    hang_up,
    new_task,
    started,
)


async def test_a_held_task_cannot_be_taken(store: TaskStore, database: Address) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    other = await TaskStore.connect(database.dsn)
    for taker in (other, store):
        with pytest.raises(OwnershipLostError, match="held by a supervisor"):
            await taker.take_task(task_id, "supervisor-2")
    await store.commit(task_id, 1, facts.add(started("a")))
    await other.close()


async def test_a_task_is_taken_when_its_owner_is_gone(
    store: TaskStore, database: Address
) -> None:
    gone = await TaskStore.connect(database.dsn)
    facts = await begin(gone)
    task_id = facts.task.id
    await gone.close()
    before = await store.task(task_id)
    assert before is not None
    assert before.owner_alive is False
    assert await store.take_task(task_id, "supervisor-2") == 2
    after = await store.task(task_id)
    assert after is not None
    assert (after.owner, after.owner_epoch) == ("supervisor-2", 2)
    assert after.owner_alive is True
    await store.commit(task_id, 2, facts.add(started("a")))
    assert await store.events(task_id) == facts.all


async def test_a_released_task_can_be_taken_and_not_written(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    await store.release_task(task_id)
    await store.release_task(task_id)
    [listed] = await store.tasks()
    assert listed.owner_alive is False
    other = await TaskStore.connect(database.dsn)
    assert await other.take_task(task_id, "supervisor-2") == 2
    with pytest.raises(OwnershipLostError):
        await store.commit(task_id, 1, facts.add(started("a")))
    await other.close()


async def test_an_unknown_task_is_not_taken_nor_locked(
    store: TaskStore, database: Address
) -> None:
    with pytest.raises(UsageError):
        await store.take_task("nothing", "supervisor-1")
    other = await TaskStore.connect(database.dsn)
    task = new_task(id="nothing")
    await other.create_task(task, Facts(task).created())
    await other.close()


async def test_a_finished_task_is_not_taken(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    end = TaskFinished(status=Status.CANCELLED, result={}, error="unwanted")
    await store.commit(facts.task.id, 1, facts.add(end))
    await store.release_task(facts.task.id)
    other = await TaskStore.connect(database.dsn)
    with pytest.raises(UsageError, match="is finished: cancelled"):
        await other.take_task(facts.task.id, "supervisor-2")
    found = await other.task(facts.task.id)
    assert found is not None
    assert (found.owner_epoch, found.owner_alive) == (1, False)
    await other.close()


async def test_a_second_task_of_the_same_id_is_refused(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    await store.release_task(facts.task.id)
    twin = new_task(id=facts.task.id, owner="supervisor-2")
    other = await TaskStore.connect(database.dsn)
    with pytest.raises(StoreError, match="already"):
        await other.create_task(twin, Facts(twin).created())
    assert await store.take_task(twin.id, "supervisor-3") == 2  # it kept no lock
    await other.close()


async def test_an_epoch_that_moved_on_writes_nothing(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("UPDATE tasks SET owner_epoch = 2")
    batch = facts.add(started("a"), completed("a"))
    for _ in range(2):
        with pytest.raises(OwnershipLostError):
            await store.commit(task_id, 1, batch)
    assert await store.results(task_id) == []
    assert await store.events(task_id) == facts.all[:1]
    await admin.close()


async def test_a_fact_of_another_owner_is_not_taken_for_a_repetition(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(
        "INSERT INTO task_events VALUES ($1, 2, now(), 'waiting', '{}')", task_id
    )
    batch = facts.add(started("a"), completed("a"))
    with pytest.raises(OwnershipLostError):
        await store.commit(task_id, 1, batch)
    assert await admin.fetchval("SELECT count(*) FROM task_events") == 2
    assert await admin.fetchval("SELECT count(*) FROM subtask_results") == 0
    await admin.close()


async def test_after_a_hang_up_the_work_goes_on(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    await hang_up(database)
    await store.commit(task_id, 1, facts.add(started("a"), completed("a")))
    assert await store.events(task_id) == facts.all
    [task] = await store.tasks()
    assert task.owner_alive is True


async def test_a_task_taken_during_a_hang_up_is_lost(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    kept = await begin(store)
    await hang_up(database)
    other = await TaskStore.connect(database.dsn)
    assert await other.take_task(facts.task.id, "supervisor-2") == 2
    with pytest.raises(OwnershipLostError):
        await store.commit(facts.task.id, 1, facts.add(started("a")))
    await other.release_task(facts.task.id)
    with pytest.raises(OwnershipLostError):
        await store.commit(facts.task.id, 1, facts.all[1:])
    await store.commit(kept.task.id, 1, kept.add(started("a")))
    await other.close()


async def test_a_commit_whose_answer_is_lost_is_done_once(line: Line) -> None:
    store = await TaskStore.connect(line.url)
    facts = await begin(store)
    line.lose_answer()
    await store.commit(facts.task.id, 1, facts.add(started("a"), completed("a")))
    assert line.swallowed.is_set()
    assert await store.events(facts.task.id) == facts.all
    assert len(await store.results(facts.task.id)) == 1
    await store.close()


@pytest.mark.parametrize("answers", range(6))
async def test_creating_survives_the_loss_of_any_answer(
    line: Line, answers: int
) -> None:
    store = await TaskStore.connect(line.url)
    facts = Facts(new_task())
    line.lose_answer(after=answers)
    await store.create_task(facts.task, facts.created())
    assert line.swallowed.is_set()
    await store.commit(facts.task.id, 1, facts.add(started("a")))
    assert await store.events(facts.task.id) == facts.all
    await store.close()


async def test_a_line_gone_dead_is_given_up(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_STATEMENT_TIMEOUT_S", 0.3)
    store = await TaskStore.connect(line.url)
    facts = await begin(store)
    line.go_dead()
    with anyio.fail_after(5):
        await store.commit(facts.task.id, 1, facts.add(started("a")))
    assert line.swallowed.is_set()
    assert await store.events(facts.task.id) == facts.all
    [task] = await store.tasks()
    assert task.owner_alive is True
    await store.close()


async def test_a_server_that_stays_away_is_told_in_time(line: Line) -> None:
    store = await TaskStore.connect(line.url, outage_timeout_s=0.5)
    facts = await begin(store)
    line.refuses = True
    line.lose_answer()
    with anyio.fail_after(5), pytest.raises(StoreError) as caught:
        await store.commit(facts.task.id, 1, facts.add(started("a")))
    assert "did not come back within 0.5 s" in caught.value.message
    assert caught.value.hint
    line.refuses = False
    await store.commit(facts.task.id, 1, facts.all[1:])
    assert await store.events(facts.task.id) == facts.all
    await store.close()


@pytest.mark.parametrize("answers", range(6))
async def test_what_follows_a_cancelled_write_is_durable(
    line: Line, database: Address, answers: int
) -> None:
    store = await TaskStore.connect(line.url)
    facts = Facts(new_task())
    first = facts.created()
    line.hold_answers(after=answers)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.create_task, facts.task, first)
        with anyio.fail_after(10):
            await line.swallowed.wait()
        tasks.cancel_scope.cancel()
    await line.deliver()
    await store.create_task(facts.task, first)
    await store.commit(facts.task.id, 1, facts.add(started("a")))
    other = await TaskStore.connect(database.dsn)
    assert await other.events(facts.task.id) == facts.all
    await other.close()
    await store.close()


async def test_a_cancelled_read_leaves_the_task_held(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    task_id = facts.task.id
    other = await TaskStore.connect(database.dsn)
    admin = await asyncpg.connect(database.dsn)
    async with admin.transaction():
        await admin.execute("LOCK TABLE task_events")
        with anyio.move_on_after(0.2) as waiting:
            await store.events(task_id)
        assert waiting.cancelled_caught
    with pytest.raises(OwnershipLostError):
        await other.take_task(task_id, "supervisor-2")
    await store.commit(task_id, 1, facts.add(started("a")))
    assert await other.events(task_id) == facts.all
    await other.close()
    await admin.close()


async def test_a_refusal_carries_its_evidence(
    store: TaskStore, database: Address
) -> None:
    facts = await begin(store)
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("ALTER TABLE agent_logs RENAME TO gone")
    record = LogRecord(at=facts.task.created_at, agent_id="a", level="i", message="m")
    with pytest.raises(StoreError) as caught:
        await store.write_logs([record])
    assert 'relation "agent_logs" does not exist' in caught.value.message
    assert "42P01" in caught.value.evidence
    await store.commit(facts.task.id, 1, facts.add(started("a")))
    await admin.close()
