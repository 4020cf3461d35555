"""What each column of a table is good for, told from its profile. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mas.demo.sql import Column

MAX_GROUPS = 12
MAX_MEASURES = 8

_MOMENTS = ("date", "timestamp", "timestamptz")
_FEW_NUMBERS = 3
_ENOUGH_ROWS = 20
"""Fewer rows prove no pattern."""


def role(column: Column, profile: Mapping[str, Any], *, step: int = 1) -> str:
    """Return one word for a column: empty, constant, identifier, category, …

    ``profile`` says how many of its values are filled and distinct, and for whole
    numbers from the lowest to the highest how many there are. ``step``: one row in so
    many was taken.
    """
    filled, distinct = profile["filled"], profile["distinct"]
    if not filled:
        return "empty"
    if column["type"] in _MOMENTS:
        return "time"
    if distinct == 1 and filled > 1:
        return "constant"
    if column["type"] == "boolean":
        return "category"
    if column["type"] == "text":
        if distinct == filled and filled > 1:
            return "identifier"
        return "category" if distinct <= MAX_GROUPS else "text"
    if column["type"] == "bigint" and filled >= _ENOUGH_ROWS:
        if distinct == filled and profile["extent"] == step * (filled - 1) + 1:
            return "identifier"  # rows that were numbered
        if distinct <= _FEW_NUMBERS and filled >= _ENOUGH_ROWS * distinct:
            return "category"
    return "measure"


def best_group(
    columns: Iterable[Column], profiles: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Return the category that tells rows apart best: filled most, words first."""
    candidates = [
        (profiles[name]["filled"], column["type"] == "text", name)
        for column in columns
        if profiles[name := column["name"]]["role"] == "category"
        and 2 <= profiles[name]["distinct"] <= MAX_GROUPS
    ]
    best = max(candidates, key=lambda it: it[:2], default=None)
    return best[2] if best else None


def measures(
    columns: Iterable[Column], profiles: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the columns that figures can be made of, at most ``MAX_MEASURES``."""
    names = [column["name"] for column in columns]
    return [name for name in names if profiles[name]["role"] == "measure"][
        :MAX_MEASURES
    ]


def strongest_pair(
    pairs: Sequence[Mapping[str, Any]], measures: Sequence[str]
) -> list[str] | None:
    """Return the first of ``pairs``, strongest first, that are both measures."""
    for pair in pairs:
        if pair["a"] in measures and pair["b"] in measures:
            return [pair["a"], pair["b"]]
    return None
