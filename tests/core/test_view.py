"""The fold from events to what a screen shows."""

from datetime import datetime, timedelta

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptStarted,
    Noticed,
    PlanAccepted,
    Recorded,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
    Waiting,
)
from mas.core.view import AgentState, State
from mas.model import Plan, Status, Usage
from tests.core.telling import START, Telling, subtask

DIAMOND = (
    subtask("report", "left", "right"),
    subtask("left", "source"),
    subtask("right", "source"),
    subtask("source", capabilities=("web_scraping",)),
)


def test_subtasks_come_stage_by_stage_with_all_that_they_need() -> None:
    view = Telling("a report", *DIAMOND).view

    assert [(each.id, each.stage) for each in view.subtasks.values()] == [
        ("source", 1),
        ("left", 2),
        ("right", 2),
        ("report", 3),
    ]
    assert view.subtasks["report"].needs == ("left", "right")


def test_a_subtask_is_ready_once_all_that_it_needs_is_completed() -> None:
    task = Telling("a report", *DIAMOND)
    assert task.state("source") is State.READY
    assert task.last("source") == "waits for an agent: web_scraping"
    assert task.last("report") == "waits for left, right"

    task.complete("source")
    task.complete("left")
    assert task.state("report") is State.PENDING
    assert task.last("report") == "waits for right"

    task.complete("right")
    assert task.state("report") is State.READY


def test_a_reason_names_a_few_subtasks_and_counts_the_others() -> None:
    keys = [f"s{number}" for number in range(8)]
    task = Telling("a report", *map(subtask, keys), subtask("end", *keys))

    assert task.last("end") == "waits for s0, s1, s2 and 5 more"


def test_what_needs_a_failed_subtask_is_blocked_all_the_way_down() -> None:
    task = Telling("a report", *DIAMOND)
    task.complete("source")
    task.start("left")
    task.end("left", Status.FAILED, "no data")

    assert task.state("left") is State.FAILED
    assert task.last("left") == "no data"
    assert task.state("right") is State.READY
    assert task.state("report") is State.BLOCKED
    assert task.last("report") == "cannot start without left"


def test_a_subtask_that_is_taken_up_again_unblocks_what_needs_it() -> None:
    task = Telling("a report", *DIAMOND)
    task.start("source")
    task.end("source", Status.FAILED)
    assert task.state("report") is State.BLOCKED

    task.start("source", attempt=2)

    assert task.state("left") is State.PENDING
    assert task.state("report") is State.PENDING


def test_a_running_subtask_shows_the_last_activity_and_its_try() -> None:
    task = Telling("a report", subtask("a"), max_attempts=3)
    task.start("a")
    task.progress("a", "WebFetch example.com")
    assert task.last("a") == "WebFetch example.com"

    task.end_attempt("a", Status.FAILED, error="agent exited", retry_in_s=2.5)
    assert task.state("a") is State.RETRY
    assert task.last("a") == "try 2/3 in 3 s: agent exited"
    task.now += timedelta(seconds=10)
    assert task.last("a") == "try 2/3: agent exited"

    task.start("a", attempt=2)
    assert task.state("a") is State.RUNNING
    assert task.last("a") == "try 2/3"
    task.progress("a", "Bash make", attempt=2)
    assert task.last("a") == "try 2/3: Bash make"


def test_what_a_superseded_attempt_says_changes_nothing() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.start("a", attempt=2)
    task.progress("a", "late words", attempt=1)
    task.end_attempt("a", Status.FAILED, attempt=1, error="late failure")
    task.start("a", attempt=1)

    assert task.state("a") is State.RUNNING
    assert task.view.subtasks["a"].attempt == 2
    assert task.last("a") == "try 2"


def test_subagents_are_kept_below_the_attempt_that_has_them() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.progress("a", "reads", subagent="x", status="started")
    task.progress("a", "counts", subagent="y", status="running")
    task.progress("a", "done", subagent="x", status="completed")

    subagents = task.view.subtasks["a"].subagents
    shown = [(each.id, each.is_active, each.activity) for each in subagents.values()]
    assert shown == [("x", False, "done"), ("y", True, "counts")]

    task.end_attempt("a", Status.FAILED, retry_in_s=1)
    assert not task.view.subtasks["a"].subagents


