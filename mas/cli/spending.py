"""What a task's calls of Claude took, as ``mas show`` prints it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo

from msgspec import Struct

from mas.cli.grid import Column, Line, table
from mas.cli.summary import block
from mas.cli.text import Glyphs, brief, tokens
from mas.cli.usage import cache_words, cost_cell, cost_words, token_words
from mas.core.spending import Spending, add_up
from mas.gateway.exchange import PLANNER
from mas.model import CallState, ModelCall, Usage

_LINES = 20
"""Of one text; there are no more."""

_KINDS = (
    Column("input", right=True, rank=2),
    Column("output", right=True, rank=1),
    Column("cache read", right=True, rank=3),
    Column("cache write", right=True, rank=4),
    Column("cost", right=True),
)
_SUM_COLUMNS = (
    Column("model", flexible=True, least=12),
    Column("calls", right=True),
    *_KINDS,
)
_CALL_COLUMNS = (
    Column("time"),
    Column("subtask", flexible=True, least=8),
    Column("try", right=True, rank=7),
    Column("agent", rank=8),
    Column("subagent", flexible=True, least=8, rank=10),
    Column("model", flexible=True, least=8, rank=9),
    *_KINDS,
    Column("status", flexible=True, least=11),
    Column("first byte", right=True, rank=5),
    Column("time taken", right=True, rank=6),
)
_STYLES = {
    CallState.OPEN: "cyan",
    CallState.CUT: "yellow",
    CallState.REFUSED: "yellow",
    CallState.UNANSWERED: "yellow",
}


class Told(Struct, frozen=True):
    """The calls of a task, for a section of ``width`` cells."""

    calls: Sequence[ModelCall]
    width: int
    glyphs: Glyphs

    def sums(self) -> Iterator[Line]:
        """All together, by model and by subtask; nothing where nothing was called."""
        if not self.calls:
            return
        spending = add_up(self.calls)
        yield []
        text = f" {self.glyphs.dot} ".join(_in_all(spending))
        lines = block(text, self.width - 8, self.glyphs, most=_LINES)
        for at, line in enumerate(lines):
            yield [("" if at else "Claude  ", "bold"), (" " * 8 * bool(at) + line, "")]
        by_model = [
            _sum_row(each.model or "unknown", each.calls, each.usage)
            for each in spending.by_model
        ]
        by_subtask = [
            _sum_row(each.subtask_id or PLANNER, each.calls, each.usage)
            for each in spending.by_subtask
        ]
        between = [("subtask", "dim"), *[("", "")] * (len(_SUM_COLUMNS) - 1)]
        rows: list[Line] = [*by_model, between, *by_subtask]
        yield from self._table(_SUM_COLUMNS, rows)
        yield from self._legend(spending)

    def _legend(self, spending: Spending) -> Iterator[Line]:
        """What the marks mean that stand above."""
        if spending.usage.estimated_tokens:
            told = "~ an answer was cut: its output is an estimate"
            yield from self._aside(told)
        for each in spending.by_model:
            if each.usage.unpriced_tokens:
                yield from self._aside(
                    f"? the price of {each.model} is not known: "
                    f'[prices."{each.model}"] in mas.toml can say it'
                )

    def _aside(self, text: str) -> list[Line]:
        lines = block(text, self.width, self.glyphs, most=_LINES)
        return [[(line, "yellow")] for line in lines]

    def each(self, zone: tzinfo | None = None) -> Iterator[Line]:
        """A row a call, by its start; times are local unless a zone is given."""
        yield []
        if not self.calls:
            yield [(self.glyphs.crop("Claude was never called", self.width), "dim")]
            return
        rows = [_call_row(call, zone) for call in self.calls]
        yield from self._table(_CALL_COLUMNS, rows)

    def _table(self, columns: Sequence[Column], rows: Sequence[Line]) -> list[Line]:
        """The columns in which some row says something."""
        used = [at for at in range(len(columns)) if any(row[at][0] for row in rows)]
        shown = [[row[at] for at in used] for row in rows]
        return table([columns[at] for at in used], shown, self.width, self.glyphs)


def _in_all(spending: Spending) -> Iterable[str]:
    usage, first_byte_s = spending.usage, spending.median_first_byte_s
    parts = [
        f"{spending.calls} call{'s' if spending.calls != 1 else ''}",
        f"{spending.refused} refused" if spending.refused else "",
        token_words(usage),
        cost_words(usage),
        cache_words(spending.cache_read_share),
        ""
        if first_byte_s is None
        else f"first byte after {brief(first_byte_s)} (median)",
    ]
    return filter(None, parts)


def _sum_row(name: str, calls: int, usage: Usage) -> Line:
    return [(name, ""), (str(calls), ""), *_kinds(usage), (cost_cell(usage), "")]


def _kinds(usage: Usage) -> Line:
    about = "~" if usage.estimated_tokens and usage.output_tokens else ""
    texts = [
        tokens(usage.input_tokens),
        about + tokens(usage.output_tokens),
        tokens(usage.cache_read_tokens),
        tokens(usage.cache_write_tokens),
    ]
    return [(text, "") for text in texts]


def _call_row(call: ModelCall, zone: tzinfo | None) -> Line:
    seconds = (call.first_byte_s, call.duration_s)
    first_byte, took = ("" if s is None else brief(s) for s in seconds)
    return [
        (f"{call.started_at.astimezone(zone):%H:%M:%S}", "dim"),
        (call.subtask_id or PLANNER, ""),
        ("" if call.attempt is None else str(call.attempt), ""),
        (call.agent_id if call.subtask_id else "", ""),
        (call.subagent or "", "dim"),
        (call.model, ""),
        *_kinds(call.usage),
        (cost_cell(call.usage, digits=4), ""),
        (_status(call), _STYLES.get(call.state, "")),
        (first_byte, ""),
        (took, ""),
    ]


def _status(call: ModelCall) -> str:
    """complete, 429 refused, cut: why."""
    if call.state is CallState.REFUSED:
        return f"{call.http_status} {call.state.value}"
    return f"{call.state.value}: {call.error}" if call.error else call.state.value
