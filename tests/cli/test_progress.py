"""The live screen, as text."""

import io
from datetime import timedelta
from itertools import product
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mas.cli.footer import footer
from mas.cli.progress import render, summary
from mas.cli.text import ASCII, UNICODE, Glyphs
from mas.core.events import (
    AgentLost,
    AgentReady,
    Noticed,
    TaskFinished,
    TaskSuspended,
    Waiting,
)
from mas.core.view import RunView, State
from mas.model import Status, Usage
from tests.cli.runs import HOSTILE, WIDTHS, many, price_report, screen, text_of
from tests.core.telling import START, Telling, subtask


def test_a_screen_of_100_columns() -> None:
    assert screen(price_report(), 100) == (
        "Quarterly competitor price report  3f2a91c0\n"
        "stage           subtask               needs       agent     time tokens"
        "  cost  last\n"
        "  1 ┌ ✓ fetch   Scrape competitor p…              agent_2  41.2s  18.4k"
        " $0.11  try 2: WebFetch\n"
        "    │ ✓ query   Load Q3 sales from…               agent_5  12.9s   6.1k"
        " $0.04  query_database\n"
        "    └ ↻ fx      Pull FX rates                     agent_4   3.1s       "
        "        try 2 in 3 s: agent…\n"
        "  2 ╶ ✓ clean   Normalise and join…   fetch +1    agent_3  22.0s   9.8k"
        " $0.06  Write\n"
        "  3 ┌ ► stats   Price elasticity by…  clean       agent_2   1:04       "
        "        Bash python fit.py\n"
        "    └   └ ►     Explore                                                "
        "        reads\n"
        "  4 ╶ · report  Write the report      stats, fx                        "
        "        waits for stats, fx\n"
        "\n"
        "━━━━━━━━━━━━━━━━━━──────────────────  3/6  1 running · 1 retry · "
        "1 queued  34.3k tokens  $0.21  1:04\n"
    )


def test_a_screen_of_80_columns_leaves_out_needs_and_last() -> None:
    lines = screen(price_report(), 80).splitlines()

    assert lines[1] == (
        "              subtask                                agent     time"
        " tokens  cost"
    )
    # The reason would be in the last column: it takes the description's place.
    assert lines[4] == (
        "  └ ↻ fx      try 2 in 3 s: agent exited with 137    agent_4   3.1s"
    )


def test_a_screen_of_40_columns_keeps_subtask_and_time() -> None:
    assert screen(price_report(), 40) == (
        "Quarterly competitor price report\n"
        "              subtask               time\n"
        "1 ┌ ✓ fetch   Scrape competitor…   41.2s\n"
        "  │ ✓ query   Load Q3 sales from…  12.9s\n"
        "  └ ↻ fx      try 2 in 3 s: agen…   3.1s\n"
        "2 ╶ ✓ clean   Normalise and join…  22.0s\n"
        "3 ┌ ► stats   Price elasticity b…   1:04\n"
        "  └   └ ►     Explore: reads\n"
        "4 ╶ · report  Write the report\n"
        "\n"
        "━━━━━━━────────  3/6  ►1 ↻1  $0.21  1:04\n"
    )


def test_the_same_in_ascii() -> None:
    shown = screen(price_report(), 80, glyphs=ASCII)

    assert shown.isascii()
    assert "  | ~ fx      try 2 in 3 s: agent exited with 137    agent_4" in shown
    assert "3/6  1 running - 1 retry - 1 queued" in shown


SIZES = list(product(WIDTHS, (1, 6, 60, 500), (1, 2, 5, 9, 24)))


@pytest.mark.parametrize(("width", "number", "height"), SIZES)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_every_screen_fits(
    width: int, number: int, height: int, glyphs: Glyphs
) -> None:
    lines = screen(many(number), width, height, glyphs).splitlines()

    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert all(line.isprintable() for line in lines)
    if glyphs is ASCII:
        assert all(map(str.isascii, lines))