def test_usage_adds_up_over_planning_attempts_and_what_is_live() -> None:
    task = Telling("a report")
    plan = Plan((subtask("a"), subtask("b")))
    task.tell(PlanAccepted(plan=plan, usage=Usage(input_tokens=1, cost_usd=0.5)))
    task.start("a")
    task.end_attempt("a", Status.FAILED, usage=Usage(input_tokens=10), retry_in_s=0)
    task.start("a", attempt=2)
    task.start("b")
    for key, attempt, tokens in (("a", 2, 50), ("b", 1, 500), ("b", 1, 1000)):
        task.progress(key, "works", attempt, usage=Usage(output_tokens=tokens))
    assert task.view.usage.tokens == 1 + 10 + 50 + 1000
    assert task.view.subtasks["a"].usage.tokens == 60

    task.end_attempt("a", Status.COMPLETED, attempt=2, usage=Usage(output_tokens=70))
    task.end_attempt("b", Status.FAILED, error="agent lost")  # its usage is unknown
    assert task.view.usage.tokens == 1 + 10 + 70 + 1000
    assert task.view.usage.cost_usd == 0.5


def test_what_an_attempt_took_that_never_reported_its_end_still_counts() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.progress("a", "works", usage=Usage(output_tokens=40))
    task.start("a", attempt=2)
    task.progress("a", "works", attempt=2, usage=Usage(output_tokens=5))

    assert task.view.usage.tokens == 45
    assert task.view.subtasks["a"].usage.tokens == 45


def test_an_attempts_clock_stops_with_it() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.now += timedelta(seconds=5)
    row = task.view.subtasks["a"]
    assert row.elapsed_s(task.now) == 5

    task.end_attempt("a", Status.COMPLETED)
    assert row.elapsed_s(task.now + timedelta(hours=1)) == 5


def test_the_tasks_clock_leaves_out_the_time_it_was_suspended() -> None:
    task = Telling("a report", subtask("a"))
    task.tell(TaskSuspended(reason="budget", hint="raise it"), after_s=10)
    assert task.view.elapsed_s(task.now + timedelta(days=1)) == 10

    task.tell(AgentReady(agent_id="agent_1", pid=1, capabilities=()), after_s=86400)
    assert task.view.suspended is None
    assert task.view.elapsed_s(task.now + timedelta(seconds=5)) == 15


def test_a_suspended_task_has_nothing_running_and_goes_on_later() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.end_attempt("a", Status.CANCELLED)
    assert task.state("a") is State.READY
    task.start("a", attempt=2)
    task.tell(TaskSuspended(reason="the budget is used up", hint="raise it"))

    assert task.state("a") is State.READY
    assert task.last("a") == "goes on with the task"
    assert task.view.statuses() == {"a": Status.PENDING}

    task.start("a", attempt=3)
    assert task.state("a") is State.RUNNING
    assert task.view.statuses() == {"a": Status.IN_PROGRESS}


def test_a_fact_that_was_seen_already_changes_nothing() -> None:
    task = Telling("a report", subtask("a"))
    task.tell(TaskSuspended(reason="budget", hint="raise it"))
    suspension = task.records[-1]
    task.start("a")
    task.view.apply(suspension)

    assert task.view.suspended is None
    assert task.state("a") is State.RUNNING


def test_the_tasks_end_is_the_last_thing_that_counts() -> None:
    task = Telling("a report", subtask("a"))
    task.complete("a")
    result = {"files": ["/f/a.csv"]}
    task.tell(TaskFinished(status=Status.COMPLETED, result=result), after_s=7)
    task.tell(AgentLost(agent_id="agent_1", error="shut down"))
    task.start("a", attempt=9)

    assert task.view.status is Status.COMPLETED
    assert task.view.files == ["/f/a.csv"]
    assert task.state("a") is State.COMPLETED
    assert not task.view.agents
    assert task.view.elapsed_s(task.now + timedelta(hours=1)) == 7


def test_files_are_none_where_the_result_names_none() -> None:
    task = Telling("a report", subtask("a"))
    task.tell(TaskFinished(status=Status.FAILED, result={"files": "a.csv"}))

    assert task.view.files == []


def waits(task: Telling) -> tuple[str | None, float]:
    since = task.view.waiting_since or START
    return task.view.waiting, (since - START).total_seconds()


