"""A scheduler that goes on from the facts of a former run."""

import pytest
from msgspec.structs import replace

from mas.core.events import (
    AttemptStarted,
    CancelAccepted,
    CancelRequested,
    Fact,
    FinishTask,
    Record,
    SchedulerInput,
    StartAttempt,
    StopAttempt,
    TaskResumed,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.model import FailureKind, Plan, Status, Subtask
from tests.core.scheduling import (
    SESSION,
    done,
    failed,
    finished,
    lost,
    ready,
    roster,
    scheduler,
    started,
    starts,
    subtask,
)

PLAN = (subtask("a"), subtask("b", "a"), subtask("c", "b"))


def facts_after(
    *events: SchedulerInput, plan: tuple[Subtask, ...] = PLAN
) -> list[Fact]:
    """What a run has recorded after these events, one a second."""
    s = scheduler(*plan)
    commands = [c for now, event in enumerate(events) for c in s.handle(event, now)]
    return [command.fact for command in commands if isinstance(command, Record)]


def interrupted() -> Scheduler:
    """Goes on from a run that ended in the middle of its attempt at a."""
    return scheduler(*PLAN, history=facts_after(ready()))


LOST = failed("a", kind=FailureKind.AGENT_LOST)


def test_what_was_completed_is_not_run_again() -> None:
    s = scheduler(*PLAN, history=facts_after(ready(), done("a"))[:-1])
    assert s.statuses["a"] is Status.COMPLETED
    assert s.live_attempts == []
    assert s.handle(ready(), 0.0) == [Record(ready()), *started("b")]


def test_the_attempt_that_was_cut_off_is_live() -> None:
    s = interrupted()
    assert s.live_attempts == [StartAttempt("a", 1, "agent_1")]
    assert s.handle(Tick(), 0.0) == []
    assert s.statuses["a"] is Status.IN_PROGRESS


def test_its_result_counts() -> None:
    s = interrupted()
    assert s.handle(done("a"), 0.0) == [Record(done("a")), finished("a")]
    assert starts(s.handle(ready(), 1.0)) == [("b", "agent_1")]


def test_without_a_result_it_is_tried_again_at_once() -> None:
    s = interrupted()
    assert s.handle(LOST, 0.0) == [Record(replace(LOST, retry_in_s=0.0))]
    assert s.next_wakeup() is None
    again = started("a", attempt=2, resumes=True)
    assert s.handle(ready(), 0.0) == [Record(ready()), *again]


def test_interruptions_do_not_use_up_the_attempts() -> None:
    history: list[Fact] = []
    for attempt in range(1, 10):
        s = scheduler(*PLAN, history=history, max_attempts=2)
        commands = s.handle(replace(LOST, attempt=attempt - 1), 0.0)
        commands += s.handle(ready(), 0.0)
        assert commands[-2:] == started("a", attempt=attempt, resumes=attempt > 1)
        history += [c.fact for c in commands if isinstance(c, Record)]
    s.handle(failed("a", attempt=9), 0.0)
    assert s.statuses["a"] is Status.PENDING


def test_failures_of_the_former_run_count() -> None:
    history = facts_after(ready(), failed("a"))
    s = scheduler(*PLAN, history=history, max_attempts=2)
    assert s.handle(ready(), 0.0)[1:] == started("a", attempt=2)
    s.handle(failed("a", attempt=2), 1.0)
    assert s.statuses["a"] is Status.FAILED


def test_a_failure_that_its_files_show_counts_too() -> None:
    s = scheduler(*PLAN, history=facts_after(ready()), max_attempts=1)
    s.handle(failed("a", kind=FailureKind.REPORTED_FAILURE), 0.0)
    assert s.statuses["a"] is Status.FAILED


def test_an_agent_of_the_same_name_waits_until_the_old_attempt_is_settled() -> None:
    s = scheduler(*PLAN, subtask("d"), history=facts_after(ready()))
    assert starts(s.handle(ready(), 0.0)) == []
    assert starts(s.handle(LOST, 1.0)) == [("a", "agent_1")]


def test_the_loss_of_an_agent_says_nothing_of_the_old_attempt() -> None:
    s = interrupted()
    s.handle(ready(), 0.0)
    assert s.handle(lost(), 1.0) == [Record(lost())]
    assert s.handle(done("a"), 2.0) == [Record(done("a")), finished("a")]


def test_the_old_attempt_has_a_deadline_from_now_on() -> None:
    s = interrupted()
    s.handle(Tick(), 50.0)
    assert s.next_wakeup() == 150.0
    (stop,) = s.handle(Tick(), 150.0)
    assert isinstance(stop, StopAttempt)
    s = interrupted()
    assert isinstance(s.handle(CancelRequested("no"), 0.0)[-1], StopAttempt)


BY_USER = "by the user"
CANCELLED = CancelRequested(BY_USER)


def cancelled(*, kept: int | None = None) -> Scheduler:
    """Goes on from a run that was killed while a was being stopped for a cancel."""
    history = facts_after(ready(), CANCELLED)
    assert history[2] == CancelAccepted(reason=BY_USER)
    return scheduler(*PLAN, history=history[:kept])


def test_a_cancel_is_for_good() -> None:
    s = cancelled()
    stop = StopAttempt("a", 1, "agent_1", BY_USER)
    assert s.handle(Tick(), 0.0) == [stop]
    assert s.handle(CancelRequested("again"), 0.0) == []
    assert s.handle(ready(), 0.0) == [Record(ready())]
    end = replace(
        LOST, status=Status.CANCELLED, failure=FailureKind.CANCELLED, error=BY_USER
    )
    assert s.handle(LOST, 1.0) == [
        Record(end),
        finished("a", Status.CANCELLED, BY_USER),
        FinishTask(Status.CANCELLED, BY_USER),
    ]


def test_after_a_cancel_the_result_of_the_old_attempt_still_counts() -> None:
    s = cancelled()
    s.handle(Tick(), 0.0)
    assert s.handle(done("a"), 1.0) == [
        Record(done("a")),
        finished("a"),
        FinishTask(Status.CANCELLED, BY_USER),
    ]


def test_a_cancel_that_was_recorded_in_part_is_recorded_to_its_end() -> None:
    s = cancelled(kept=4)
    assert s.statuses["b"] is Status.CANCELLED
    assert s.handle(ready(), 0.0) == [
        finished("c", Status.CANCELLED, BY_USER, attempt=None),
        StopAttempt("a", 1, "agent_1", BY_USER),
        Record(ready()),
    ]


def test_a_cancel_before_anything_ran_ends_the_task_at_once() -> None:
    s = scheduler(*PLAN, history=facts_after(CANCELLED)[:1])
    commands = s.handle(ready(), 0.0)
    assert starts(commands) == []
    assert commands[-1] == FinishTask(Status.CANCELLED, BY_USER)


def test_a_deadline_of_the_task_is_not_for_good() -> None:
    s = scheduler(*PLAN, task_timeout_s=30.0)
    commands = [*s.handle(ready(), 0.0), *s.handle(Tick(), 30.0)]
    facts = [c.fact for c in commands if isinstance(c, Record)]
    assert not any(isinstance(fact, CancelAccepted) for fact in facts)
    s = scheduler(*PLAN, history=facts)
    assert s.handle(Tick(), 0.0) == []


def test_an_agent_that_left_the_roster_can_have_made_attempts() -> None:
    history = facts_after(ready(), failed("a"), Tick())
    others = tuple(replace(agent, id="other") for agent in roster(""))
    s = scheduler(*PLAN, agents=others, history=history)
    s.handle(replace(failed("a", attempt=2), failure=FailureKind.AGENT_LOST), 0.0)
    commands = s.handle(replace(ready(), agent_id="other"), 1.0)
    assert starts(commands) == [("a", "other")]


def test_what_the_new_roster_cannot_run_fails_at_once() -> None:
    plan = (subtask("a"), subtask("b", "a", needs=("x",)))
    s = scheduler(*plan, agents=roster("y"), history=[])
    s.handle(Tick(), 0.0)
    assert s.statuses == {"a": Status.PENDING, "b": Status.FAILED}


@pytest.mark.parametrize("recorded", [3, 4, 5, 6])
def test_a_failure_that_was_recorded_in_part_is_recorded_to_its_end(
    recorded: int,
) -> None:
    refused = failed("a", kind=FailureKind.REFUSAL)
    history = facts_after(ready(), refused)
    assert len(history) == 6
    s = scheduler(*PLAN, history=history[:recorded])
    commands = s.handle(Tick(), 0.0)
    assert s.statuses == {
        "a": Status.FAILED,
        "b": Status.CANCELLED,
        "c": Status.CANCELLED,
    }
    assert len(commands) == 6 - recorded + 1
    assert isinstance(commands[-1], FinishTask)


def test_a_completion_without_its_subtask_is_recorded_to_its_end() -> None:
    history = facts_after(ready(), done("a"))
    s = scheduler(*PLAN, history=history[:3])
    assert s.handle(Tick(), 0.0) == [finished("a")]
    assert starts(s.handle(ready(), 0.0)) == [("b", "agent_1")]


def test_a_run_whose_end_alone_was_not_recorded_ends() -> None:
    plan = (subtask("a"),)
    history = facts_after(ready(), done("a"), plan=plan)
    s = scheduler(*plan, history=history)
    assert s.handle(Tick(), 0.0) == [FinishTask(Status.COMPLETED, None)]


def test_the_story_includes_the_former_run() -> None:
    assert "  before: attempt 1 started on agent_1" in interrupted().story("a")


def test_other_facts_in_the_history_are_passed_over() -> None:
    s = Scheduler(
        Plan(PLAN),
        roster(""),
        new_session_id=lambda: SESSION,
        max_attempts=1,
        attempt_timeout_s=1.0,
        history=[
            TaskResumed(owner="s2 on a laptop, process 2", epoch=2),
            lost(retired=True),
            AttemptStarted(subtask_id="a", attempt=1, agent_id="agent_1"),
            done("a"),
        ],
    )
    assert starts(s.handle(ready(), 0.0)) == [("b", "agent_1")]