@pytest.mark.parametrize(("width", "number"), list(product(WIDTHS, (6, 60, 500))))
def test_of_many_rows_those_stay_that_a_person_looks_for(
    width: int, number: int
) -> None:
    run = many(number)
    run.end_attempt(f"s{number // 2 - 1}", Status.FAILED, error="oops", retry_in_s=9)
    lines = screen(run, width, 24).splitlines()
    rows = {words[-1]: line for line in lines if (words := _row(line))}

    by_state: dict[State, list[str]] = {state: [] for state in State}
    for key, row in run.view.subtasks.items():
        by_state[row.state].append(key)
    assert set(by_state[State.RUNNING]) <= set(rows)
    assert set(by_state[State.RETRY]) <= set(rows)
    failed = set(by_state[State.FAILED]) & set(rows)
    assert len(failed) == len(by_state[State.FAILED]) or len(rows) >= 18
    assert all(rows[key].count(key) >= 1 for key in rows)
    folded = [line for line in lines if line.startswith("… ")]
    assert len(folded) == (len(rows) < number)
    if folded:
        assert folded[0].startswith(f"… {number - len(rows)} more: ")


def _row(line: str) -> list[str]:
    """The words of a subtask's row up to its id; nothing for other lines."""
    words = line.split()
    signs = set(UNICODE.states.values())
    for at, word in enumerate(words[:3]):
        if word in signs and len(words) > at + 1 and words[at + 1].startswith("s"):
            return words[: at + 2]
    return []


def test_what_is_folded_is_told_in_words() -> None:
    run = Telling("x", *(subtask(f"s{at}", description="work") for at in range(140)))
    for at in range(70):
        run.complete(f"s{at}", 1)
    lines = screen(run, 80, 17).splitlines()

    assert lines[-3] == "… 128 more: 70 done, 58 queued"
    assert lines[2].split() == ["1", "┌", "○", "s70", "work"]


def test_what_ended_last_fills_the_rows_that_are_left() -> None:
    run = Telling("x", *(subtask(f"s{at}", description="work") for at in range(30)))
    for at in range(30):
        run.tell(Waiting(reason=""), after_s=1)
        run.complete(f"s{at}", 1)
    shown = [_row(line)[-1] for line in screen(run, 80, 9).splitlines() if _row(line)]

    assert shown == ["s25", "s26", "s27", "s28", "s29"]


def test_many_subagents_are_counted_and_those_at_work_are_shown() -> None:
    run = Telling("x", subtask("a", description="work"))
    run.start("a")
    for number in range(9):
        status = "running" if number in (6, 8) else "completed"
        run.progress("a", "reads", subagent=f"w{number}", status=status)
    rows = [line.split()[2:4] for line in screen(run, 80).splitlines()[3:7]]

    assert rows == [["✓", "w0:"], ["►", "w6:"], ["►", "w8:"], ["…", "6"]]


def test_subagents_make_room_before_subtasks_do() -> None:
    run = Telling(
        "x", subtask("a", description="work"), subtask("b", description="work")
    )
    run.start("a")
    run.start("b", agent="agent_2")
    for number in range(3):
        run.progress("a", "reads", subagent=f"w{number}", status="running")

    assert screen(run, 80, 7).splitlines()[2:6] == [
        "1 ┌ ► a    work                                      agent_1   0.0s",
        "  │   └ ►  w0: reads",
        "  └ ► b    work                                      agent_2   0.0s",
        "… more subagents",
    ]


def test_columns_stay_where_they_are_while_activities_change() -> None:
    run = Telling("x", subtask("a", description="d" * 80))
    run.start("a")
    columns = set()
    for activity in ("!", "!" * 20, "!" * 200):
        run.progress("a", activity)
        columns.add(screen(run, 100).splitlines()[2].index("!"))

    assert len(columns) == 1


def test_before_the_plan_the_task_the_wait_and_the_agents_are_shown() -> None:
    run = Telling("Compare prices")
    for name in ("agent_1", "agent_3"):
        run.tell(AgentReady(agent_id=name, pid=1, capabilities=()))
    run.tell(AgentLost(agent_id="agent_2", error="exit 1"))
    run.tell(Waiting(reason="the plan"), after_s=30)
    run.wait(12)

    assert screen(run, 80) == (
        "Compare prices  3f2a91c0\n"
        "! agent_2 starts again: exit 1\n"
        "► waiting for the plan… 12 s\n"
        "  agents 2 ready: agent_1, agent_3\n"
    )


def test_before_any_event_there_is_a_screen() -> None:
    frame = render(RunView(), now=START, width=80, height=24, glyphs=UNICODE)

    assert text_of(frame, 80) == "task\n► planning… 0 s\n  agents starting\n"


