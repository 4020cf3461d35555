"""PostgreSQL's values as JSON: exact, readable, and the same way back."""

import datetime
import ipaddress
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from asyncpg import BitString, Range
from hypothesis import given
from hypothesis import strategies as st

from mas.agent.tools.values import (
    Date,
    Interval,
    Time,
    Timestamp,
    TimestampTz,
    TimeTz,
    array_literal,
    json_parameter,
    text_parameter,
    to_json,
)

EPOCH = datetime.date(2000, 1, 1)


@given(st.dates())
def test_a_date_is_written_as_python_does_where_python_can(date: datetime.date) -> None:
    assert str(Date((date - EPOCH).days)) == date.isoformat()


@given(st.datetimes())
def test_a_timestamp_is_written_to_the_microsecond(moment: datetime.datetime) -> None:
    since = moment - datetime.datetime(2000, 1, 1)
    microseconds = since // datetime.timedelta(microseconds=1)
    text = str(Timestamp(microseconds))
    assert datetime.datetime.fromisoformat(text) == moment
    assert str(TimestampTz(microseconds)) == f"{text}+00"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Date(-730_119), "0001-01-01"),
        (Date(-730_120), "0001-12-31 BC"),
        (Date(2_921_939), "9999-12-31"),
        (Date(2_921_940), "10000-01-01"),
        (Date(2**31 - 1), "infinity"),
        (Date(-(2**31)), "-infinity"),
        (Timestamp(2**63 - 1), "infinity"),
        (TimestampTz(-(2**63)), "-infinity"),
        (Timestamp(-1), "1999-12-31 23:59:59.999999"),
        (Timestamp(1_500_000), "2000-01-01 00:00:01.5"),
        (Time(86_400_000_000), "24:00:00"),
        (TimeTz(43_200_000_000, -7200), "12:00:00+02"),
        (TimeTz(0, 12_600), "00:00:00-03:30"),
        (Interval(0, 0, 0), "00:00:00"),
        (Interval(14, -3, 0), "14 mons -3 days"),
        (Interval(0, 0, -5_400_000_000), "-01:30:00"),
        (Interval(2**31 - 1, 2**31 - 1, 2**63 - 1), "infinity"),
    ],
)
def test_what_python_has_no_form_for_is_written_too(value: Any, text: str) -> None:
    assert to_json(value) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+20"), "1" + "0" * 20),
        (Decimal("NaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (b"\xde\xad", "3q0="),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (BitString("1010 1010 1"), "101010101"),
        (Range(1, 5), "[1,5)"),
        (Range(None, Date(0)), "(,2000-01-01)"),
        (Range(empty=True), "empty"),
        ([Range(1, 3), Range(5, 8)], ["[1,3)", "[5,8)"]),
        ([[1, None], [math.nan, Date(0)]], [[1, None], ["NaN", "2000-01-01"]]),
        ((1, "x"), [1, "x"]),
    ],
)
def test_values_are_shown_without_loss(value: Any, shown: Any) -> None:
    assert to_json(value) == shown
    msgspec.json.encode(to_json(value) if value != 2**70 else None)


def test_json_is_passed_on_as_it_stands() -> None:
    raw = msgspec.Raw(b'{"b":1.10}')
    assert msgspec.json.encode([to_json(raw)]) == b'[{"b":1.10}]'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "ü"}, '{"a": "ü"}'),
        ([1, 2], "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
        ("plain words", '"plain words"'),
        ("3", "3"),
        (True, "true"),
        (msgspec.Raw(b"[1]"), "[1]"),
    ],
)
def test_a_json_parameter_may_be_json_or_its_text(value: Any, text: str) -> None:
    assert json_parameter(value) == text


def test_other_parameters_become_text_that_postgresql_reads() -> None:
    values = ["2020-01-01", True, 1.5, [1, 2]]
    assert [text_parameter(it) for it in values] == [
        "2020-01-01",
        "true",
        "1.5",
        "[1, 2]",
    ]


def test_a_list_becomes_an_array_literal() -> None:
    array = ['a"b', "c\\d", None, "", "NULL", [1, 2.5]]
    assert array_literal(array) == r'{"a\"b","c\\d",NULL,"","NULL",{"1","2.5"}}'
    assert array_literal([{"k": [1]}, [1]], json_elements=True) == (
        r'{"{\"k\": [1]}","[1]"}'
    )
