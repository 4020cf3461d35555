"""The types of columns, their names in SQL, and the chunks that rows are cut into."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.demo.programs.type_columns import (
    CHUNK_CHARS,
    MAX_CHUNKS,
    MAX_COLUMNS,
    MAX_ROWS,
    chunks,
    columns_and_cells,
)


def typed(*cells: str, delimiter: str = ",") -> tuple[str, list[object]]:
    """The type and the values of one column."""
    columns, values = columns_and_cells(
        ["x"], [[cell] for cell in cells], delimiter=delimiter
    )
    return columns[0].type, list(values[0])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "+3", "0"], ("bigint", [1, -2, 3, 0])),
        (["1", "2.5", ".5", "1e3"], ("double precision", [1.0, 2.5, 0.5, 1000.0])),
        (["1", "", "NA", "N/a", "NULL"], ("bigint", [1, None, None, None, None])),
        (["007", "12"], ("text", ["007", "12"])),
        (["12345678901234567890"], ("text", ["12345678901234567890"])),
        (["1e999"], ("text", ["1e999"])),
        (["1_000"], ("text", ["1_000"])),
        (["\u0661"], ("text", ["\u0661"])),
        (["."], ("text", ["."])),
        (["Yes", "no"], ("boolean", [True, False])),
        (["2024-02-29"], ("date", ["2024-02-29"])),
        (["2023-02-29"], ("text", ["2023-02-29"])),
        (["2024-W01-1"], ("text", ["2024-W01-1"])),
        (
            ["2024-01-01", "2024-01-01T12:30"],
            ("timestamp", ["2024-01-01 00:00:00", "2024-01-01 12:30:00"]),
        ),
        (
            ["2024-01-01 12:30:00.5+02:00"],
            ("timestamptz", ["2024-01-01 10:30:00.500000+00:00"]),
        ),
        (["0001-01-01 00:00+23:00"], ("text", ["0001-01-01 00:00+23:00"])),
        (["", "NA"], ("text", [None, None])),
    ],
)
def test_a_column_has_the_first_type_that_fits_all_its_values(
    cells: list[str], expected: tuple[str, list[object]]
) -> None:
    assert typed(*cells) == expected


def test_a_comma_is_a_decimal_one_where_it_can_be_nothing_else() -> None:
    assert typed("1,5", "2", delimiter=";") == ("double precision", [1.5, 2.0])
    assert typed("1,5", delimiter=",")[0] == "text"
    assert typed("1,500", "2,250", delimiter=";")[0] == "text"
    assert typed("1,5", "2.5", delimiter=";")[0] == "text"


@given(st.lists(st.text(max_size=40), min_size=1, max_size=40))
def test_names_are_usable_and_unique_whatever_the_header_holds(
    header: list[str],
) -> None:
    columns, _ = columns_and_cells(header, [[""] * len(header)], delimiter=",")
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    for name in names:
        assert 0 < len(name.encode()) <= 63
        assert '"' not in name and "\0" not in name


def test_labels_stay_readable() -> None:
    columns, _ = columns_and_cells(["a\n b", "", "a b"], [["1"] * 3], delimiter=",")
    assert [column.label for column in columns] == ["a b", "column_2", "a b"]
    assert [column.name for column in columns] == ["a_b", "column_2", "a_b_2"]


cells = st.none() | st.text(max_size=600) | st.integers() | st.booleans()


@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=60))
def test_chunks_hold_all_rows_in_order_and_none_is_too_long(
    rows: list[list[str | int | float | bool | None]],
) -> None:
    packed, step, cut = chunks(rows)
    assert all(len(chunk) <= CHUNK_CHARS for chunk in packed)
    found = [row for chunk in packed for row in json.loads(chunk)]
    assert (len(found), step) == (len(rows), 1)
    changed = 0
    for before, after in zip(rows, found, strict=True):
        for old, new in zip(before, after, strict=True):
            changed += old != new
            assert old == new or str(old).startswith(str(new).removesuffix("…"))
    assert changed == cut


@pytest.mark.parametrize(
    "cell", ["x" * 1000, "\x01" * 1000, "\N{SNOWMAN}" * 1000, 2**62]
)
def test_the_longest_rows_fit_as_well(cell: str | int) -> None:
    packed, step, _ = chunks([[cell] * MAX_COLUMNS] * 2_000)
    assert len(packed) <= MAX_CHUNKS
    assert all(len(chunk) <= CHUNK_CHARS for chunk in packed)
    taken = sum(len(json.loads(chunk)) for chunk in packed)
    assert taken == -(-2_000 // step)


def test_rows_are_taken_at_even_distances() -> None:
    packed, step, _ = chunks([[number] for number in range(3 * MAX_ROWS + 1)])
    found = [row[0] for chunk in packed for row in json.loads(chunk)]
    assert step == 4
    assert found == list(range(0, 3 * MAX_ROWS + 1, 4))