def test_what_holds_for_the_whole_task_is_above_the_rows() -> None:
    run = price_report()
    run.tell(Waiting(reason="PostgreSQL to come back"))
    run.tell(AgentLost(agent_id="agent_1", error="6 failures in 60 s", retired=True))
    run.wait(20)
    notes = screen(run, 80).splitlines()[1:3]
    assert notes == [
        "! waiting for PostgreSQL to come back, for 20 s",
        "! agent_1 is out of this run: 6 failures in 60 s",
    ]

    run.tell(Waiting(reason=""))
    assert "PostgreSQL" not in screen(run, 80)

    run.tell(TaskSuspended(reason="Ctrl-C was pressed", hint="go on", interrupted=True))
    lines = screen(run, 80).splitlines()
    assert lines[0] == "Quarterly competitor price report  interrupted · 3f2a91c0"
    assert lines[1] == "! interrupted: Ctrl-C was pressed. Go on"

    run.tell(TaskSuspended(reason="the budget is used up", hint="raise it"))
    lines = screen(run, 80).splitlines()
    assert lines[0] == "Quarterly competitor price report  suspended · 3f2a91c0"
    assert lines[1] == "! suspended: the budget is used up. Raise it"


def test_a_wait_whose_end_is_known_counts_down() -> None:
    run = price_report()
    until = run.now + timedelta(seconds=37.2)
    run.tell(Waiting(reason="the rate limit", until=until))

    for after_s, told in ((0, "38 s"), (30, "8 s"), (7, "1 s"), (1, "trying again")):
        run.wait(after_s)
        assert (
            screen(run, 80).splitlines()[1] == f"! waiting for the rate limit, {told}"
        )


def test_a_wait_counts_down_before_there_is_a_plan() -> None:
    run = Telling("Compare prices")
    until = run.now + timedelta(seconds=90)
    run.tell(Waiting(reason="the rate limit", until=until))
    run.wait(5)

    assert "► waiting for the rate limit, 1 min 25 s\n" in screen(run, 80)


def test_an_attempt_that_waits_for_its_turn_says_so_in_its_row() -> None:
    run = price_report()
    run.progress("stats", "", held=True)
    assert screen(run, 140).splitlines()[6].endswith("waits for its turn at Claude")

    run.progress("stats", "", held=False)
    assert screen(run, 140).splitlines()[6].endswith("Bash python fit.py")


def test_notices_are_above_the_rows_and_each_is_one_line() -> None:
    run = price_report()
    run.tell(Noticed(text="the price of x is not known: " + "y" * 90))
    run.tell(Noticed(text="80 % of the budget is used", is_passing=True))

    notes = screen(run, 80).splitlines()[1:3]
    assert notes[0].startswith("! the price of x is not known: yyy")
    assert notes[0].endswith("…")
    assert notes[1] == "! 80 % of the budget is used"


def test_what_the_summary_below_says_is_not_said_on_the_screen_too() -> None:
    run = price_report()
    run.tell(Noticed(text="the price of x is not known"))
    run.tell(AgentLost(agent_id="agent_1", error="6 failures", retired=True))
    run.tell(TaskFinished(status=Status.FAILED, result={}, error="fx failed"))
    frame = render(
        run.view, now=run.now, width=80, height=24, glyphs=UNICODE, is_summed_up=True
    )

    notes = [line for line in text_of(frame, 80).splitlines() if line.startswith("!")]
    assert notes == ["! agent_1 is out of this run: 6 failures"]
    told = [line for line in screen(run, 80).splitlines() if line.startswith("!")]
    assert len(told) == 3


def spent(
    used: Usage, *, usd: float | None = None, tokens: int | None = None
) -> Telling:
    run = Telling(
        "x",
        subtask("a", description="work"),
        subtask("b", description="work"),
        budget_usd=usd,
        budget_tokens=tokens,
    )
    run.start("a")
    run.progress("a", "Read", usage=used)
    run.wait(4)
    return run


USED = Usage(30_000, 4_300, cost_usd=0.41)


