"""What a screen shows of a task that another supervisor goes on with."""

from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptStarted,
    CancelAccepted,
    Event,
    Fact,
    PlanAccepted,
    Recorded,
    ResultIgnored,
    SubtaskFinished,
    TaskCreated,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
)
from mas.core.progress import Progress
from mas.core.view import RunView, State
from mas.model import Plan, Status, Usage
from tests.core.scheduling import scheduler
from tests.core.telling import START, Telling, subtask
from tests.core.test_view_properties import any_event

RESUMED = TaskResumed(owner="s2 on a laptop, process 2", epoch=2)
READY = AgentReady(agent_id="agent_1", pid=1, capabilities=())


def killed_at_work() -> Telling:
    """Its supervisor was killed some time after the attempt at b began, at 10 s."""
    task = Telling("a report", subtask("a"), subtask("b"), subtask("c", "a"))
    task.tell(READY)
    task.start("a")
    task.tell(READY, after_s=5)
    task.complete("a", usage=Usage(10))
    task.wait(5)
    task.start("b")
    return task


def test_the_time_until_somebody_goes_on_is_not_counted() -> None:
    task = killed_at_work()
    task.tell(RESUMED, after_s=86400)
    assert task.view.elapsed_s(task.now) == 10
    task.tell(READY, after_s=3)
    assert task.view.elapsed_s(task.now + timedelta(seconds=4)) == 17
    task.tell(TaskFinished(status=Status.FAILED, result={}), after_s=5)
    assert task.view.elapsed_s(task.now + timedelta(days=1)) == 18


def test_nor_is_it_after_a_suspension() -> None:
    task = killed_at_work()
    task.tell(TaskSuspended(reason="budget", hint="raise it"), after_s=2)
    task.tell(RESUMED, after_s=86400)
    assert task.view.suspended is None
    assert task.view.elapsed_s(task.now + timedelta(seconds=1)) == 13


def test_the_former_agents_are_gone_and_nobody_works() -> None:
    task = killed_at_work()
    task.tell(AgentLost(agent_id="agent_2", error="exit 1", retired=True))
    task.tell(RESUMED, after_s=60)
    assert task.view.agents == {}
    assert [task.state(key) for key in "abc"] == [
        State.COMPLETED,
        State.READY,
        State.READY,
    ]
    assert task.view.counts[State.RUNNING] == 0
    assert task.last("b") == "waits for an agent"
    assert task.view.subtasks["b"].elapsed_s(task.now) == 0
    assert task.view.waiting is None


def test_a_result_that_was_left_behind_counts() -> None:
    task = killed_at_work()
    task.tell(RESUMED, after_s=60)
    task.end_attempt("b", Status.COMPLETED, 42.0, usage=Usage(5))
    assert task.state("b") is State.RUNNING
    task.end("b", Status.COMPLETED)
    assert task.state("b") is State.COMPLETED
    assert task.view.subtasks["b"].elapsed_s(task.now) == 42
    assert task.view.usage == Usage(15)


def test_without_one_it_is_tried_again() -> None:
    task = killed_at_work()
    task.tell(RESUMED, after_s=60)
    task.end_attempt("b", Status.FAILED, error="its supervisor died", retry_in_s=0.0)
    assert task.state("b") is State.RETRY
    assert task.last("b") == "try 2: its supervisor died"
    task.start("b", attempt=2)
    assert task.state("b") is State.RUNNING


@pytest.mark.parametrize("said", [Usage(), Usage(7)])
def test_what_a_cut_off_attempt_took_counts_once(said: Usage) -> None:
    task = killed_at_work()
    task.progress("b", "reads", usage=Usage(3))
    task.tell(RESUMED, after_s=60)
    assert task.view.usage == Usage(13)
    task.end_attempt("b", Status.FAILED, retry_in_s=0.0, usage=said)
    assert task.view.usage == Usage(10) + (said if said != Usage() else Usage(3))
    task.complete("b", attempt=2, usage=Usage(1))
    assert task.view.subtasks["b"].usage + Usage(10) == task.view.usage


def test_what_it_still_says_changes_nothing() -> None:
    task = killed_at_work()
    task.tell(RESUMED, after_s=60)
    task.progress("b", "writes", usage=Usage(3))
    assert task.view.subtasks["b"].activity == ""
    assert task.view.usage == Usage(10)


def test_a_back_off_of_the_former_run_is_over() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.end_attempt("a", Status.FAILED, error="no file", retry_in_s=30)
    assert task.last("a") == "try 2 in 30 s: no file"
    task.tell(RESUMED, after_s=1)
    assert task.last("a") == "try 2: no file"


