"""A task from its plan to its end, with real processes, pipes and servers."""

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from mas.config import Config, Limits
from mas.config import Supervisor as SupervisorSettings
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    PlanAccepted,
    Recorded,
    SubtaskFinished,
    TaskCreated,
    TaskFinished,
    TaskSuspended,
)
from mas.errors import StoreError
from mas.keeper import Servers
from mas.model import AgentSpec, AgentStatus, FailureKind, Status
from mas.store.postgres import TaskStore
from mas.store.redis import AgentBoard
from mas.supervisor.services import open_store
from mas.supervisor.supervisor import Supervisor
from tests.support import Run, RunPlan, until

DIAMOND = (
    {"key": "top", "input_data": {"data": {"n": 1}}},
    {"key": "left", "dependencies": ["top"]},
    {"key": "right", "dependencies": ["top"]},
    {"key": "join", "dependencies": ["left", "right"]},
    {"key": "after", "dependencies": ["join"]},
    {"key": "alone"},
)


def acts(key: str, *what: str, **fields: Any) -> dict[str, Any]:
    return {"key": key, "input_data": {"acts": list(what)}} | fields


def finished(run: Run) -> TaskFinished:
    assert isinstance(run.outcome, TaskFinished)
    return run.outcome


def statuses(run: Run) -> dict[str, str]:
    return {
        event.subtask_id: event.status.value for event in run.events(SubtaskFinished)
    }


async def test_a_plan_runs_to_its_end_and_all_of_it_is_recorded(
    run_plan: RunPlan, config: Config
) -> None:
    run = await run_plan(*DIAMOND)
    assert finished(run).status is Status.COMPLETED
    assert finished(run).result["subtasks"]["top"]["result"]["data"] == {"n": 1}
    async with open_store(config) as store:
        task = await store.task(run.supervisor.task_id)
        events = await store.events(run.supervisor.task_id)
        results = await store.results(run.supervisor.task_id)
    assert task is not None
    assert (task.status, task.owner_alive) == (Status.COMPLETED, False)
    assert task.result == finished(run).result
    assert task.plan is not None and len(task.plan.subtasks) == len(DIAMOND)
    assert events == [event for event in run.shown if event.seq is not None]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0].event, TaskCreated)
    assert isinstance(events[1].event, PlanAccepted)
    assert isinstance(run.shown[-1].event, TaskFinished)
    assert {result.subtask_id for result in results} == {t["key"] for t in DIAMOND}
    assert {result.status for result in results} == {Status.COMPLETED}


async def test_a_subtask_starts_only_after_its_dependencies_are_recorded(
    run_plan: RunPlan,
) -> None:
    run = await run_plan(*DIAMOND)
    done: set[str] = set()
    needs = {str(task["key"]): task.get("dependencies", []) for task in DIAMOND}
    for recorded in run.shown:
        if isinstance(recorded.event, AttemptStarted):
            assert done.issuperset(needs[recorded.event.subtask_id])
        elif isinstance(recorded.event, SubtaskFinished):
            done.add(recorded.event.subtask_id)
    assert done == set(needs)


async def test_a_failed_subtask_takes_its_dependents_along_and_nobody_else(
    run_plan: RunPlan,
) -> None:
    run = await run_plan(
        acts("bad", "fail"),
        acts("child", "ok", dependencies=["bad"]),
        acts("grandchild", "ok", dependencies=["child"]),
        acts("other", "ok"),
        limits=Limits(max_attempts=1),
    )
    assert finished(run).status is Status.FAILED
    assert "bad" in (finished(run).error or "")
    assert statuses(run) == {
        "bad": "failed",
        "child": "cancelled",
        "grandchild": "cancelled",
        "other": "completed",
    }
    assert finished(run).result["subtasks"]["other"]["result"]["success"] is True


@pytest.mark.parametrize(
    ("act", "failure", "told"),
    [
        ("fail", FailureKind.REPORTED_FAILURE, "flaky by attempt 1"),
        ("bad_result", FailureKind.NO_RESULT, "'success' is missing"),
        ("no_result", FailureKind.NO_RESULT, "no result.json"),
        ("crash", FailureKind.AGENT_LOST, "exit code 3"),
        ("garbage", FailureKind.AGENT_LOST, "a frame that is no message"),
        ("bad_text", FailureKind.AGENT_LOST, "a frame that is no message"),
        ("huge", FailureKind.AGENT_LOST, "the limit is"),
    ],
)
async def test_an_attempt_that_fails_is_tried_again(
    run_plan: RunPlan, act: str, failure: FailureKind, told: str
) -> None:
    run = await run_plan(acts("flaky", act, "ok"))
    first, second = run.events(AttemptFinished)
    assert (first.status, first.failure) == (Status.FAILED, failure)
    assert told in first.error
    assert first.retry_in_s is not None
    assert (second.attempt, second.status) == (2, Status.COMPLETED)
    assert finished(run).status is Status.COMPLETED


