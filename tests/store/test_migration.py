"""Tables of the first form keep what is in them; why a run stopped is a column now."""

import json
from importlib import resources

import asyncpg
import pytest

from mas.core.events import TaskCreated, TaskFinished, TaskResumed, TaskSuspended
from mas.model import Status
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import begin

BUDGET = TaskSuspended(reason="the budget is used up", hint="mas resume")
STOPPED = TaskSuspended(reason="Ctrl-C", hint="mas resume", interrupted=True)


async def make_first_form(database: Address) -> None:
    """A database as the first mas left it, with a task in the middle."""
    schema = resources.files("mas.store") / "schema" / "0001_initial.sql"
    events = [
        {"type": "task_created", "description": "old"},
        {"type": "task_suspended", "reason": "Ctrl-C", "hint": "mas show"},
    ]
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(schema.read_text("utf-8"))
    await admin.execute(
        "CREATE TABLE mas_schema_versions (version integer PRIMARY KEY,"
        " name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());"
        "INSERT INTO mas_schema_versions VALUES (1, '0001_initial.sql');"
        "INSERT INTO tasks VALUES ('old', 'old', 'in_progress', NULL, NULL, NULL,"
        " now(), now(), NULL, 'somebody', 1)"
    )
    for seq, event in enumerate(events, start=1):
        await admin.execute(
            "INSERT INTO task_events VALUES ('old', $1, now(), $2, $3)",
            seq,
            event["type"],
            json.dumps(event),
        )
    await admin.close()


async def test_the_first_form_is_migrated_with_its_tasks(database: Address) -> None:
    await make_first_form(database)
    store = await TaskStore.connect(database.dsn)
    [task] = await store.tasks()
    assert (task.id, task.status, task.suspended) == ("old", "in_progress", None)
    events = [recorded.event for recorded in await store.events("old")]
    assert events == [
        TaskCreated(description="old"),
        TaskSuspended(reason="Ctrl-C", hint="mas show"),
    ]
    assert await store.take_task("old", "supervisor-2") == 2
    await store.request_cancel("old", "mas cancel")
    await store.close()
    again = await TaskStore.connect(database.dsn)
    assert [task.id for task in await again.tasks()] == ["old"]
    await again.close()


async def test_why_a_run_stopped_by_itself_is_kept(store: TaskStore) -> None:
    facts = await begin(store)
    await store.commit(facts.task.id, 1, facts.add(BUDGET))
    [listed] = await store.tasks()
    found = await store.find_task(facts.task.id)
    assert listed.suspended == found.suspended == BUDGET.reason
    assert found.status is Status.IN_PROGRESS
    assert found.updated_at == facts.all[-1].at


async def test_who_was_stopped_by_a_signal_is_not_suspended(store: TaskStore) -> None:
    facts = await begin(store)
    await store.commit(facts.task.id, 1, facts.add(BUDGET, STOPPED))
    assert (await store.find_task(facts.task.id)).suspended is None


async def test_a_run_that_goes_on_is_not_suspended(store: TaskStore) -> None:
    facts = await begin(store)
    await store.commit(facts.task.id, 1, facts.add(BUDGET))
    await store.release_task(facts.task.id)
    await store.take_task(facts.task.id, "supervisor-2")
    assert (await store.find_task(facts.task.id)).suspended == BUDGET.reason
    resumed = facts.add(TaskResumed(owner="supervisor-2", epoch=2))
    await store.commit(facts.task.id, 2, resumed)
    assert (await store.find_task(facts.task.id)).suspended is None


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_a_task_that_ended_is_not_suspended(
    store: TaskStore, status: Status
) -> None:
    facts = await begin(store)
    ended = TaskFinished(status=status, result={"a": 1})
    await store.commit(facts.task.id, 1, facts.add(BUDGET, ended))
    task = await store.find_task(facts.task.id)
    assert task.suspended is None
    assert (task.status, task.result) == (status, {"a": 1})
    assert task.finished_at == facts.all[-1].at


async def test_a_reason_that_postgresql_cannot_hold_is_kept_in_part(
    store: TaskStore,
) -> None:
    facts = await begin(store)
    bad = TaskSuspended(reason="a \x00 b", hint="h")
    await store.commit(facts.task.id, 1, facts.add(bad))
    assert (await store.find_task(facts.task.id)).suspended == "a \ufffd b"
