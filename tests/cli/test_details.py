"""One task, as ``mas show`` prints it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.cells import cell_len

from mas.cli.tables import task_details
from mas.core.events import TaskSuspended
from mas.model import (
    CallState,
    ModelCall,
    Plan,
    Status,
    SubtaskResult,
    Task,
    Usage,
)
from tests.cli.runs import HOSTILE, WIDTHS, text_of
from tests.core.telling import Telling, subtask

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FOLDER = Path("/home/ann/shared_files/3f2a91c0-77")

TASK = Task(
    id="3f2a91c0-77",
    description="Quarterly competitor price report",
    status=Status.IN_PROGRESS,
    plan=Plan(
        (
            subtask("fetch", description="Scrape prices"),
            subtask("fx", description="Pull FX rates"),
            subtask("clean", "fetch", description="Join both"),
            subtask("report", "clean", "fx", description="Write the report"),
        )
    ),
    created_at=NOW - timedelta(seconds=100),
    updated_at=NOW,
    owner_alive=True,
)


def attempt(key: str, number: int, status: Status, **fields: Any) -> SubtaskResult:
    return SubtaskResult(
        task_id=TASK.id,
        subtask_id=key,
        attempt=number,
        agent_id="agent_2",
        status=status,
        started_at=NOW - timedelta(seconds=50),
        **fields,
    )


RESULTS = [
    attempt(
        "fetch",
        2,
        Status.COMPLETED,
        output={"summary": "12 shops.", "files_created": ["a.csv", "output/raw/b"]},
        execution_time=41.2,
        usage=Usage(18400, cost_usd=0.11),
    ),
    attempt("fetch", 1, Status.FAILED, error="no result.json", execution_time=3.0),
    attempt("fx", 1, Status.FAILED, error="exited 137\nkilled", execution_time=3.1),
    attempt("clean", 1, Status.IN_PROGRESS),
]


def planned() -> Telling:
    assert TASK.plan is not None
    return Telling(TASK.description, *TASK.plan.subtasks)


def told() -> Telling:
    """What the journal says where the rows are ``RESULTS``."""
    run = planned()
    run.start("fetch")
    run.end_attempt("fetch", Status.FAILED, retry_in_s=0)
    run.complete("fetch", attempt=2)
    run.start("fx")
    run.end_attempt("fx", Status.FAILED)
    run.end("fx", Status.FAILED)
    run.start("clean")
    return run


def shown(
    task: Task,
    results: list[SubtaskResult],
    run: Telling | None = None,
    width: int = 90,
) -> str:
    view = (run or told()).view
    return text_of(task_details(task, results, view, now=NOW, folder=FOLDER), width)


def test_a_task_in_progress_shows_every_attempt_error_and_file_so_far() -> None:
    assert shown(TASK, RESULTS) == (
        "  Quarterly competitor price report\n"
        "► in_progress · created 1 min ago · 18.4k tokens · $0.11\n"
        "  3f2a91c0-77\n"
        "\n"
        "  subtask  status       agent     time  tokens   cost  result\n"
        "✓ fetch    completed    agent_2  41.2s   18.4k  $0.11  12 shops.\n"
        "  └ try 1  failed       agent_2   3.0s                 no result.json\n"
        "  └ try 2  completed    agent_2  41.2s   18.4k  $0.11  12 shops.\n"
        "✗ fx       failed       agent_2   3.1s                 exited 137 killed\n"
        "► clean    in_progress  agent_2  50.0s\n"
        "◌ report   pending                                     Write the report\n"
        "\n"
        "✗ fx: exited 137\n"
        "  killed\n"
        "\n"
        "files  /home/ann/shared_files/3f2a91c0-77/fetch/output\n"
        "  a.csv\n"
        "  raw/b\n"
    )


def test_a_finished_task_shows_its_result_and_each_subtasks_fate() -> None:
    run = told()
    run.complete("clean")
    run.end("report", Status.CANCELLED)
    task = replace(
        TASK,
        status=Status.FAILED,
        error="1 subtask failed",
        finished_at=NOW,
        result={
            "summary": "2 of 4 subtasks completed.\nfetch: 12 shops.",
            "files": ["/home/ann/shared_files/3f2a91c0-77/fetch/output/a.csv"],
        },
    )
    lines = shown(task, RESULTS, run).splitlines()

    assert lines[1].startswith("✗ failed · created 1 min ago · took 1 min 40 s")
    assert lines[3] == "! 1 subtask failed"
    assert [line.split()[:2] for line in lines if "cancelled" in line] == [
        ["⊘", "report"]
    ]
    assert "  2 of 4 subtasks completed.\n  fetch: 12 shops.\n" in shown(
        task, RESULTS, run
    )
    assert lines[-1] == "  /home/ann/shared_files/3f2a91c0-77/fetch/output/a.csv"


def test_a_task_whose_supervisor_died_is_interrupted_and_says_how_to_go_on() -> None:
    task = replace(TASK, owner_alive=False)
    lines = shown(task, RESULTS).splitlines()

    assert lines[1].startswith("↻ interrupted")
    assert lines[3] == "! Go on with mas resume 3f2a91c0-77"
    assert "↻ clean    in_progress  agent_2" in lines


def test_a_task_that_stopped_by_itself_is_suspended_and_says_why() -> None:
    task = replace(TASK, owner_alive=False, suspended="PostgreSQL was away.")
    lines = shown(task, RESULTS).splitlines()

    assert lines[1].startswith("↻ suspended")
    assert lines[3] == "! PostgreSQL was away. Go on with mas resume 3f2a91c0-77"


@pytest.mark.parametrize("is_suspended", [False, True])
def test_a_failure_that_another_try_follows_is_not_the_subtasks(
    is_suspended: bool,
) -> None:
    run = planned()
    run.start("fx")
    run.end_attempt("fx", Status.FAILED, error="HTTP 401", retry_in_s=0)
    task = TASK
    if is_suspended:
        run.tell(TaskSuspended(reason="HTTP 401", hint="correct the key"))
        task = replace(TASK, owner_alive=False, suspended="HTTP 401")
    rows = [attempt("fx", 1, Status.FAILED, error="HTTP 401", execution_time=3.1)]
    lines = shown(task, rows, run).splitlines()

    assert [line.split()[:3] for line in lines if " fx " in line] == [
        ["↻", "fx", "pending"]
    ]
    assert "↻ fx: try 1 failed, another follows: HTTP 401" in lines
    assert not any("✗" in line for line in lines)


def test_the_hint_of_what_suspended_it_is_the_one_that_is_given() -> None:
    run = told()
    hint = "go on with mas resume 3f2a91c0-77 --budget MORE"
    run.tell(TaskSuspended(reason="the budget is spent", hint=hint))
    task = replace(TASK, owner_alive=False, suspended="the budget is spent")
    shown_once = shown(task, RESULTS, run)

    assert f"! the budget is spent. G{hint[1:]}\n" in shown_once
    assert shown_once.count("mas resume") == 1


def test_the_recorded_calls_are_what_the_task_took() -> None:
    calls = [
        ModelCall(
            id=str(number),
            task_id=TASK.id,
            agent_id="planner",
            path="/v1/messages",
            model="claude-sonnet-5-5",
            state=CallState.COMPLETE,
            usage=Usage(1000, 200, cost_usd=0.004),
            started_at=NOW,
        )
        for number in range(2)
    ]
    pages = [
        text_of(
            task_details(
                TASK, RESULTS, told().view, now=NOW, calls=calls, lists_calls=listed
            ),
            100,
        )
        for listed in (False, True)
    ]

    assert "· 2.4k tokens · $0.01\n" in pages[0].splitlines(keepends=True)[1]
    assert "\nClaude  2 calls · 2.4k tokens · $0.01\n" in pages[0]
    assert pages[0].count("planner") == 1
    assert pages[1].count("planner") == 3


def test_what_a_former_run_said_is_not_told_of_a_task_that_goes_on() -> None:
    task = replace(TASK, suspended="PostgreSQL was away.")

    assert "PostgreSQL was away" not in shown(task, RESULTS)


def test_a_task_without_a_plan_says_so() -> None:
    task = replace(TASK, plan=None, status=Status.PENDING)

    assert shown(task, [], Telling("x")).endswith("\n\nthere is no plan yet\n")


def test_where_no_file_is_named_the_tasks_folder_is() -> None:
    assert shown(TASK, RESULTS[1:]).endswith(
        "\nfiles\n  /home/ann/shared_files/3f2a91c0-77\n"
    )


def test_results_of_another_form_are_no_reason_to_fail() -> None:
    odd = attempt(
        "fetch", 1, Status.COMPLETED, output={"files_created": "x", "summary": 3}
    )
    task = replace(TASK, result={"subtasks": [], "files": None, "summary": {}})
    run = planned()
    run.complete("fetch")

    assert "✓ fetch    completed" in shown(task, [odd], run)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_that_a_model_wrote_breaks_the_page(width: int) -> None:
    task = replace(
        TASK, description=HOSTILE, error=HOSTILE, result={"summary": HOSTILE}
    )
    results = [
        attempt("fetch", 1, Status.COMPLETED, output={"summary": HOSTILE}),
        attempt("fx", 1, Status.FAILED, error=HOSTILE * 9),
    ]
    page = text_of(task_details(task, results, told().view, now=NOW), width)
    lines = page.splitlines()

    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
