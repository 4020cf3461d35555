"""What ``mas show`` prints of a task's calls of Claude."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len

from mas.cli.grid import Lines
from mas.cli.spending import Told
from mas.cli.text import ASCII, UNICODE, Glyphs
from mas.model import CallState, ModelCall, Usage
from tests.cli.runs import HOSTILE, WIDTHS, text_of

START = datetime(2026, 11, 22, 12, 3, 41, tzinfo=UTC)
SONNET = "claude-sonnet-5-5"


def call(number: int, subtask: str | None, **fields: Any) -> ModelCall:
    made: dict[str, Any] = {
        "id": str(number),
        "task_id": "t",
        "subtask_id": subtask,
        "attempt": 1 if subtask else None,
        "agent_id": "agent_2" if subtask else "planner",
        "path": "/v1/messages",
        "model": SONNET,
        "state": CallState.COMPLETE,
        "http_status": 200,
        "started_at": START + timedelta(seconds=number),
        "first_byte_s": 0.8,
        "duration_s": 2.25,
    }
    return ModelCall(**(made | fields))


CALLS = [
    call(0, None, usage=Usage(680, 257, cost_usd=0.004)),
    call(
        5,
        "fetch",
        state=CallState.REFUSED,
        http_status=429,
        error="rate_limit_error",
        first_byte_s=0.01,
        duration_s=0.01,
    ),
    call(15, "fetch", usage=Usage(400, 300, 9_000, 600, cost_usd=0.0062)),
    call(
        16,
        "fetch",
        subagent="Explore",
        state=CallState.CUT,
        error="the connection broke off",
        usage=Usage(100, 50, cost_usd=0.0007, estimated_tokens=50),
    ),
    call(17, "fx", model="my-model", usage=Usage(200, 80, unpriced_tokens=280)),
]


def sums(
    calls: list[ModelCall], width: int = 100, glyphs: Glyphs = UNICODE
) -> list[str]:
    lines = list(Told(calls, width, glyphs).sums())
    return text_of(Lines(lines), width).splitlines()


def each(
    calls: list[ModelCall], width: int = 150, glyphs: Glyphs = UNICODE
) -> list[str]:
    lines = list(Told(calls, width, glyphs).each(UTC))
    return text_of(Lines(lines), width).splitlines()


def test_all_that_was_taken_is_told_by_model_and_by_subtask() -> None:
    assert sums(CALLS, 110) == [
        "",
        "Claude  5 calls · 1 refused · ~2.7k tokens · ~$0.01 + ? · 81 % of the input "
        "read from the cache · first byte",
        "        after 800 ms (median)",
        "model              calls  input  output  cache read  cache write    cost",
        "claude-sonnet-5-5      4   1.2k    ~607        9.0k          600  ~$0.01",
        "my-model               1    200      80                                ?",
        "subtask",
        "planner                1    680     257                           <$0.01",
        "fetch                  3    500    ~350        9.0k          600  ~$0.01",
        "fx                     1    200      80                                ?",
        "~ an answer was cut: its output is an estimate",
        '? the price of my-model is not known: [prices."my-model"] in mas.toml can '
        "say it",
    ]


def test_kinds_that_nothing_used_have_no_column() -> None:
    lines = sums(CALLS[:1])

    assert lines[2].split() == ["model", "calls", "input", "output", "cost"]


def test_where_nothing_was_called_nothing_is_told() -> None:
    assert sums([]) == []
    assert each([]) == ["", "Claude was never called"]


def test_each_call_is_a_row() -> None:
    rows = [line.split() for line in each(CALLS, 190)[1:]]

    assert rows[1][:6] == ["12:03:41", "planner", SONNET, "680", "257", "$0.0040"]
    assert rows[2] == [
        *("12:03:46", "fetch", "1", "agent_2", SONNET),
        *("429", "refused", "10", "ms", "10", "ms"),
    ]
    assert rows[3][5:10] == ["400", "300", "9.0k", "600", "$0.0062"]
    assert rows[3][10:] == ["complete", "800", "ms", "2.2s"]
    assert " ".join(rows[4][4:13]) == (
        f"Explore {SONNET} 100 ~50 ~$0.0007 cut: the connection broke"
    )
    assert "?" in rows[5]


def test_a_call_that_runs_has_no_end() -> None:
    running = call(
        1, "fx", state=CallState.OPEN, http_status=None,
        first_byte_s=None, duration_s=None,
    )  # fmt: skip
    heading, row = each([running])[1:]

    assert heading.split() == ["time", "subtask", "try", "agent", "model", "status"]
    assert row.split()[-1] == "open"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_every_list_of_calls_fits(width: int, glyphs: Glyphs) -> None:
    odd = call(
        20,
        HOSTILE,
        model=HOSTILE,
        subagent=HOSTILE,
        agent_id=HOSTILE,
        state=CallState.UNANSWERED,
        error=HOSTILE * 9,
        usage=Usage(10**9, 10**9, 10**9, 10**9, 1e5, 10**9, 10**9),
    )
    calls = [*CALLS, odd]
    lines = [*sums(calls, width, glyphs), *each(calls, width, glyphs)]

    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)
    assert glyphs is UNICODE or all(map(str.isascii, lines))
