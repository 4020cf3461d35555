"""The tables that commands print, as text."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from mas.cli.tables import (
    Check,
    CheckState,
    agents_table,
    doctor_table,
    tasks_table,
)
from mas.model import AgentStatus, Status, Task
from tests.cli.runs import HOSTILE, WIDTHS, text_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def agent(number: int, **fields: Any) -> AgentStatus:
    return replace(
        AgentStatus(
            agent_id=f"agent_{number}",
            supervisor="laptop-4711",
            pid=4000 + number,
            is_available=True,
            current_task=None,
            capabilities=("web_scraping", "api_integration"),
            cpu_usage=12.4 * number,
            memory_usage=312.0 * number,
            tasks_completed=number,
            last_heartbeat=NOW - timedelta(seconds=8 * number),
        ),
        **fields,
    )


AGENTS = [
    agent(10),
    agent(2, is_available=False, current_task="scrape_prices"),
    agent(1),
]


def test_agents_are_shown_by_number_with_all_that_is_known() -> None:
    assert text_of(agents_table(AGENTS, now=NOW), 120) == (
        "agent      pid  state  subtask        capabilities                    CPU"
        "   memory  done  heartbeat\n"
        "agent_1   4001  idle                  web_scraping, api_integration   12%"
        "  312 MiB     1    8 s ago\n"
        "agent_2   4002  busy   scrape_prices  web_scraping, api_integration   25%"
        "  624 MiB     2   16 s ago\n"
        "agent_10  4010  idle                  web_scraping, api_integration  124%"
        "  3.0 GiB    10  1 min ago\n"
    )


def test_agents_of_several_supervisors_have_a_section_each() -> None:
    others = [agent(1, supervisor="box-1"), agent(3, supervisor="box-1")]
    lines = text_of(agents_table([*AGENTS, *others], now=NOW), 100).splitlines()

    assert [line.split()[0] for line in lines] == [
        "agent",
        "box-1",
        "agent_1",
        "agent_3",
        "laptop-4711",
        "agent_1",
        "agent_2",
        "agent_10",
    ]


def test_no_agents_is_a_table_too() -> None:
    assert text_of(agents_table([], now=NOW), 80) == (
        "agent  pid  state  subtask  capabilities  CPU  memory  done  heartbeat\n"
        "no agent is running\n"
    )


def task(key: str, status: Status, created_s: float, **fields: Any) -> Task:
    created_at = NOW - timedelta(seconds=created_s)
    return replace(
        Task(
            id=f"{key * 8}-1234",
            description=f"task {key}",
            status=status,
            created_at=created_at,
            updated_at=created_at + timedelta(seconds=30),
        ),
        **fields,
    )


def test_tasks_are_newest_first_and_interrupted_where_nobody_works_on_them() -> None:
    tasks = [
        task("e", Status.CANCELLED, 900, finished_at=NOW),
        task("d", Status.FAILED, 400_000, finished_at=NOW - timedelta(days=4)),
        task("c", Status.COMPLETED, 7300, finished_at=NOW - timedelta(seconds=99)),
        task("b", Status.IN_PROGRESS, 300, owner_alive=False),
        task("a", Status.IN_PROGRESS, 100, owner_alive=True),
        task("0", Status.PENDING, 4, description="two\nlines"),
        task("f", Status.IN_PROGRESS, 200),
    ]

    assert text_of(tasks_table(tasks, now=NOW), 80) == (
        "  task      status          age      time  description\n"
        "· 00000000  pending         4 s            two lines\n"
        "► aaaaaaaa  in_progress   1 min      1:40  task a\n"
        "► ffffffff  in_progress   3 min      3:20  task f\n"
        "↻ bbbbbbbb  interrupted   5 min     30.0s  task b\n"
        "⊘ eeeeeeee  cancelled    15 min     15:00  task e\n"
        "✓ cccccccc  completed       2 h   2:00:01  task c\n"
        "✗ dddddddd  failed       4 days  15:06:40  task d\n"
    )


def test_a_description_takes_one_line_and_no_more_than_is_left() -> None:
    tasks = [task("a", Status.PENDING, 4, description="a long description " * 9)]
    lines = text_of(tasks_table(tasks, now=NOW), 50).splitlines()

    assert lines[1] == "· aaaaaaaa  pending  4 s        a long descriptio…"


def test_no_tasks_is_a_table_too() -> None:
    assert text_of(tasks_table([], now=NOW), 80) == (
        "task  status  age  time  description\nno task is recorded\n"
    )


CHECKS = [
    Check("Python", CheckState.OK, "3.11.7", "not shown where all is well"),
    Check("Claude CLI", CheckState.WRONG, "not in the SDK", "pip install it"),
    Check("disk", CheckState.WARNING, "412 MiB free of " + "9" * 30, "make room"),
]


def test_the_doctor_says_what_is_wrong_and_what_to_do() -> None:
    assert text_of(doctor_table(CHECKS), 50) == (
        "✓ Python      3.11.7\n"
        "✗ Claude CLI  not in the SDK\n"
        "              → pip install it\n"
        "! disk        412 MiB free of\n"
        f"              {'9' * 30}\n"
        "              → make room\n"
        "\n"
        "Not ready: 1 of 3 must be mended before mas can\n"
        "run.\n"
    )


def test_the_doctor_puts_details_below_names_where_it_is_narrow() -> None:
    assert text_of(doctor_table(CHECKS[1:2]), 30).splitlines()[:3] == [
        "✗ Claude CLI",
        "  not in the SDK",
        "  → pip install it",
    ]


def test_a_warning_is_no_reason_not_to_run() -> None:
    shown = text_of(doctor_table([CHECKS[0], CHECKS[2]]), 80)

    assert shown.endswith("\nReady: mas can run.\n")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_fits(width: int) -> None:
    agents = [agent(1, agent_id=HOSTILE, current_task=HOSTILE, supervisor=HOSTILE)]
    tasks = [task("a", Status.FAILED, 5, description=HOSTILE * 9)]
    for shown in (
        text_of(agents_table([*AGENTS, *agents], now=NOW), width),
        text_of(tasks_table(tasks, now=NOW), width),
        text_of(doctor_table([Check(HOSTILE, CheckState.WRONG, HOSTILE, "x")]), width),
    ):
        lines = shown.splitlines()
        assert all(cell_len(line) <= width for line in lines)
        assert all(line.isprintable() for line in lines)


@given(st.text(max_size=50), st.integers(10, 100))
@settings(max_examples=50)
def test_the_doctor_leaves_nothing_out(detail: str, width: int) -> None:
    shown = text_of(doctor_table([Check("a", CheckState.OK, detail)]), width)

    assert all(cell_len(line) <= width for line in shown.splitlines())
    letters = [char for char in detail if char.isascii() and char.isalnum()]
    rest = iter(shown)
    assert all(letter in rest for letter in letters)