async def test_a_result_of_an_attempt_nobody_ordered_changes_nothing(
    run_plan: RunPlan,
) -> None:
    run = await run_plan(acts("liar", "late"))
    [attempt] = run.events(AttemptFinished)
    assert (attempt.attempt, attempt.status) == (1, Status.COMPLETED)


@pytest.mark.parametrize("act", ["hang", "deaf"])
async def test_an_attempt_past_its_deadline_is_stopped(
    run_plan: RunPlan, act: str
) -> None:
    run = await run_plan(
        acts("slow", act),
        limits=Limits(attempt_timeout_s=1, max_attempts=1),
        supervisor=SupervisorSettings(shutdown_grace_s=0.3),
    )
    [attempt] = run.events(AttemptFinished)
    assert (attempt.status, attempt.failure) == (Status.FAILED, FailureKind.DEADLINE)
    assert finished(run).status is Status.FAILED


async def test_a_killed_agent_is_replaced_and_its_subtask_goes_on(
    run_plan: RunPlan,
) -> None:
    pids: dict[str, int] = {}

    def kill_the_worker(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AgentReady):
            pids[event.agent_id] = event.pid
        elif isinstance(event, AttemptProgress):
            os.kill(pids[event.agent_id], signal.SIGKILL)

    run = await run_plan(acts("victim", "hang", "ok"), show=kill_the_worker)
    [lost] = run.events(AgentLost)
    assert "killed by signal 9" in lost.error and not lost.retired
    assert finished(run).status is Status.COMPLETED


async def test_an_interrupted_task_is_kept(run_plan: RunPlan, config: Config) -> None:
    def interrupt(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, AttemptProgress):
            supervisor.interrupt("interrupted by the test")

    run = await run_plan(acts("endless", "hang"), show=interrupt)
    assert isinstance(run.outcome, TaskSuspended)
    assert run.outcome.reason == "interrupted by the test"
    assert run.shown[-1].event == run.outcome
    async with open_store(config) as store:
        task = await store.task(run.supervisor.task_id)
        [attempt] = await store.results(run.supervisor.task_id)
    assert task is not None
    assert (task.status, task.owner_alive) == (Status.IN_PROGRESS, False)
    assert attempt.status is Status.IN_PROGRESS


async def test_an_interruption_before_the_plan_records_nothing(
    run_plan: RunPlan, config: Config
) -> None:
    run = await run_plan(
        acts("never", "ok"), show=lambda supervisor, event: supervisor.interrupt("now")
    )
    assert isinstance(run.outcome, TaskSuspended)
    assert run.outcome.hint == "nothing was recorded yet"
    async with open_store(config) as store:
        assert await store.task(run.supervisor.task_id) is None


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("exit", "ended before it said hello"),
        ("silent", "did not say hello within"),
        ("version", "speaks protocol"),
        ("babble", "no greeting within"),
    ],
)
async def test_agents_that_cannot_be_used_fail_the_task_and_say_why(
    run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch, start: str, told: str
) -> None:
    monkeypatch.setenv("FAKE_AGENT_START", f"all={start}")
    run = await run_plan(
        acts("never", "ok"),
        roster=(AgentSpec(id="only", capabilities=("data_analysis",)),),
        supervisor=SupervisorSettings(handshake_timeout_s=3, shutdown_grace_s=1),
    )
    assert finished(run).status is Status.FAILED
    first, last = run.events(AgentLost)
    assert told in first.error
    assert (first.retired, last.retired) == (False, True)
    if start == "exit":
        assert "told to die at its start" in first.error
    assert "no agent left" in (finished(run).error or "")


