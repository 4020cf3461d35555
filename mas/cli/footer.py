"""The last line of the live screen: a bar, counts, tokens, cost and the clock."""

from collections.abc import Iterable
from datetime import datetime

from rich.cells import cell_len

from mas.cli.grid import Cell, Line
from mas.cli.text import Glyphs, clock, fit
from mas.cli.usage import cost_words, token_words
from mas.core.view import RunView, State
from mas.gateway.spending.budget import WARN_AT

STYLES = {
    State.PENDING: "dim",
    State.BLOCKED: "red",
    State.READY: "dim",
    State.RUNNING: "cyan",
    State.RETRY: "yellow",
    State.COMPLETED: "green",
    State.FAILED: "red",
    State.CANCELLED: "dim",
}
"""Each state has a sign too, so nothing hangs on colour."""

_BAR_MOST, _BAR_LEAST = 40, 8
_GAP = 2


def footer(view: RunView, now: datetime, width: int, glyphs: Glyphs) -> Line:
    """As much as fits in ``width``: the parts that matter least are left out first."""
    total = len(view.subtasks)
    ratio: Line = [(f"{view.counts[State.COMPLETED]}/{total}", "bold")]
    parts: dict[str, list[Line]] = {
        "ratio": [ratio],
        "clock": [[(clock(view.elapsed_s(now)), "dim")]],
        "counts": [counts_in_words(view, glyphs), _counts_in_signs(view, glyphs)],
        "bar": [[(" " * _BAR_LEAST, "")]],
        "cost": _cost(view),
        "tokens": _tokens(view),
    }
    wanted = list(parts)
    if view.budget_usd is not None:  # then what is left of it is why people look
        wanted.remove("cost")
        wanted.insert(2, "cost")
    kept: dict[str, Line] = {}
    left = width
    for name in wanted:
        gap = _GAP if kept else 0
        fitting = (part for part in parts[name] if 0 < _width(part) <= left - gap)
        if part := next(fitting, None):
            kept[name] = part
            left -= _width(part) + gap
    if "bar" in kept:
        kept["bar"] = bar(view, min(_BAR_MOST, _BAR_LEAST + left), glyphs)
    if not kept:
        return [(fit(ratio[0][0], width, ""), "bold")]
    order = ("bar", "ratio", "counts", "tokens", "cost", "clock")
    return join([kept[name] for name in order if name in kept], " " * _GAP)


def _cost(view: RunView) -> list[Line]:
    """What the task cost, of its budget where it has one; the longest form first."""
    used, budget_usd = view.usage, view.budget_usd
    style = _budget_style(used.cost_usd, budget_usd)
    return [[(cost_words(used, budget_usd), style)], [(cost_words(used), style)]]


def _tokens(view: RunView) -> list[Line]:
    used, budget = view.usage, view.budget_tokens
    style = _budget_style(used.tokens, budget)
    return [[(token_words(used, budget), style)], [(token_words(used), style)]]


def _budget_style(used: float, budget: float | None) -> str:
    if budget is None or used < WARN_AT * budget:
        return "dim"
    return "yellow" if used < budget else "red"


def bar(view: RunView, width: int, glyphs: Glyphs) -> Line:
    """What is done, what will not be, and the rest; told apart by shape as well."""
    total = max(1, len(view.subtasks))
    done = view.counts[State.COMPLETED]
    lost = sum(view.counts[state] for state in State if state.is_broken)
    done_to = width * done // total
    lost_to = width * (done + lost) // total
    return [
        (glyphs.done * done_to, "green" if done == total else "cyan"),
        (glyphs.failed * (lost_to - done_to), "red"),
        (glyphs.rest * (width - lost_to), "dim"),
    ]


def counts_in_words(view: RunView, glyphs: Glyphs) -> Line:
    """1 running · 1 retry · 3 queued: every state but completed that there is."""
    counts = dict(view.counts)
    queued = counts.pop(State.READY) + counts.pop(State.PENDING)
    told = [
        (counts[State.RUNNING], "running", ""),
        (counts[State.RETRY], "retry", STYLES[State.RETRY]),
        (queued, "queued", ""),
        (counts[State.FAILED], "failed", STYLES[State.FAILED]),
        (counts[State.BLOCKED], "blocked", STYLES[State.BLOCKED]),
        (counts[State.CANCELLED], "cancelled", ""),
    ]
    cells = [[(f"{number} {word}", style)] for number, word, style in told if number]
    return join(cells, f" {glyphs.dot} ")


def _counts_in_signs(view: RunView, glyphs: Glyphs) -> Line:
    shown = [State.RUNNING, State.RETRY, State.FAILED]
    cells = [
        [(f"{glyphs.states[state]}{view.counts[state]}", STYLES[state])]
        for state in shown
        if view.counts[state]
    ]
    return join(cells, " ")


def join(parts: Iterable[Line], between: str) -> Line:
    """The cells of ``parts``, with ``between`` between one and the next."""
    cells: list[Cell] = []
    for part in parts:
        if cells:
            cells.append((between, ""))
        cells += part
    return cells


def _width(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)
