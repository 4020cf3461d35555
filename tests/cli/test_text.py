"""Text that a terminal gets: harmless, one line, measured in cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mas.cli.text import (
    ASCII,
    UNICODE,
    age,
    clock,
    cost,
    duration,
    fit,
    glyphs_for,
    harmless,
    name_some,
    span,
    tokens,
    visible,
    wrap,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
        ("\x1b]0;title\x07", "^[]0;title^G"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("a\x00b\x7f", "a^@b^?"),
        ("two\r\n\t lines", "two lines"),
        ("a\u202etxt.exe", "a\\u202etxt.exe"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("a\u2028b", "a b"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
        ("全サービス é", "全サービス é"),
        ("👩\u200d💻 ❤\ufe0f", "👩💻 ❤"),
    ],
)
def test_what_a_terminal_would_act_upon_is_made_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_blanks_in_a_path_stay() -> None:
    assert harmless("/a  b/\x1b.csv") == "/a  b/^[.csv"


@given(st.text())
def test_any_text_becomes_one_harmless_line(text: str) -> None:
    shown = visible(text)

    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not set("\u2028\u2029\u202a\u202e\u2066\u2069") & set(shown)
    shown.encode("utf-8")


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "gbk", "utf-8"]))
def test_every_encoding_gets_only_what_it_can_take(text: str, encoding: str) -> None:
    glyphs = glyphs_for(encoding)
    signs = [*glyphs.states.values(), glyphs.ellipsis, glyphs.arrow, glyphs.done]

    "".join([glyphs.visible(text), *signs]).encode(encoding)


def test_a_stream_gets_the_signs_that_its_encoding_has() -> None:
    assert glyphs_for("UTF-8") is UNICODE
    assert glyphs_for("ascii") == ASCII
    assert glyphs_for(None) == ASCII
    assert glyphs_for("no-such-encoding") == ASCII
    assert glyphs_for("latin-1").ellipsis == "..."
    assert glyphs_for("latin-1").visible("é 全") == "é ?"


def test_each_state_has_a_sign_of_its_own_one_cell_wide() -> None:
    for glyphs in (UNICODE, ASCII):
        signs = list(glyphs.states.values())
        assert len(set(signs)) == len(signs) == 8
        assert all(cell_len(sign) == 1 for sign in signs)


@given(st.text(), st.integers(0, 40))
def test_what_is_cropped_fits(text: str, width: int) -> None:
    assert cell_len(fit(visible(text), width, "…")) <= width


def test_a_crop_is_marked_where_there_is_room_for_the_mark() -> None:
    assert fit("subtask", 7, "…") == "subtask"
    assert fit("subtasks", 7, "…") == "subtas…"
    assert fit("全サービス", 6, "…") == "全サ…"
    assert fit("subtasks", 2, "...") == "su"


@given(st.text(), st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    shown = visible(text)
    lines = wrap(shown, width)

    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")


def test_names_that_do_not_fit_are_counted() -> None:
    assert name_some(["fetch", "query", "fx"], 16) == "fetch, query, fx"
    assert name_some(["fetch", "query", "fx"], 12) == "fetch +2"
    assert name_some([], 12) == ""


@pytest.mark.parametrize(
    ("seconds", "column", "sentence", "ago"),
    [
        (0, "0.0s", "0 s", "0 s"),
        (41.24, "41.2s", "41 s", "41 s"),
        (59.97, "1:00", "59 s", "59 s"),
        (67, "1:07", "1 min 7 s", "1 min"),
        (3723, "1:02:03", "1 h 2 min", "1 h"),
        (90000, "25:00:00", "25 h", "25 h"),
        (360_000, "4d 4h", "4 days", "4 days"),
        (-3, "0.0s", "0 s", "0 s"),
    ],
)
def test_times_are_short(seconds: float, column: str, sentence: str, ago: str) -> None:
    assert (duration(seconds), span(seconds), age(seconds)) == (column, sentence, ago)


def test_a_clock_shows_minutes_from_the_start() -> None:
    assert (clock(7), clock(67)) == ("0:07", "1:07")


def test_numbers_are_short_and_nothing_is_blank() -> None:
    numbers = (0, 980, 18_400, 999_999, 1_200_000)
    assert [tokens(each) for each in numbers] == ["", "980", "18.4k", "1.0M", "1.2M"]
    assert [cost(each) for each in (0, 0.001, 0.11, 12)] == [
        "",
        "<$0.01",
        "$0.11",
        "$12.00",
    ]
