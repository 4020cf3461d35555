"""What is said at the end of a run."""

from typing import Any

import pytest
from rich.cells import cell_len

from mas.core.events import Noticed, TaskFinished, TaskSuspended
from mas.model import Status, Usage
from tests.cli.runs import HOSTILE, WIDTHS, many, price_report, summed_up
from tests.core.telling import Telling, subtask


def finished(status: Status) -> Telling:
    run = price_report()
    run.start("fx", attempt=2)
    error = "the session ended without an output/result.json that passes the gate"
    run.end_attempt("fx", Status.FAILED, 9, attempt=2, error=error)
    run.end("fx", Status.FAILED)
    run.complete("stats", 61, usage=Usage(9000, cost_usd=0.07))
    run.end("report", Status.CANCELLED)
    home = "/home/ann/shared_files/3f2a91c0-77"
    files = [f"{home}/stats/output/{at}.csv" for at in range(14)]
    result = {
        "files": [f"{home}/fetch/output/prices.csv", *files],
        "subtasks": {"report": {"result": {"summary": "Prices fell.\n- by 3 %"}}},
    }
    run.tell(TaskFinished(status=status, result=result, error="fx failed"), after_s=30)
    return run


def test_the_summary_says_what_was_done_why_not_more_and_where_files_are() -> None:
    assert summed_up(finished(Status.FAILED), 80) == (
        "✗ failed after 1 min 34 s · 4 of 6 subtasks done · 1 failed · 1 cancelled ·\n"
        "  43.3k tokens · $0.28\n"
        "  fx failed\n"
        "✗ fx: try 2: the session ended without an output/result.json that passes the\n"
        "  gate\n"
        "\n"
        "  Prices fell.\n"
        "  - by 3 %\n"
        "\n"
        "files  /home/ann/shared_files/3f2a91c0-77\n"
        "  fetch/output/prices.csv\n"
        + "".join(f"  stats/output/{at}.csv\n" for at in range(11))
        + "  … and 3 more in /home/ann/shared_files/3f2a91c0-77\n"
    )


def test_a_path_in_the_summary_is_never_cut_but_made_harmless() -> None:
    run = Telling("x", subtask("a", description="work"))
    path = f"/home/{'long/' * 30}a  b\x1b.csv"
    run.tell(TaskFinished(status=Status.COMPLETED, result={"files": [path]}))

    assert summed_up(run, 40).endswith(f"  /home/{'long/' * 30}a  b^[.csv\n")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_summary_fits_but_for_its_paths(width: int) -> None:
    run = many(60)
    run.tell(TaskFinished(status=Status.FAILED, result={}, error=HOSTILE * 20))
    lines = summed_up(run, width).splitlines()

    assert max(map(cell_len, lines)) <= width
    assert all(line.isprintable() for line in lines)


def test_the_summary_of_a_suspended_task_says_how_to_go_on() -> None:
    run = price_report()
    run.tell(TaskSuspended(reason="the budget is used up", hint="go on with it"))

    assert summed_up(run, 80).splitlines()[0].startswith("○ suspended after 1 min 4 s")
    assert "the budget is used up. Go on with it" in summed_up(run, 80)


def test_the_summary_of_a_run_that_a_signal_stopped_says_how_to_go_on() -> None:
    run = price_report()
    run.tell(TaskSuspended(reason="Ctrl-C", hint="go on with it", interrupted=True))

    assert summed_up(run, 80).splitlines()[0].startswith("○ interrupted after")
    assert "Ctrl-C. Go on with it" in summed_up(run, 80)


def test_the_summary_of_an_interrupted_run_does_not_call_it_done() -> None:
    assert summed_up(price_report(), 80).startswith("○ interrupted after 1 min 4 s")


def test_a_result_of_another_form_is_no_reason_to_fail() -> None:
    results: list[dict[str, Any]] = [
        {"subtasks": []},
        {"subtasks": {"a": {"result": [1]}}},
        {},
    ]
    for result in results:
        run = Telling("x", subtask("a", description="work"))
        run.tell(TaskFinished(status=Status.COMPLETED, result=result))
        assert summed_up(run, 80).startswith("✓ completed after 0 s")


def test_the_summary_tells_budget_cache_and_what_a_person_should_know() -> None:
    run = Telling(
        "x", subtask("a", description="work"), budget_usd=0.5, budget_tokens=200_000
    )
    run.complete("a", usage=Usage(8_000, 23_000, 1_104_000, 88_000, 0.41))
    run.tell(Noticed(text="80 % of the budget of $0.50 is used", is_passing=True))
    run.tell(Noticed(text="the price of x is not known"))
    run.tell(TaskFinished(status=Status.COMPLETED, result={}))

    assert summed_up(run, 160) == (
        "✓ completed after 0 s · 1 of 1 subtasks done · 119.0k of 200k tokens (92 % of "
        "the input read from the cache) · $0.41 of $0.50\n"
        "! the price of x is not known\n"
    )


def test_the_summary_says_once_why_it_was_suspended_and_what_to_do() -> None:
    run = Telling("x", subtask("a", description="work"), budget_usd=0.5)
    run.start("a")
    run.progress("a", "Read", usage=Usage(90, 9, cost_usd=0.51))
    run.tell(Noticed(text="80 % of the budget of $0.50 is used", is_passing=True))
    reason = "the budget of $0.50 is spent: $0.51 used"
    run.tell(TaskSuspended(reason=reason, hint="go on with mas resume x --budget MORE"))
    shown = summed_up(run, 160)

    assert shown.count("budget") == 2
    assert shown.endswith(f"{reason}. Go on with mas resume x --budget MORE\n")
    assert "99 tokens · $0.51 of $0.50\n" in shown