@pytest.mark.parametrize(
    ("run", "width", "end"),
    [
        (spent(USED, usd=0.5), 100, "34.3k tokens  $0.41 of $0.50  0:04"),
        (spent(USED, usd=0.5), 60, "1 running · 1 queued  $0.41 of $0.50  0:04"),
        (spent(USED, usd=0.5), 40, "0/2  ►1  $0.41 of $0.50  0:04"),
        (spent(USED, usd=0.5), 20, "0/2  ►1  $0.41  0:04"),
        (spent(USED, tokens=40_000), 100, "34.3k of 40k tokens  $0.41  0:04"),
        (spent(Usage(), usd=2), 80, "$0.00 of $2.00  0:04"),
        (spent(Usage(9, 9, unpriced_tokens=18)), 80, "18 tokens  cost not known  0:04"),
        (
            spent(Usage(9, 9, 0, 0, 0.02, 4, 9), usd=1),
            80,
            "~18 tokens  ~$0.02 + ? of $1.00  0:04",
        ),
    ],
)
def test_the_footer_tells_cost_and_tokens_of_their_budgets(
    run: Telling, width: int, end: str
) -> None:
    assert screen(run, width).splitlines()[-1].endswith(end)
    assert screen(run, width, glyphs=ASCII).isascii()


def test_a_budget_that_is_nearly_used_up_is_coloured() -> None:
    styles = []
    for limit in (1.0, 0.5, 0.4):
        run = spent(USED, usd=limit)
        line = footer(run.view, run.now, 80, UNICODE)
        styles += [style for text, style in line if text.startswith("$0.41")]

    assert styles == ["dim", "yellow", "red"]


@pytest.mark.parametrize("width", range(1, 131))
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_every_footer_fits(width: int, glyphs: Glyphs) -> None:
    odd = Usage(10**9, 10**9, 10**9, 10**9, 12_345.67, 10**9, 10**9)
    for run in (spent(odd, usd=20_000, tokens=10**10), spent(odd), spent(USED, usd=3)):
        line = footer(run.view, run.now, width, glyphs)
        assert sum(cell_len(text) for text, _ in line) <= width


@pytest.mark.parametrize("number", [50, 500])
def test_a_screen_is_drawn_in_less_than_10_ms_of_cpu(number: int) -> None:
    run = many(number)
    screen(run, 160, 50)
    taken_s = []
    for _ in range(5):
        run.wait(0.25)
        before_s = process_time()
        screen(run, 160, 50)
        taken_s.append(process_time() - before_s)

    assert min(taken_s) < 0.010


def colours_of(run: Telling, no_color: bool) -> str:
    console = Console(
        file=io.StringIO(),
        width=100,
        force_terminal=True,
        color_system="standard",
        no_color=no_color,
    )
    with console.capture() as captured:
        console.print(render(run.view, now=run.now, width=100, height=24))
    return captured.get()


def test_colour_is_left_out_where_it_is_not_wanted() -> None:
    run = price_report()

    assert "\x1b[33m↻\x1b[0m \x1b[1mfx\x1b[0m" in colours_of(run, no_color=False)
    plain = colours_of(run, no_color=True)
    assert not any(f"\x1b[{code}m" in plain for code in range(30, 48))
    assert "↻ \x1b[1mfx\x1b[0m" in plain


def test_without_glyphs_the_consoles_encoding_decides() -> None:
    run = price_report()
    for draw in (
        render(run.view, now=run.now, width=80, height=24),
        summary(run.view, now=run.now, width=80),
    ):
        raw = io.BytesIO()
        console = Console(file=io.TextIOWrapper(raw, "ascii", "strict"), width=80)
        console.print(draw)
        console.file.flush()

        assert raw.getvalue().isascii()


any_text = st.text(max_size=60) | st.just(HOSTILE)


@given(any_text, any_text, any_text, st.integers(1, 130), st.integers(1, 30))
@settings(max_examples=150)
def test_no_text_breaks_a_screen(
    description: str, key: str, said: str, width: int, height: int
) -> None:
    run = Telling(
        description,
        subtask(key, description=said),
        subtask(key + "x", key, description=said),
    )
    run.start(key, agent=said)
    run.progress(key, said)
    run.progress(key, said, subagent=said, status=said)
    run.tell(AgentLost(agent_id=said, error=said))
    run.tell(Noticed(text=said))
    run.tell(Waiting(reason=said, until=run.now))
    for _ in range(2):
        for glyphs in (UNICODE, ASCII):
            lines = screen(run, width, height, glyphs).split("\n")[:-1]
            assert len(lines) <= height
            assert all(cell_len(line) <= width for line in lines)
            assert not any(ord(char) < 32 for line in lines for char in line)
        run.end(key, Status.FAILED, said)


def test_markup_is_text() -> None:
    run = Telling(
        "[bold]x[/bold]", subtask("a", description="[link=file:///etc/passwd]b[/link]")
    )

    shown = screen(run, 140)
    assert shown.startswith("[bold]x[/bold]")
    assert "[link=file:///etc/passwd]b[/link]" in shown