def test_a_result_that_is_ignored_changes_no_state() -> None:
    task = killed_at_work()
    before = task.view.statuses()
    late = ResultIgnored(
        subtask_id="b",
        attempt=1,
        agent_id="agent_2",
        status=Status.COMPLETED,
        error="attempt 1 runs on agent_1",
    )
    task.tell(late)
    assert task.view.statuses() == before
    assert task.state("b") is State.RUNNING
    assert task.view.usage == Usage(10)


def test_a_clock_that_is_set_back_takes_nothing_off() -> None:
    task = killed_at_work()
    task.tell(READY, after_s=-3600)
    assert task.view.elapsed_s(task.now) == 10
    assert task.view.subtasks["b"].elapsed_s(task.now) == 0
    task.end_attempt("b", Status.FAILED, error="no file", retry_in_s=4)
    assert task.view.elapsed_s(task.now) == 10
    task.wait(-3600)
    assert task.last("b") == "try 2 in 4 s: no file"
    task.wait(3605)
    assert task.view.elapsed_s(task.now) == 15


steps = st.sampled_from([-7200.0, -3600.0, -1.0, 0.0, 0.5, 10.0, 3600.0])


@given(st.lists(st.tuples(any_event, steps), max_size=40))
@settings(max_examples=150)
def test_no_jump_of_the_clock_makes_a_time_negative_or_smaller(
    told: list[tuple[Event, float]],
) -> None:
    view, at, worked_s = RunView(), START, 0.0
    plan = Plan((subtask("a"), subtask("b", "a")))
    begin: list[tuple[Event, float]] = [
        (TaskCreated(description="it"), 0.0),
        (PlanAccepted(plan=plan), 0.0),
    ]
    for number, (event, step_s) in enumerate(begin + told, start=1):
        at += timedelta(seconds=step_s)
        view.apply(Recorded(seq=number, at=at, task_id="t1", event=event))
        assert view.elapsed_s(at) >= worked_s
        worked_s = view.elapsed_s(at)
        for now in (at, at - timedelta(hours=3), at + timedelta(hours=3)):
            assert view.elapsed_s(now) >= worked_s
            for row in view.subtasks.values():
                assert (row.elapsed_s(now) or 0) >= 0
                assert 0 <= row.retry_in_s(now) <= 100
                assert isinstance(view.last(row, now), str)


ONE_OF_EACH: tuple[Fact, ...] = (
    TaskCreated(description="a report"),
    PlanAccepted(plan=Plan((subtask("a"),))),
    READY,
    AttemptStarted(subtask_id="a", attempt=1, agent_id="agent_1", session_id="s"),
    AgentLost(agent_id="agent_1", error="exit 1"),
    AttemptFinished(
        subtask_id="a",
        attempt=1,
        agent_id="agent_1",
        status=Status.FAILED,
        error="lost",
        retry_in_s=1.0,
    ),
    ResultIgnored(
        subtask_id="a",
        attempt=1,
        agent_id="agent_1",
        status=Status.COMPLETED,
        error="too late",
    ),
    TaskSuspended(reason="budget", hint="raise it"),
    RESUMED,
    CancelAccepted(reason="by the user"),
    SubtaskFinished(subtask_id="a", status=Status.FAILED, error="lost"),
    TaskFinished(status=Status.FAILED, result={}, error="1 of 1 subtasks failed"),
)


def test_every_fact_is_understood_by_all_who_fold_facts() -> None:
    assert {type(fact) for fact in ONE_OF_EACH} == set(get_args(Fact))
    task = Telling("a report")
    progress = Progress(Plan((subtask("a"),)))
    for fact in ONE_OF_EACH:
        task.tell(fact)
        progress.apply(fact, None)
        assert task.records[-1].to_json()["type"] == type(fact).__struct_config__.tag
    assert task.view.status is Status.FAILED
    assert task.view.statuses() == progress.statuses == {"a": Status.FAILED}
    s = scheduler(subtask("a"), history=ONE_OF_EACH)
    assert s.statuses == progress.statuses


@pytest.mark.parametrize("length", range(len(ONE_OF_EACH)))
def test_a_run_goes_on_from_any_prefix_of_its_facts(length: int) -> None:
    s = scheduler(subtask("a"), history=ONE_OF_EACH[:length])
    s.handle(READY, 0.0)
    s.check_invariants()
    assert s.is_over == s.statuses["a"].is_final
