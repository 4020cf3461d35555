"""Facts as columns and back, and what to keep of one that is refused. Pure."""

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from mas.core.events import (
    AttemptFinished,
    Event,
    Fact,
    PlanAccepted,
    Recorded,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
)
from mas.store.sql import QueryError, one_line

ATTEMPT_FINISHED = "attempt_finished"
"""The type whose facts are rows of ``subtask_results`` too."""

TASK_FACTS = (PlanAccepted, TaskResumed, TaskSuspended, TaskFinished)
"""Those that change the task's row."""

_PAYLOADS: dict[type, tuple[str, Any]] = {
    AttemptFinished: ("output", None),
    TaskFinished: ("result", {}),
}
"""The field that others wrote, and what stands there instead where it is refused."""

_LONG_NUMBER = re.compile(r"\d{20}")
_LARGEST_FLOAT = int(sys.float_info.max)

_NOT_TEXT = dict.fromkeys([0, *range(0xD800, 0xE000)], "\ufffd")

_decoder: msgspec.json.Decoder[Fact] = msgspec.json.Decoder(Fact)

_F = TypeVar("_F", bound=Event)


class Columns(Struct, frozen=True):
    """A batch, column by column, for ``unnest``."""

    seqs: list[int]
    ats: list[datetime]
    types: list[str]
    events: list[str]


def columns(batch: Sequence[Recorded]) -> Columns:
    """Raises QueryError, as PostgreSQL would, where a fact has no JSON form."""
    return Columns(
        [_place(recorded) for recorded in batch],
        [recorded.at for recorded in batch],
        [str(recorded.event.__struct_config__.tag) for recorded in batch],
        [to_json(recorded.event) for recorded in batch],
    )


def _place(recorded: Recorded) -> int:
    if recorded.seq is None:
        raise ValueError(f"{type(recorded.event).__name__} is not journaled")
    return recorded.seq


def to_json(value: object) -> str:
    """Raises QueryError, as PostgreSQL would, where ``value`` has no JSON form."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise QueryError(
            f"a value cannot be written as JSON: {one_line(str(error))}",
            sqlstate="22P02",
        ) from error


def from_json(event: str) -> Fact:
    fact = _decoder.decode(event)
    field = _PAYLOADS.get(type(fact), ("", None))[0]
    if field and _LONG_NUMBER.search(event):
        fact = structs.replace(fact, **{field: _restored(getattr(fact, field))})
    return fact


def payload_from_json(text: str) -> Any:
    """An output or a result, equal to what was sent."""
    value = msgspec.json.decode(text)
    return _restored(value) if _LONG_NUMBER.search(text) else value


def _restored(value: Any) -> Any:
    """Undo what jsonb does to 6.022e23: it comes back as an integer, and not equal.

    An integer over 64 bits that is a float written out in full was most likely one.
    """
    match value:
        case dict():
            return {key: _restored(item) for key, item in value.items()}
        case list():
            return [_restored(item) for item in value]
        case int() if 2**64 <= abs(value) <= _LARGEST_FLOAT:
            return float(value) if Decimal(repr(float(value))) == value else value
        case _:
            return value


def clean_text(text: str) -> str:
    """``text`` with a replacement character for what PostgreSQL cannot hold."""
    return text.translate(_NOT_TEXT)


def acceptable(fact: _F, reason: str) -> _F:
    """The same fact without what PostgreSQL cannot hold.

    Texts keep what they can. A payload is kept as it is or, where it may be the cause,
    not at all: then the fact's error says so.
    """
    field, stand_in = _PAYLOADS.get(type(fact), ("", None))
    payload = getattr(fact, field) if field else None
    bare = structs.replace(fact, **{field: stand_in}) if field else fact
    clean = msgspec.convert(clean_value(msgspec.to_builtins(bare)), type(fact))
    if not field:
        return clean
    if clean != bare and _is_clean(payload):
        return structs.replace(clean, **{field: payload})
    note = f"PostgreSQL refused the {field}, so it is not kept: {reason}"
    error = getattr(clean, "error", None)
    return structs.replace(clean, error=f"{error}; {note}" if error else note)


def clean_value(value: Any) -> Any:
    """A JSON value with every text in it, keys too, made clean."""
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {clean_text(key): clean_value(v) for key, v in value.items()}
        case list() | tuple():
            return [clean_value(item) for item in value]
        case _:
            return value


def _is_clean(value: Any) -> bool:
    try:
        return bool(clean_value(value) == value)
    except RecursionError:
        return False
