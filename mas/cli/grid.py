"""Rows in aligned columns, laid out in cells, cheaply enough to draw often.

Rich's Table takes five times as long, crops with a sign that the encoding may lack,
and cannot drop a column. Rich still turns styles into escape sequences, or not.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from mas.cli.text import Glyphs, fit, glyphs_for

Cell = tuple[str, str]
"""A text, visible already, and its style."""

Line = Sequence[Cell]


class Column(Struct, frozen=True):
    heading: str = ""
    right: bool = False
    least: int = 3
    """Where it would get less than this, columns are dropped."""
    most: int = 10_000
    floor: int = 0
    """It takes this much even where its cells need less, and so does not move."""
    flexible: bool = False
    """Shares what the others leave; else it is as wide as its widest cell."""
    rank: int = 0
    """Where space is short the highest is dropped first; 0 stays."""
    gap: int = 2
    """Blanks behind it, where something follows."""


class Lines(Struct, frozen=True):
    """A Rich renderable: lines as they are, nothing interpreted, wrapped or cropped."""

    lines: Sequence[Line]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        for line in self.lines:
            for text, style in line:
                if text:
                    yield Segment(text, Style.parse(style) if style else None)
            yield Segment.line()


class Drawing(Struct, frozen=True):
    """A Rich renderable: lines drawn for the width and the signs of its console."""

    draw: Callable[[int, Glyphs], Sequence[Line]]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        yield Lines(self.draw(options.max_width, glyphs_for(options.encoding)))


def table(
    columns: Sequence[Column], rows: Sequence[Line], width: int, glyphs: Glyphs
) -> list[Line]:
    """A heading and ``rows``, whose cells may be anything: they are made harmless."""
    visible = [[(glyphs.visible(text), style) for text, style in row] for row in rows]
    heading: Line = [(column.heading, "dim") for column in columns]
    return arrange(columns, [heading, *visible], width, glyphs)


def arrange(
    columns: Sequence[Column], rows: Sequence[Line], width: int, glyphs: Glyphs
) -> list[Line]:
    """``rows`` in columns, none wider than ``width``; the cells are visible already.

    A row may end before the last column.
    """
    cells = zip_longest(*rows, fillvalue=("", ""))
    natural = [
        max(column.floor, min(column.most, max(cell_len(text) for text, _ in down)))
        for column, down in zip(columns, cells, strict=False)
    ]
    widths = share(columns, natural, width)
    return [list(_cells(columns, row, widths, glyphs)) for row in rows]


def share(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """How wide each column becomes; 0 where it is dropped, or has nothing to show."""
    kept = [index for index, wanted in enumerate(natural) if wanted]
    while True:
        flexible = [index for index in kept if columns[index].flexible]
        rest = width - sum(columns[index].gap for index in kept[:-1])
        rest -= sum(natural[index] for index in kept if index not in flexible)
        needed = sum(min(natural[index], columns[index].least) for index in flexible)
        droppable = [index for index in kept if columns[index].rank]
        if rest >= needed or not droppable:
            break
        kept.remove(max(droppable, key=lambda index: columns[index].rank))
    widths = [natural[i] if i in kept else 0 for i in range(len(columns))]
    for taken, index in enumerate(sorted(flexible, key=lambda index: natural[index])):
        fair = max(rest, 0) // (len(flexible) - taken)
        widths[index] = min(natural[index], fair)
        rest -= widths[index]
    left = width
    for index in kept:
        widths[index] = min(widths[index], max(0, left))
        left -= widths[index] + columns[index].gap
    return widths


def _cells(
    columns: Sequence[Column], row: Line, widths: Sequence[int], glyphs: Glyphs
) -> Iterator[Cell]:
    """The row's cells, cropped and padded; no blanks behind the last that has text."""
    behind = ""
    for column, (text, style), width in zip(columns, row, widths, strict=False):
        if not width:
            continue
        text = fit(text, width, glyphs.ellipsis)
        blanks = " " * (width - cell_len(text))
        if text:
            yield behind + (blanks if column.right else ""), ""
            yield text, style
            behind = "" if column.right else blanks
        else:
            behind += blanks
        behind += " " * column.gap