async def test_an_agent_that_talks_before_its_hello_is_understood(
    run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AGENT_START", "all=print")
    assert finished(await run_plan(acts("fine", "ok"))).status is Status.COMPLETED


async def test_agents_are_on_the_board_while_they_run_and_gone_after(
    run_plan: RunPlan, servers: Servers, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    board = await AgentBoard.connect(servers.redis_url)
    seen: list[AgentStatus] = []

    async def at_work() -> bool:
        seen[:] = await board.agents()
        return len(seen) == 5 and any(status.current_task for status in seen)

    async with anyio.create_task_group() as tasks:

        async def open_the_gate() -> None:
            await until(at_work, "five agents are on the board, one at work")
            await to_thread.run_sync(gate.write_bytes, b"x")

        tasks.start_soon(open_the_gate)
        run = await run_plan(acts("one", f"gate:{gate}"))
    assert finished(run).status is Status.COMPLETED
    assert {status.supervisor for status in seen} == {run.supervisor.id}
    [busy] = [status for status in seen if status.current_task]
    assert (busy.current_task, busy.is_available) == ("one", False)
    assert await board.agents() == []
    await board.close()


async def test_results_too_large_for_a_frame_fail_the_subtask_alone(
    run_plan: RunPlan,
) -> None:
    keys = [f"big_{n}" for n in range(5)]
    run = await run_plan(
        *({"key": key, "input_data": {"size": 3_900_000}} for key in keys),
        {"key": "all", "dependencies": keys},
        {"key": "beside"},
        limits=Limits(max_attempts=1),
    )
    assert finished(run).status is Status.FAILED
    assert statuses(run) == dict.fromkeys([*keys, "beside"], "completed") | {
        "all": "failed"
    }
    assert "over the limit" in (finished(run).error or "")


async def test_an_agent_that_says_nothing_does_not_hold_up_the_end(
    run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_AGENT_START", "agent_5=silent")
    ended: list[float] = []

    def note_the_end(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, TaskFinished):
            ended.append(anyio.current_time())

    run = await run_plan(
        acts("quick", "ok"),
        show=note_the_end,
        supervisor=SupervisorSettings(handshake_timeout_s=30, shutdown_grace_s=1),
    )
    assert finished(run).status is Status.COMPLETED
    assert anyio.current_time() - ended[0] < 8


async def test_all_agents_may_die_while_the_run_is_interrupted(
    run_plan: RunPlan,
) -> None:
    pids: list[int] = []

    def kill_all(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, AgentReady):
            pids.append(recorded.event.pid)
        elif isinstance(recorded.event, AttemptProgress):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        elif isinstance(recorded.event, AgentLost):
            supervisor.interrupt("everybody is dead")

    run = await run_plan(acts("endless", "hang"), show=kill_all)
    assert isinstance(run.outcome, TaskSuspended)


async def test_an_interruption_that_comes_too_late_changes_nothing(
    run_plan: RunPlan, config: Config
) -> None:
    def interrupt(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, TaskFinished):
            supervisor.interrupt("too late")

    run = await run_plan(acts("quick", "ok"), show=interrupt)
    assert finished(run).status is Status.COMPLETED
    async with open_store(config) as store:
        events = await store.events(run.supervisor.task_id)
    assert isinstance(events[-1].event, TaskFinished)


async def test_a_store_that_fails_ends_the_run_in_order(
    run_plan: RunPlan, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Recorded] = []

    async def refuse(self: TaskStore, *arguments: object) -> None:
        raise StoreError("PostgreSQL is on fire")

    def break_the_store(supervisor: Supervisor, recorded: Recorded) -> None:
        shown.append(recorded)
        if isinstance(recorded.event, AttemptStarted):
            monkeypatch.setattr(TaskStore, "commit", refuse)

    with pytest.raises(ExceptionGroup) as caught:
        await run_plan(acts("any", "ok"), show=break_the_store)
    assert caught.group_contains(StoreError, match="on fire")
    assert isinstance(shown[-1].event, TaskSuspended)
    board = await AgentBoard.connect(servers.redis_url)
    assert await board.agents() == []
    await board.close()


async def test_a_lost_agent_is_off_the_board(
    run_plan: RunPlan, servers: Servers
) -> None:
    board = await AgentBoard.connect(servers.redis_url)
    gate: list[bool] = []

    async def only_four() -> bool:
        agents = {status.agent_id for status in await board.agents()}
        return bool(gate) and agents == {f"agent_{n}" for n in range(2, 6)}

    def note(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, AgentLost) and recorded.event.retired:
            gate.append(True)

    async with anyio.create_task_group() as tasks:

        async def interrupt_then() -> None:
            await until(only_four, "the retired agent is gone, the others are there")
            runs[0].interrupt("seen")

        runs: list[Supervisor] = []

        def first(supervisor: Supervisor, recorded: Recorded) -> None:
            runs[:] = [supervisor]
            note(supervisor, recorded)

        tasks.start_soon(interrupt_then)
        await run_plan(
            acts("killer", "crash") | {"required_capabilities": ["code_generation"]},
            acts("endless", "hang") | {"required_capabilities": ["web_scraping"]},
            show=first,
            roster=(
                AgentSpec(id="agent_1", capabilities=("code_generation",)),
                AgentSpec(id="agent_2", capabilities=("web_scraping",)),
                *(
                    AgentSpec(id=f"agent_{n}", capabilities=("data_analysis",))
                    for n in range(3, 6)
                ),
            ),
            supervisor=SupervisorSettings(max_restarts=0, shutdown_grace_s=2),
        )
    await board.close()
