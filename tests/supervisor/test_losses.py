"""Agents that die, hang and come too late; deadlines; clocks that jump."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from mas.config import Config, Limits
from mas.config import Supervisor as SupervisorSettings
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptStarted,
    Recorded,
    ResultIgnored,
    SubtaskFinished,
    TaskFinished,
)
from mas.model import FailureKind, Status
from mas.supervisor import journal
from mas.supervisor.services import open_store
from mas.supervisor.supervisor import Supervisor
from tests.support import Run, RunPlan


def acts(key: str, *what: str, **fields: Any) -> dict[str, Any]:
    return {"key": key, "input_data": {"acts": list(what)}} | fields


def ended(run: Run) -> dict[str, str]:
    return {it.subtask_id: it.status.value for it in run.events(SubtaskFinished)}


async def test_a_subtask_that_kills_its_agents_fails_alone(run_plan: RunPlan) -> None:
    run = await run_plan(
        acts("deadly", "crash"),
        acts("harmless", "slow:300"),
        acts("next", "ok", dependencies=["harmless"]),
        limits=Limits(max_attempts=10),
    )
    losses = [it for it in run.events(AttemptFinished) if it.subtask_id == "deadly"]
    assert [it.failure for it in losses] == [FailureKind.AGENT_LOST] * 3
    assert len({it.agent_id for it in losses}) == 3, "each time on another agent"
    assert ended(run) == {
        "deadly": "failed",
        "harmless": "completed",
        "next": "completed",
    }
    assert isinstance(run.outcome, TaskFinished)
    assert "its agent was lost 3 times" in (run.outcome.error or "")
    assert not any(it.retired for it in run.events(AgentLost))


async def test_an_agent_that_is_stopped_is_noticed_by_its_silence(
    run_plan: RunPlan,
) -> None:
    pids: dict[str, int] = {}

    def note(supervisor: Supervisor, recorded: Recorded) -> None:
        if isinstance(recorded.event, AgentReady):
            pids.setdefault(recorded.event.agent_id, recorded.event.pid)

    run = await run_plan(
        acts("stopped", "stop", "ok"),
        show=note,
        supervisor=SupervisorSettings(
            heartbeat_s=0.5, agent_ttl_s=5, handshake_timeout_s=30, shutdown_grace_s=2
        ),
    )
    [lost] = run.events(AgentLost)
    assert "was not heard for 5 s" in lost.error
    assert not psutil.pid_exists(pids[lost.agent_id])
    first, second = run.events(AttemptStarted)
    assert second.agent_id != first.agent_id
    assert (second.session_id, second.resumes) == (first.session_id, True)
    assert ended(run) == {"stopped": "completed"}


async def test_the_result_of_a_lost_agent_counts(
    run_plan: RunPlan, tmp_path: Path
) -> None:
    ledger = {"ledger": str(tmp_path / "ledger")}
    run = await run_plan(
        {"key": "left", "input_data": {"acts": ["leave"], **ledger}},
        {"key": "after", "dependencies": ["left"], "input_data": ledger},
    )
    assert [it.subtask_id for it in run.events(AttemptStarted)] == ["left", "after"]
    assert len(run.events(AgentLost)) == 1
    assert ended(run) == {"left": "completed", "after": "completed"}


async def test_a_late_result_is_recorded_and_changes_nothing(run_plan: RunPlan) -> None:
    run = await run_plan(acts("slow", "twice", "ok"))
    assert ended(run) == {"slow": "completed"}
    [ignored] = run.events(ResultIgnored)
    assert (ignored.subtask_id, ignored.attempt) == ("slow", 1)
    assert ignored.status is Status.COMPLETED
    assert [it.status for it in run.events(AttemptFinished)] == ["failed", "completed"]


async def test_a_task_past_its_deadline_is_stopped_and_says_so(
    run_plan: RunPlan,
) -> None:
    run = await run_plan(
        acts("quick", "ok"), acts("endless", "hang"), limits=Limits(task_timeout_s=2)
    )
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.FAILED
    assert "the task took longer than 2 s" in (run.outcome.error or "")
    assert ended(run) == {"quick": "completed", "endless": "failed"}


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_jumps_changes_nothing(
    run_plan: RunPlan, config: Config, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    class Jumping(datetime):
        """Each look at it is an hour off from the one before."""

        looks = 0

        @classmethod
        def now(cls, tz: Any = None) -> "Jumping":
            cls.looks += 1
            jumped = datetime.now(tz) + timedelta(hours=hours * cls.looks)
            return cls.fromtimestamp(jumped.timestamp(), tz)

    monkeypatch.setattr(journal, "datetime", Jumping)
    run = await run_plan(
        acts("flaky", "fail", "ok"), acts("after", "ok", dependencies=["flaky"])
    )
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.COMPLETED
    async with open_store(config) as store:
        found = await store.events(run.supervisor.task_id)
        results = await store.results(run.supervisor.task_id)
    assert [it.seq for it in found] == list(range(1, len(found) + 1))
    assert abs(found[-1].at - datetime.now(UTC)) > timedelta(hours=2), "it did jump"
    assert all((it.execution_time or 0.0) >= 0 for it in results)
    assert sorted((it.subtask_id, it.attempt) for it in results) == [
        ("after", 1),
        ("flaky", 1),
        ("flaky", 2),
    ]
