"""Reading a CSV of unknown making, and refusing what is none."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.demo.programs.read_csv import (
    MAX_BYTES,
    NotATableError,
    decode,
    read_file,
    read_records,
)

letters = st.characters(categories=["L", "N", "Zs"], exclude_characters="\u3000")
words = st.text(letters | st.sampled_from(",;\t|\"'\n\r#$"), max_size=15)
tables = st.integers(2, 6).flatmap(
    lambda width: st.lists(
        st.lists(words, min_size=width, max_size=width), min_size=2, max_size=10
    )
)


@given(
    tables, st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
)
def test_what_a_csv_writer_writes_is_read_again(
    table: list[list[str]], delimiter: str, encoding: str
) -> None:
    # Quoted in full, so that no other delimiter cuts as well.
    table = [["name", *row] for row in table]
    content = io.StringIO(newline="")
    csv.writer(content, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(table)
    text, _ = decode(content.getvalue().encode(encoding))
    records = read_records(text)
    stripped = [[cell.strip() for cell in row] for row in table]
    assert records.delimiter == delimiter
    width = len(records.header)
    assert [records.header, *records.rows] == [row[:width] for row in stripped]
    assert not any(cell for row in stripped for cell in row[width:])
    assert records.ragged_rows == 0


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_refused(raw: bytes) -> None:
    try:
        text, _ = decode(raw)
        records = read_records(text)
    except NotATableError as error:
        assert str(error) and error.hint
    else:
        assert records.rows
        assert {len(row) for row in records.rows} == {len(records.header)}


def test_the_delimiter_is_the_one_that_lines_agree_on() -> None:
    assert read_records("a,b;c\n1,5;2\n3,5;4\n").delimiter == ","
    assert read_records("a;b\n1,5;2\n3;4\n").delimiter == ";"
    assert read_records("x\n1,5\n2,5\n").delimiter == ";"
    assert read_records("note\tprice\nred, large\t1\nblue\t2\n").delimiter == "\t"


def test_delimiters_at_the_end_of_each_line_make_no_column() -> None:
    records = read_records("a,b,,\n1,2,,\n3,4,,\n")
    assert records.header == ["a", "b"]
    assert records.rows == [["1", "2"], ["3", "4"]]
    assert records.ragged_rows == 0


def test_a_column_without_a_name_that_holds_something_stays() -> None:
    assert read_records("a,\n1,x\n").header == ["a", ""]


def test_short_rows_are_filled_and_long_ones_cut_and_both_counted() -> None:
    rows = "1,2\n" * 10
    records = read_records(f"a,b\n{rows}3\n4,5,6\n7,8,\n")
    assert records.rows[-3:] == [["3", ""], ["4", "5"], ["7", "8"]]
    assert records.ragged_rows == 2


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "is empty"),
        (b" \n\n\t\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "no rows"),
        (b",,,\n,,\n", "nothing but delimiters"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (bytes(range(1, 256)), "binary"),
        (b'{"a": 1, "b": 2}\n', "JSON"),
        (b"<!doctype html>\n<p>a, b</p>\n", "HTML"),
        (b"Dear all,\nas you know, this, that, and more\nis no table\n", "not a CSV"),
        (b'a,b\n1,"' + b"x" * 200_000 + b"\n", "cannot be read as a CSV"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(NotATableError, match=reason):
        read_records(decode(raw)[0])


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(NotATableError, match=r"10\.0 MiB"):
        read_file(path)
