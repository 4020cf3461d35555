"""A task whose supervisor is gone, gone on with by another one."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from mas.config import Config, Limits
from mas.core.events import (
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Recorded,
    SubtaskFinished,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
    fact_of,
)
from mas.core.progress import Progress
from mas.errors import NotReadyError, UsageError
from mas.keeper import Servers
from mas.model import AgentStatus, FailureKind, Status
from mas.store.redis import AgentBoard
from mas.supervisor.services import open_store
from mas.supervisor.supervisor import Supervisor
from tests.support import GoOn, Run, RunPlan


def acts(key: str, *acts: str, **fields: Any) -> dict[str, Any]:
    return {"key": key, "input_data": {"acts": list(acts)}} | fields


def interrupt_at(key: str) -> Callable[[Supervisor, Recorded], None]:
    """Interrupt the run when the subtask says that it hangs."""

    def show(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AttemptProgress) and event.subtask_id == key:
            supervisor.interrupt("interrupted by the test")

    return show


async def journal_of(config: Config, run: Run) -> list[Recorded]:
    async with open_store(config) as store:
        return await store.events(run.supervisor.task_id)


CHAIN = (
    acts("first", "ok"),
    acts("second", "hang", "ok", dependencies=["first"]),
    acts("third", "ok", dependencies=["second"]),
)


async def test_what_is_finished_is_not_run_again(
    run_plan: RunPlan, go_on: GoOn, config: Config
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    assert isinstance(cut.outcome, TaskSuspended) and cut.outcome.interrupted
    assert f"mas resume {cut.supervisor.task_id}" in cut.outcome.hint
    run = await go_on(cut.supervisor.task_id)
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.COMPLETED
    assert set(run.outcome.result["subtasks"]) == {"first", "second", "third"}
    started = [(it.subtask_id, it.attempt) for it in run.events(AttemptStarted)]
    assert started == [("second", 2), ("third", 1)]
    [resumed] = run.events(TaskResumed)
    assert resumed.owner.startswith(run.supervisor.id)
    journal = await journal_of(config, cut)
    assert journal == run.recalled + [it for it in run.shown if it.seq is not None]
    assert [it.seq for it in journal] == list(range(1, len(journal) + 1))


async def test_a_cut_off_attempt_goes_on_in_its_session_and_costs_no_try(
    run_plan: RunPlan, go_on: GoOn
) -> None:
    limits = Limits(max_attempts=1)
    cut = await run_plan(*CHAIN, show=interrupt_at("second"), limits=limits)
    begun = next(it for it in cut.events(AttemptStarted) if it.subtask_id == "second")
    run = await go_on(cut.supervisor.task_id, limits=limits)
    again = next(it for it in run.events(AttemptStarted) if it.subtask_id == "second")
    assert (again.session_id, again.resumes) == (begun.session_id, True)
    settled = run.events(AttemptFinished)[0]
    assert (settled.subtask_id, settled.attempt) == ("second", 1)
    assert (settled.failure, settled.retry_in_s) == (FailureKind.AGENT_LOST, 0.0)
    assert run.outcome.status is Status.COMPLETED  # type: ignore[union-attr]


def leave_result(workspace: Path, *, attempt: int, **fields: Any) -> None:
    """Leave what an agent leaves that dies after it has written its result."""
    (workspace / "context").mkdir(parents=True, exist_ok=True)
    (workspace / "output").mkdir(exist_ok=True)
    (workspace / "context" / "task.json").write_text(json.dumps({"attempt": attempt}))
    result = {"success": True, "data": {}, "summary": "left", "files_created": []}
    (workspace / "output" / "result.json").write_text(json.dumps(result | fields))


async def test_a_result_that_was_left_counts_without_another_attempt(
    run_plan: RunPlan, go_on: GoOn
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    leave_result(cut.supervisor.folder / "second", attempt=1, data={"n": 7})
    run = await go_on(cut.supervisor.task_id)
    assert isinstance(run.outcome, TaskFinished)
    assert [it.subtask_id for it in run.events(AttemptStarted)] == ["third"]
    assert run.outcome.result["subtasks"]["second"]["result"]["data"] == {"n": 7}


@pytest.mark.parametrize(
    ("attempt", "fields"),
    [(7, {}), (1, {"success": False}), (1, {"files_created": ["gone"]})],
    ids=["of another attempt", "a failure", "its files are missing"],
)
async def test_what_is_no_result_of_that_attempt_does_not_count(
    run_plan: RunPlan, go_on: GoOn, attempt: int, fields: dict[str, Any]
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    leave_result(cut.supervisor.folder / "second", attempt=attempt, **fields)
    run = await go_on(cut.supervisor.task_id)
    started = [(it.subtask_id, it.attempt) for it in run.events(AttemptStarted)]
    assert started == [("second", 2), ("third", 1)]


async def test_a_task_can_be_cut_off_again_and_again(
    run_plan: RunPlan, go_on: GoOn, config: Config
) -> None:
    plan = (
        acts("a", "hang", "hang", "ok"),
        acts("b", "ok", dependencies=["a"]),
    )
    run = await run_plan(*plan, show=interrupt_at("a"))
    task_id = run.supervisor.task_id
    run = await go_on(task_id, show=interrupt_at("a"))
    assert isinstance(run.outcome, TaskSuspended)
    run = await go_on(task_id)
    assert isinstance(run.outcome, TaskFinished)
    journal = await journal_of(config, run)
    completed = Counter(
        it.event.subtask_id
        for it in journal
        if isinstance(it.event, AttemptFinished) and it.event.status is Status.COMPLETED
    )
    assert completed == {"a": 1, "b": 1}
    plan_of_task = journal[1].event.plan  # type: ignore[union-attr]
    fold = Progress(plan_of_task)
    for recorded in journal:
        fold.apply(fact_of(recorded), None)
    fold.check_invariants()
    assert fold.all_completed


async def test_a_refused_key_suspends_the_task(
    run_plan: RunPlan, go_on: GoOn, config: Config
) -> None:
    cut = await run_plan(
        acts("done", "ok"), acts("refused", "auth", "ok", dependencies=["done"])
    )
    assert isinstance(cut.outcome, TaskSuspended) and not cut.outcome.interrupted
    assert "401" in cut.outcome.reason
    async with open_store(config) as store:
        task = await store.task(cut.supervisor.task_id)
    assert task is not None and task.status is Status.IN_PROGRESS
    assert task.suspended == cut.outcome.reason
    run = await go_on(cut.supervisor.task_id)
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.COMPLETED
    assert [it.subtask_id for it in run.events(SubtaskFinished)] == ["refused"]


async def test_the_agents_of_a_dead_owner_are_shown_no_longer(
    run_plan: RunPlan, go_on: GoOn, servers: Servers
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    board = await AgentBoard.connect(servers.redis_url)
    ghost = AgentStatus(
        agent_id="agent_1",
        supervisor=cut.supervisor.id,
        pid=1,
        is_available=True,
        current_task=None,
        capabilities=(),
        cpu_usage=0.0,
        memory_usage=0.0,
        tasks_completed=0,
        last_heartbeat=datetime.now(UTC),
    )
    await board.publish(ghost, 600)
    await go_on(cut.supervisor.task_id)
    shown = [status.supervisor for status in await board.agents()]
    await board.close()
    assert cut.supervisor.id not in shown


async def test_a_finished_task_is_refused(run_plan: RunPlan, go_on: GoOn) -> None:
    run = await run_plan(acts("quick", "ok"))
    with pytest.raises(UsageError, match="is finished: completed"):
        await go_on(run.supervisor.task_id)


async def test_an_unknown_task_is_refused(go_on: GoOn) -> None:
    with pytest.raises(UsageError, match="there is no task 'nowhere'"):
        await go_on("nowhere")


async def test_a_task_that_is_being_worked_on_is_refused_with_its_owner(
    run_plan: RunPlan, go_on: GoOn, config: Config
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    async with open_store(config) as store:
        await store.take_task(cut.supervisor.task_id, "cafe0000 on laptop, process 7")
        with pytest.raises(UsageError, match="cafe0000 on laptop, process 7"):
            await go_on(cut.supervisor.task_id)
    run = await go_on(cut.supervisor.task_id)
    assert isinstance(run.outcome, TaskFinished)


async def test_a_task_whose_folder_is_gone_is_refused(
    run_plan: RunPlan, go_on: GoOn
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    cut.supervisor.folder.rename(cut.supervisor.folder.with_name("elsewhere"))
    with pytest.raises(NotReadyError, match="the folder of the task is gone"):
        await go_on(cut.supervisor.task_id)
    cut.supervisor.folder.with_name("elsewhere").rename(cut.supervisor.folder)
    assert isinstance((await go_on(cut.supervisor.task_id)).outcome, TaskFinished)


async def test_a_task_is_cancelled_from_another_process(
    run_plan: RunPlan, config: Config
) -> None:
    hangs = anyio.Event()

    def note(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, AttemptProgress):
            hung.append(supervisor.task_id)
            hangs.set()

    async def cancel() -> None:
        await hangs.wait()
        async with open_store(config) as store:
            await store.request_cancel(hung[0], "nobody wants it any more")

    hung: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        run = await run_plan(*CHAIN, show=note)
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.CANCELLED
    assert "nobody wants it any more" in (run.outcome.error or "")


async def test_a_task_that_nobody_runs_is_cancelled_at_once(
    run_plan: RunPlan, config: Config
) -> None:
    cut = await run_plan(*CHAIN, show=interrupt_at("second"))
    shown: list[Recorded] = []
    outcome = await Supervisor(config, shown.append).cancel(
        cut.supervisor.task_id, "nobody wants it any more"
    )
    assert isinstance(outcome, TaskFinished)
    assert outcome.status is Status.CANCELLED
    ended = {
        it.event.subtask_id: it.event.status
        for it in shown
        if isinstance(it.event, SubtaskFinished)
    }
    assert ended == {"second": Status.CANCELLED, "third": Status.CANCELLED}
    async with open_store(config) as store:
        task = await store.task(cut.supervisor.task_id)
        statuses = {it.status for it in await store.results(cut.supervisor.task_id)}
    assert task is not None and task.status is Status.CANCELLED
    assert statuses == {Status.COMPLETED, Status.FAILED}  # lost with its supervisor
