"""What a supervisor records is there for everybody, the same after any repetition."""

from datetime import UTC, datetime, timedelta

import anyio
import asyncpg
import pytest

from mas.core.events import (
    AgentReady,
    AttemptProgress,
    PlanAccepted,
    TaskFinished,
    TaskSuspended,
)
from mas.errors import UsageError
from mas.model import FailureKind, LogRecord, Status, Usage
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import (
    OUTPUT,
    PLAN,
    Facts,
    completed,
    failed,
    new_task,
    started,
    subtask_done,
)


async def test_a_new_task_is_there_with_its_first_facts(store: TaskStore) -> None:
    task = new_task(plan=PLAN, description="zähl die Wörter\n'quoted' \\ \U0001f389")
    facts = Facts(task)
    await store.create_task(task, facts.created())
    kept = await store.task(task.id)
    assert kept is not None
    assert (kept.owner_epoch, kept.owner_alive) == (1, True)
    assert kept.description == task.description
    assert kept.plan == PLAN
    assert (kept.status, kept.created_at) == (Status.IN_PROGRESS, task.created_at)
    assert await store.events(task.id) == facts.all


async def test_facts_come_back_as_they_were(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    ready = AgentReady(agent_id="agent_1", pid=7, capabilities=("data_analysis",))
    await store.commit(task.id, 1, facts.add(ready, started("a")))
    await store.commit(task.id, 1, facts.add(completed("a"), subtask_done("a")))
    await store.commit(task.id, 1, facts.add(started("b")))
    await store.commit(task.id, 1, [])
    assert await store.events(task.id) == facts.all
    assert await store.events(task.id, after=4) == facts.all[4:]


async def test_each_attempt_that_began_is_a_result(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    await store.commit(task.id, 1, facts.add(started("a"), started("b")))
    await store.commit(task.id, 1, facts.add(failed("a", error="no result.json")))
    await store.commit(task.id, 1, facts.add(started("a", 2)))
    ended = facts.add(completed("a", 2), subtask_done("a"))
    await store.commit(task.id, 1, ended)

    rows = {(row.subtask_id, row.attempt): row for row in await store.results(task.id)}
    assert set(rows) == {("a", 1), ("b", 1), ("a", 2)}
    assert rows["a", 1].status is Status.FAILED
    assert rows["a", 1].failure is FailureKind.NO_RESULT
    assert (rows["a", 1].output, rows["a", 1].error) == (None, "no result.json")
    done = rows["a", 2]
    assert (done.status, done.output, done.error) == (Status.COMPLETED, OUTPUT, None)
    assert done.usage == Usage(input_tokens=7, cost_usd=0.25)
    assert done.finished_at == ended[0].at
    assert done.started_at == ended[0].at - timedelta(seconds=2.5)
    assert done.execution_time == 2.5
    assert rows["b", 1].status is Status.IN_PROGRESS
    assert rows["b", 1].started_at == facts.all[2].at
    assert (rows["b", 1].finished_at, rows["b", 1].execution_time) == (None, None)


async def test_results_are_in_the_order_of_their_start(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    await store.commit(task.id, 1, facts.add(completed("late", execution_time=1)))
    await store.commit(task.id, 1, facts.add(completed("early", execution_time=60)))
    await store.commit(task.id, 1, facts.add(started("now")))
    rows = await store.results(task.id)
    assert [row.subtask_id for row in rows] == ["early", "late", "now"]


async def test_the_tasks_row_follows_from_its_facts(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    await store.commit(task.id, 1, facts.add(PlanAccepted(plan=PLAN)))
    planned = await store.task(task.id)
    assert planned is not None
    assert planned.plan == PLAN

    [suspended] = facts.add(TaskSuspended(reason="budget", hint="mas resume"))
    await store.commit(task.id, 1, [suspended])
    waiting = await store.task(task.id)
    assert waiting is not None
    assert (waiting.status, waiting.error) == (Status.IN_PROGRESS, None)
    assert (waiting.updated_at, waiting.finished_at) == (suspended.at, None)

    end = TaskFinished(status=Status.FAILED, result=OUTPUT, error="1 of 2 failed")
    batch = facts.add(completed("a"), end)
    await store.commit(task.id, 1, batch)
    ended = await store.task(task.id)
    assert ended is not None
    assert (ended.status, ended.error) == (Status.FAILED, "1 of 2 failed")
    assert (ended.result, ended.plan) == (OUTPUT, PLAN)
    assert ended.finished_at == ended.updated_at == batch[1].at
    assert await store.events(task.id) == facts.all


async def test_repeating_a_batch_changes_nothing(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    end = TaskFinished(status=Status.COMPLETED, result=OUTPUT)
    first = facts.add(started("a"), completed("a"))
    rest = facts.add(subtask_done("a"), started("b"), completed("b"), end)
    await store.commit(task.id, 1, first)
    await store.commit(task.id, 1, first)
    await store.commit(task.id, 1, facts.all[1:])  # a part of it is there
    before = (await store.task(task.id), await store.results(task.id))
    await store.commit(task.id, 1, rest)
    await store.commit(task.id, 1, facts.all[1:])
    assert (await store.task(task.id), await store.results(task.id)) == before
    assert await store.events(task.id) == facts.all
    assert len(before[1]) == 2


async def test_an_attempt_has_one_result_the_first(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    await store.commit(task.id, 1, facts.add(failed("a")))
    await store.commit(task.id, 1, facts.add(completed("a"), started("b")))
    statuses = [row.status for row in await store.results(task.id)]
    assert statuses == [Status.FAILED, Status.IN_PROGRESS]
    assert await store.events(task.id) == facts.all


async def test_thousands_of_facts_are_one_commit(
    store: TaskStore, database: Address
) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    many = [
        event
        for number in range(1000)
        for event in (started(f"s{number}"), completed(f"s{number}"))
    ]
    await store.commit(task.id, 1, facts.add(*many))
    assert await store.events(task.id) == facts.all
    admin = await asyncpg.connect(database.dsn)
    commits = await admin.fetchval(
        "SELECT count(DISTINCT created_at) FROM subtask_results"
    )
    await admin.close()
    assert commits == 1


async def test_what_is_not_journaled_is_not_taken(store: TaskStore) -> None:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    progress = AttemptProgress(
        subtask_id="a", attempt=1, agent_id="agent_1", activity="Read"
    )
    [recorded] = facts.add(progress)
    unnumbered = type(recorded)(
        seq=None, at=recorded.at, task_id=task.id, event=progress
    )
    with pytest.raises(ValueError, match="AttemptProgress is not journaled"):
        await store.commit(task.id, 1, [unnumbered])


async def test_commits_and_reads_at_once_take_turns(store: TaskStore) -> None:
    tasks = [new_task() for _ in range(5)]
    journals = [Facts(task) for task in tasks]
    for facts in journals:
        await store.create_task(facts.task, facts.created())

    async def work(facts: Facts) -> None:
        for number in range(5):
            await store.commit(facts.task.id, 1, facts.add(started(f"s{number}")))
            assert await store.events(facts.task.id) == facts.all

    async with anyio.create_task_group() as group:
        for facts in journals:
            group.start_soon(work, facts)
    assert len(await store.tasks()) == 5


async def test_tasks_are_listed_newest_first(store: TaskStore) -> None:
    now = datetime.now(UTC)
    made = [new_task(created_at=now - timedelta(minutes=age)) for age in (2, 0, 1)]
    for task in made:
        await store.create_task(task, Facts(task).created())
    newest_first = [made[1].id, made[2].id, made[0].id]
    assert [task.id for task in await store.tasks()] == newest_first
    assert [task.id for task in await store.tasks(limit=2)] == newest_first[:2]
    assert (await store.find_task("-")).id == made[1].id


async def test_a_task_is_found_by_the_beginning_of_its_id(store: TaskStore) -> None:
    for task_id in ("abc", "abcd", "ab_d", "ab%e"):
        task = new_task(id=task_id, description=f"task {task_id}\nmore")
        await store.create_task(task, Facts(task).created())
    assert (await store.find_task("abc")).id == "abc"
    assert (await store.find_task("ab_")).id == "ab_d"
    with pytest.raises(UsageError) as ambiguous:
        await store.find_task("ab")
    assert "4 tasks begin with 'ab'" in ambiguous.value.message
    assert "ab%e  in_progress  task ab%e" in ambiguous.value.evidence
    with pytest.raises(UsageError) as unknown:
        await store.find_task("x")
    assert "no task 'x'" in unknown.value.message
    assert "abcd" in unknown.value.evidence


async def test_without_tasks_there_is_none_to_find(store: TaskStore) -> None:
    assert await store.task("x") is None
    for words in ("-", "x"):
        with pytest.raises(UsageError) as caught:
            await store.find_task(words)
        assert "mas run" in caught.value.hint


async def test_logs_are_found_by_task_and_agent(store: TaskStore) -> None:
    start = datetime.now(UTC)
    records = [
        LogRecord(
            at=start + timedelta(milliseconds=number),
            agent_id=f"agent_{number % 2}",
            task_id="t1" if number < 4 else None,
            subtask_id="a" if number == 0 else None,
            level="info",
            message=f"line {number}",
        )
        for number in range(6)
    ]
    await store.write_logs(records[3:])
    await store.write_logs(records[:3])
    await store.write_logs([])
    assert await store.logs() == records
    assert await store.logs(limit=2) == records[-2:]
    assert await store.logs(task_id="t1") == records[:4]
    assert await store.logs("t1", "agent_1") == [records[1], records[3]]


async def test_what_logs_may_not_hold_is_replaced(store: TaskStore) -> None:
    record = LogRecord(
        at=datetime.now(UTC), agent_id="a", level="info", message="a\0b\ud800c"
    )
    await store.write_logs([record])
    assert [row.message for row in await store.logs()] == ["a\ufffdb\ufffdc"]


async def test_only_logs_commit_without_waiting_for_the_disk(
    store: TaskStore, database: Address
) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(
        """
        CREATE TABLE seen (id serial, written text, setting text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen (written, setting)
            VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER see AFTER INSERT ON agent_logs EXECUTE FUNCTION see();
        CREATE TRIGGER see AFTER INSERT ON task_events EXECUTE FUNCTION see();
        """
    )
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    record = LogRecord(at=task.created_at, agent_id="a", level="info", message="m")
    await store.write_logs([record])
    await store.commit(task.id, 1, facts.add(started("a")))
    seen = await admin.fetch("SELECT written, setting FROM seen ORDER BY id")
    await admin.close()
    assert [tuple(row) for row in seen] == [
        ("task_events", "on"),
        ("agent_logs", "off"),
        ("task_events", "on"),
    ]


async def test_the_servers_version_is_told(store: TaskStore) -> None:
    assert (await store.server_version()).startswith("18.")