def ends(task: Telling) -> datetime | None:
    return task.view.waiting_until


def test_a_wait_is_shown_until_something_happens() -> None:
    task = Telling("a report")
    task.tell(Waiting(reason="planning"), after_s=3)
    task.tell(AgentReady(agent_id="agent_1", pid=1, capabilities=()), after_s=3)
    assert waits(task) == ("planning", 3)

    task.tell(PlanAccepted(plan=Plan((subtask("a"),)), warning="one subtask"))
    assert waits(task) == (None, 3)
    assert task.view.warning == "one subtask"


def test_a_wait_with_an_end_lasts_until_that_is_taken_back() -> None:
    task = Telling("a report", subtask("a"), subtask("b"))
    until = START + timedelta(seconds=38)
    task.tell(Waiting(reason="the rate limit", until=until), after_s=3)
    task.complete("a")
    task.tell(Waiting(reason="the rate limit", until=until), after_s=2)
    assert waits(task) == ("the rate limit", 3)
    assert ends(task) == until

    task.tell(Waiting(reason=""))
    assert (task.view.waiting, ends(task)) == (None, None)

    task.tell(Waiting(reason="the rate limit", until=until))
    task.tell(TaskSuspended(reason="x", hint="y"))
    assert (task.view.waiting, ends(task)) == (None, None)


def test_a_held_attempt_waits_for_its_turn_and_goes_on_with_what_it_did() -> None:
    task = Telling("a report", subtask("a"))
    task.start("a")
    task.progress("a", "Bash")
    task.progress("a", "", held=True)
    task.progress("a", "", usage=Usage(5))
    assert task.last("a") == "waits for its turn at Claude"

    task.progress("a", "", held=False)
    assert task.last("a") == "Bash"

    task.progress("a", "", held=True)
    task.end_attempt("a", Status.FAILED, retry_in_s=0)
    task.start("a", attempt=2)
    assert task.last("a") == "try 2"


def test_the_budget_is_that_of_the_last_run() -> None:
    task = Telling("a report", budget_usd=0.5, budget_tokens=1000)
    assert (task.view.budget_usd, task.view.budget_tokens) == (0.5, 1000)

    task.tell(TaskResumed(owner="x", epoch=2, budget_usd=2.0))
    assert (task.view.budget_usd, task.view.budget_tokens) == (2.0, None)


def test_notices_are_kept_once_and_the_passing_ones_until_the_end() -> None:
    task = Telling("a report", subtask("a"))
    for _ in range(2):
        task.tell(Noticed(text="a price is not known"))
        task.tell(Noticed(text="80 % is used", is_passing=True))
    assert [notice.text for notice in task.view.notices] == [
        "a price is not known",
        "80 % is used",
    ]

    task.tell(TaskSuspended(reason="the budget is spent", hint="x"))
    assert [notice.text for notice in task.view.notices] == ["a price is not known"]


def test_agents_are_ready_lost_and_retired() -> None:
    task = Telling("a report")
    for name in ("agent_1", "agent_2", "agent_3"):
        task.tell(AgentReady(agent_id=name, pid=1, capabilities=("x",)))
    task.tell(AgentLost(agent_id="agent_2", error="exit 1"))
    task.tell(AgentLost(agent_id="agent_3", error="exit 1", retired=True))
    task.tell(AgentReady(agent_id="agent_2", pid=2, capabilities=("x",)))

    states = {each.id: each.state for each in task.view.agents.values()}
    assert states == {
        "agent_1": AgentState.READY,
        "agent_2": AgentState.READY,
        "agent_3": AgentState.RETIRED,
    }


def test_events_of_another_task_change_nothing() -> None:
    task = Telling("a report", subtask("a"))
    started = AttemptStarted(subtask_id="a", attempt=1, agent_id="agent_1")
    other = Recorded(seq=99, at=START, task_id="t2", event=started)
    task.view.apply(other)

    assert task.state("a") is State.READY


def test_a_long_chain_fails_without_recursion() -> None:
    number = 5000
    chain = [subtask("s0")]
    chain += [subtask(f"s{at}", f"s{at - 1}") for at in range(1, number)]
    task = Telling("a report", *chain)
    task.start("s0")
    task.end("s0", Status.FAILED)

    assert task.view.counts[State.BLOCKED] == number - 1
