"""PostgreSQL's values as JSON, exactly: nothing rounded, nothing out of range. Pure.

asyncpg's own types for dates are Python's, which know no infinity (it takes 9999-12-31
for it, both ways), no BC and no 24:00, and count a month as 30 days. The classes here
hold what the wire holds.
"""

import base64
import json
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from asyncpg import BitString, Path, Polygon, Range, Record

_DAY_US = 86_400_000_000
_EPOCH_2000 = 10_957
"""Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from."""

_INFINITE_DAYS = {2**31 - 1: "infinity", -(2**31): "-infinity"}
_INFINITE_US = {2**63 - 1: "infinity", -(2**63): "-infinity"}
_INFINITE_INTERVALS: dict[tuple[int, int, int], str] = {
    (2**31 - 1, 2**31 - 1, 2**63 - 1): "infinity",
    (-(2**31), -(2**31), -(2**63)): "-infinity",
}


class Date(NamedTuple):
    days: int

    def __str__(self) -> str:
        return _INFINITE_DAYS.get(self.days) or "{}{}".format(*_day(self.days))


class Timestamp(NamedTuple):
    microseconds: int

    def __str__(self) -> str:
        return _moment(self.microseconds, "")


class TimestampTz(NamedTuple):
    microseconds: int

    def __str__(self) -> str:
        return _moment(self.microseconds, "+00")


class Time(NamedTuple):
    microseconds: int

    def __str__(self) -> str:
        return _clock(self.microseconds)


class TimeTz(NamedTuple):
    microseconds: int
    offset_s: int
    """West of Greenwich is positive, as PostgreSQL has it."""

    def __str__(self) -> str:
        sign = "-" if self.offset_s > 0 else "+"
        return f"{_clock(self.microseconds)}{sign}{_offset(abs(self.offset_s))}"


class Interval(NamedTuple):
    months: int
    days: int
    microseconds: int

    def __str__(self) -> str:
        if infinite := _INFINITE_INTERVALS.get(self):
            return infinite
        parts = [f"{self.months} mons"] if self.months else []
        parts += [f"{self.days} days"] if self.days else []
        if self.microseconds or not parts:
            sign = "-" if self.microseconds < 0 else ""
            parts.append(sign + _clock(abs(self.microseconds)))
        return " ".join(parts)


MOMENTS: dict[str, Callable[[Iterable[int]], tuple[int, ...]]] = {
    "date": Date._make,
    "timestamp": Timestamp._make,
    "timestamptz": TimestampTz._make,
    "time": Time._make,
    "timetz": TimeTz._make,
    "interval": Interval._make,
}
"""By name: the types that asyncpg shall hand over as they are on the wire."""

_MOMENTS = (Date, Timestamp, TimestampTz, Time, TimeTz, Interval)


def to_json(value: Any, type_name: str = "") -> Any:
    """Return ``value``, as asyncpg decoded it, in a form that msgspec writes as JSON.

    numeric becomes a string, bytea base64, a composite an object, and what JSON has no
    form for the text that PostgreSQL itself would show.
    """
    match value:
        case None | bool() | int() | str() | msgspec.Raw():
            return value
        case float():
            return value if math.isfinite(value) else _not_finite(value)
        case Decimal():
            return format(value, "f") if value.is_finite() else str(value)
        case bytes() if type_name in ("char", "char[]"):
            # The one-byte type of the catalogs, pg_class.relkind for instance.
            return value.decode("latin-1")
        case bytes():
            return base64.b64encode(value).decode()
        case Record():
            return {name: to_json(part) for name, part in value.items()}
        case Range():
            return _range(value)
        case BitString():
            return value.as_string().replace(" ", "")
        case Path() | Polygon():
            return [to_json(point) for point in value.points]
        case _ if isinstance(value, _MOMENTS):
            return str(value)
        case list() | tuple():
            return [to_json(part, type_name) for part in value]
        case _:
            return str(value)


def json_parameter(value: Any) -> str:
    """A parameter of type json or jsonb: a string that is JSON stays as it is."""
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    if isinstance(value, str) and _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def text_parameter(value: Any) -> str:
    """A parameter as the text that PostgreSQL reads as any other type."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def array_literal(array: list[Any], *, json_elements: bool = False) -> str:
    """A list as PostgreSQL writes an array: ``{"a",NULL,{"b"}}``."""
    parts = []
    for value in array:
        if value is None:
            parts.append("NULL")
        elif isinstance(value, list) and not json_elements:
            parts.append(array_literal(value))
        else:
            text = json_parameter(value) if json_elements else text_parameter(value)
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'"{escaped}"')
    return "{" + ",".join(parts) + "}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _range(value: "Range[Any]") -> str:
    if value.isempty:
        return "empty"
    low = "" if value.lower is None else str(to_json(value.lower))
    high = "" if value.upper is None else str(to_json(value.upper))
    opening = "[" if value.lower_inc else "("
    return f"{opening}{low},{high}{']' if value.upper_inc else ')'}"


def _moment(microseconds: int, zone: str) -> str:
    if infinite := _INFINITE_US.get(microseconds):
        return infinite
    days, rest = divmod(microseconds, _DAY_US)
    date, era = _day(days)
    return f"{date} {_clock(rest)}{zone}{era}"


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{hour:02}:{minute:02}:{second:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _offset(seconds: int) -> str:
    hour, rest = divmod(seconds, 3600)
    minute, second = divmod(rest, 60)
    text = f"{hour:02}"
    text += f":{minute:02}" if rest else ""
    return text + (f":{second:02}" if second else "")


def _day(days: int) -> tuple[str, str]:
    """The date that is ``days`` after 2000-01-01, and " BC" where it is before year 1.

    Python's dates end at the year 9999, PostgreSQL's at 5,874,897. The calendar repeats
    every 400 years; within them years are counted from March, so that the leap day is
    the last.
    """
    era, day_of_era = divmod(days + _EPOCH_2000 + 719_468, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (
        365 * year_of_era + year_of_era // 4 - year_of_era // 100
    )
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (month <= 2)
    if year > 0:
        return f"{year:04}-{month:02}-{day:02}", ""
    return f"{1 - year:04}-{month:02}-{day:02}", " BC"
