"""Columns: aligned, cropped, dropped where space is short."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mas.cli.grid import Column, Line, Lines, arrange, table
from mas.cli.text import ASCII, UNICODE, Glyphs
from tests.cli.runs import text_of

COLUMNS = (
    Column("name", flexible=True, least=4),
    Column("size", right=True, rank=1),
    Column("what", flexible=True, least=6, rank=2),
)
ROWS: list[Line] = [
    [("report.md", ""), ("12", ""), ("the report itself", "")],
    [("全サービス", ""), ("3456", ""), ("", "")],
]


def shown_in(width: int) -> list[str]:
    shown = table(COLUMNS, ROWS, width, UNICODE)
    return ["".join(text for text, _ in line) for line in shown]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert shown_in(80) == [
        "name        size  what",
        "report.md     12  the report itself",
        "全サービス  3456",
    ]


def test_flexible_columns_share_what_the_others_leave() -> None:
    assert shown_in(28) == [
        "name        size  what",
        "report.md     12  the repor…",
        "全サービス  3456",
    ]


def test_columns_are_dropped_by_rank_rather_than_squeezed() -> None:
    assert shown_in(17) == ["name        size", "report.md     12", "全サービス  3456"]
    assert shown_in(8) == ["name", "report.…", "全サー…"]
    assert shown_in(3) == ["na…", "re…", "全…"]


def test_a_floor_keeps_a_column_in_place() -> None:
    columns = (Column(floor=6), Column())
    shown = arrange(columns, [[("a", ""), ("b", "")]], 20, UNICODE)

    assert "".join(text for text, _ in shown[0]) == "a       b"


def test_markup_and_emoji_codes_are_not_interpreted() -> None:
    assert (
        text_of(Lines([[("[red]x[/] :smile:", "bold")]]), 40) == "[red]x[/] :smile:\n"
    )


cells = st.text(max_size=30)
columns = st.builds(
    Column,
    heading=st.sampled_from(["", "x", "heading"]),
    right=st.booleans(),
    flexible=st.booleans(),
    least=st.integers(1, 9),
    most=st.integers(0, 20),
    floor=st.integers(0, 9),
    rank=st.integers(0, 3),
    gap=st.integers(0, 3),
)


@given(
    st.lists(columns, min_size=1, max_size=5),
    st.lists(st.lists(cells, max_size=5), max_size=5),
    st.integers(1, 60),
    st.sampled_from([UNICODE, ASCII]),
)
def test_no_line_is_wider_than_it_may_be(
    columns: list[Column], rows: list[list[str]], width: int, glyphs: Glyphs
) -> None:
    styled: list[Line] = [[(text, "") for text in row[: len(columns)]] for row in rows]
    lines = table(columns, styled, width, glyphs)
    shown = ["".join(text for text, _ in line) for line in lines]

    assert len(shown) == len(rows) + 1
    assert all(cell_len(line) <= width for line in shown)
