"""A run as lines of text."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.cli.plain import Waits, line
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Event,
    Noticed,
    PlanAccepted,
    Recorded,
    ResultIgnored,
    SubtaskFinished,
    TaskCreated,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
    Waiting,
)
from mas.model import FailureKind, Plan, Status, Usage
from tests.cli.runs import price_report
from tests.core.telling import subtask

AT = datetime(2026, 11, 22, 12, 3, 41, tzinfo=UTC)
PLAN = Plan((subtask("a"), subtask("b", "a")))


def told(event: Event) -> str | None:
    record = Recorded(seq=1, at=AT, task_id="3f2a91c0-77", event=event)
    return line(record, zone=UTC)


def attempt(status: Status, **fields: object) -> AttemptFinished:
    basics = {"subtask_id": "fx", "attempt": 2, "agent_id": "agent_4"}
    return AttemptFinished(**basics, status=status, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (TaskCreated(description="Compare\nprices"), "task  3f2a91c0: Compare prices"),
        (PlanAccepted(plan=PLAN), "plan  2 subtasks in 2 stages"),
        (
            PlanAccepted(plan=Plan((subtask("a"),)), warning="the plan was unusable"),
            "plan  1 subtask in 1 stage; the plan was unusable",
        ),
        (
            AgentReady(agent_id="agent_1", pid=42, capabilities=()),
            "agent_1  ready (pid 42)",
        ),
        (
            AgentLost(agent_id="agent_1", error="exit 1"),
            "agent_1  lost: exit 1; it is started again",
        ),
        (
            AgentLost(agent_id="agent_1", error="exit 1", retired=True),
            "agent_1  lost: exit 1; it is out of this run",
        ),
        (
            AttemptStarted(subtask_id="stats", attempt=1, agent_id="agent_2"),
            "stats  started on agent_2 (try 1)",
        ),
        (
            AttemptStarted(
                subtask_id="stats", attempt=2, agent_id="agent_2", resumes=True
            ),
            "stats  continued on agent_2 (try 2)",
        ),
        (
            ResultIgnored(
                subtask_id="stats",
                attempt=1,
                agent_id="agent_2",
                status=Status.COMPLETED,
                error="attempt 2 took its place",
            ),
            "stats  attempt 1 ended late: attempt 2 took its place",
        ),
        (
            TaskResumed(owner="s1 on host, process 1", epoch=2),
            "task  3f2a91c0 goes on where it stopped",
        ),
        (
            attempt(
                Status.COMPLETED,
                execution_time=41.2,
                usage=Usage(18400, cost_usd=0.11),
            ),
            "fx  completed in 41.2s by agent_4, 18.4k tokens, $0.11",
        ),
        (
            attempt(Status.FAILED, error="exit 137", retry_in_s=3.5),
            "fx  try 2 failed: exit 137; next try in 3 s",
        ),
        (
            attempt(Status.FAILED, error="exit 137", retry_in_s=0),
            "fx  try 2 failed: exit 137; next try at once",
        ),
        (
            attempt(
                Status.FAILED,
                error="HTTP 401",
                failure=FailureKind.AUTHENTICATION,
                retry_in_s=0,
            ),
            "fx  try 2 failed: HTTP 401; tried again with mas resume",
        ),
        (
            SubtaskFinished(
                subtask_id="fx", status=Status.FAILED, attempt=3, error="exit 137"
            ),
            "fx  failed (try 3): exit 137",
        ),
        (
            SubtaskFinished(
                subtask_id="report", status=Status.CANCELLED, error="no fx"
            ),
            "report  cancelled: no fx",
        ),
        (
            SubtaskFinished(subtask_id="old", status=Status.COMPLETED),
            "old  completed",
        ),
        (Waiting(reason="the plan"), "task  waiting for the plan"),
        (
            Waiting(reason="the rate limit", until=AT + timedelta(seconds=37.2)),
            "task  waiting for the rate limit, 38 s",
        ),
        (Noticed(text="80 % is used"), "task  80 % is used"),
        (
            attempt(
                Status.COMPLETED,
                execution_time=3,
                usage=Usage(900, unpriced_tokens=900),
            ),
            "fx  completed in 3.0s by agent_4, 900 tokens, cost not known",
        ),
        (
            TaskSuspended(reason="the budget is used up.", hint="Raise it."),
            "task  suspended: the budget is used up. Raise it",
        ),
        (
            TaskSuspended(reason="Ctrl-C", hint="go on with x", interrupted=True),
            "task  interrupted: Ctrl-C. Go on with x",
        ),
        (
            TaskFinished(status=Status.FAILED, result={}, error="fx failed"),
            "task  failed: fx failed",
        ),
        (
            TaskFinished(
                status=Status.COMPLETED, result={"summary": "2 of 2 done.\na: x"}
            ),
            "task  completed: 2 of 2 done.",
        ),
        (TaskFinished(status=Status.COMPLETED, result={}), "task  completed"),
    ],
)
def test_each_change_is_a_line(event: Event, expected: str) -> None:
    assert told(event) == f"12:03:41  {expected}"


@pytest.mark.parametrize(
    "event",
    [
        AttemptProgress(
            subtask_id="a", attempt=1, agent_id="agent_1", activity="Read x"
        ),
        attempt(Status.FAILED, error="the subtask's own end tells it"),
        attempt(Status.CANCELLED),
        SubtaskFinished(subtask_id="a", status=Status.COMPLETED, attempt=1),
        Waiting(reason=""),
    ],
)
def test_what_another_line_says_or_nobody_needs_is_none(event: Event) -> None:
    assert told(event) is None


def test_the_time_is_that_of_the_zone() -> None:
    at = datetime(2026, 11, 22, 23, 59, 1, tzinfo=UTC)
    record = Recorded(seq=1, at=at, task_id="t", event=Waiting(reason="x"))
    zone = timezone(timedelta(hours=2))

    assert line(record, zone=zone) == "01:59:01  task  waiting for x"


def test_a_run_has_a_line_for_everything_that_happened_once() -> None:
    lines = [text for each in price_report().records if (text := line(each, zone=UTC))]

    assert [text[10:] for text in lines if "fetch" in text] == [
        "fetch  started on agent_2 (try 1)",
        "fetch  try 1 failed: exited; next try at once",
        "fetch  started on agent_2 (try 2)",
        "fetch  completed in 41.2s by agent_1, 18.4k tokens, $0.11",
    ]


@given(st.text())
def test_no_text_breaks_a_line(text: str) -> None:
    for event in (
        TaskCreated(description=text),
        AgentLost(agent_id=text, error=text),
        SubtaskFinished(subtask_id=text, status=Status.FAILED, error=text),
    ):
        shown = told(event)
        assert shown is not None
        assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
        assert len(shown.splitlines()) == 1


def wait(reason: str, at_s: float, for_s: float | None = None) -> Recorded:
    at = AT + timedelta(seconds=at_s)
    until = None if for_s is None else at + timedelta(seconds=for_s)
    event = Waiting(reason=reason, until=until)
    return Recorded(seq=None, at=at, task_id="t", event=event)


def test_a_wait_that_comes_and_goes_is_told_now_and_then() -> None:
    waits = Waits()
    told = [at for at in range(100) if waits.is_news(wait("the rate limit", at))]

    assert told == [0, 30, 60, 90]


def test_a_wait_that_gets_longer_is_told_again() -> None:
    waits = Waits()
    assert waits.is_news(wait("the rate limit", 0, 10))
    assert not waits.is_news(wait("the rate limit", 1, 10))
    assert waits.is_news(wait("the rate limit", 6, 10))
    assert waits.is_news(wait("Claude, which is overloaded", 6, 2))


def test_what_is_no_wait_is_always_told() -> None:
    waits = Waits()
    record = Recorded(seq=1, at=AT, task_id="t", event=Noticed(text="x"))

    assert waits.is_news(record) and waits.is_news(record)
