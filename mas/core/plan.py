"""What a planner answered, read into a Plan; whether it can run is ``core.graph``'s.

The form is ``{"subtasks": [{"key", "description", …}]}`` with keys as dependencies. A
bare array, and dependencies as 0-based positions, are understood too.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from mas.errors import PlanError
from mas.model import Plan, Subtask

_MAX_DEPTH = 64
"""Of input_data. JSON parsers on the way give up far above this, each elsewhere."""

_FENCED = re.compile(r"```\w*\s*\n(.*)\n\s*```", re.DOTALL)

_HINT = 'The form is {"subtasks": [{"key": …, "description": …, "dependencies": […]}]}.'

PLAN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "subtasks": {
            "type": "array",
            "description": "The subtasks; together with their dependencies a DAG.",
            "items": {
                "type": "object",
                "properties": {
                    "key": {
                        "type": "string",
                        "description": "Short name, unique within the plan, usable as "
                        "a folder name: 1 to 64 lower-case letters, digits, - and _, "
                        "a letter first.",
                    },
                    "description": {
                        "type": "string",
                        "description": "What to do and what to hand over, complete "
                        "enough for someone who sees only this and the results of "
                        "the dependencies.",
                    },
                    "required_capabilities": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "The capabilities it needs; empty if any agent "
                        "can do it.",
                    },
                    "dependencies": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Keys of the subtasks whose results it needs.",
                    },
                    "priority": {
                        "type": "integer",
                        "description": "0 to 10; of those that can start, higher ones "
                        "start first.",
                    },
                    "estimated_duration": {
                        "type": "number",
                        "description": "Seconds, above 0; a guess.",
                    },
                },
                "required": [
                    "key",
                    "description",
                    "required_capabilities",
                    "dependencies",
                    "priority",
                    "estimated_duration",
                ],
                "additionalProperties": False,
            },
        },
    },
    "required": ["subtasks"],
    "additionalProperties": False,
}
"""For structured output, which refuses minimum, maximum and pattern: words say them."""


def parse_plan(text: str) -> Plan:
    """Return the plan that ``text`` holds; PlanError with every reason where none."""
    fenced = _FENCED.fullmatch(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text)
    except RecursionError:
        raise _unreadable(["it is nested too deeply"]) from None
    except ValueError as error:
        raise _unreadable([f"it is not valid JSON: {error}"]) from None
    return plan_from(value)


def plan_from(value: object) -> Plan:
    """Return the plan in ``value``, decoded JSON or TOML; PlanError where none."""
    items = value.get("subtasks") if isinstance(value, Mapping) else value
    if not isinstance(items, list):
        raise _unreadable(['it must be an object with a list called "subtasks"'])
    keys = [_key(item, position) for position, item in enumerate(items)]
    faults: list[str] = []
    subtasks = []
    for position, item in enumerate(items):
        if not isinstance(item, Mapping):
            faults.append(f"subtask number {position + 1} must be an object")
            continue
        fields = _Fields(item, f"subtask {keys[position]!r}", faults)
        subtasks.append(
            Subtask(
                id=keys[position],
                description=fields.description(),
                required_capabilities=fields.capabilities(),
                dependencies=fields.dependencies(keys),
                priority=fields.priority(),
                estimated_duration=fields.estimated_duration(),
                input_data=fields.input_data(),
            )
        )
    if faults:
        raise _unreadable(faults)
    return Plan(tuple(subtasks))


def single_subtask_plan(description: str, capabilities: tuple[str, ...] = ()) -> Plan:
    """The plan to fall back on: the whole task as one subtask."""
    subtask = Subtask(
        id="task", description=description, required_capabilities=capabilities
    )
    return Plan((subtask,))


def _unreadable(reasons: list[str]) -> PlanError:
    return PlanError("the plan cannot be read", reasons=tuple(reasons), hint=_HINT)


def _key(item: object, position: int) -> str:
    key = item.get("key") if isinstance(item, Mapping) else None
    return key if isinstance(key, str) else f"s{position + 1}"


class _Fields:
    """One subtask's fields, each read as its type; null counts as missing."""

    def __init__(
        self, item: Mapping[Any, Any], subtask: str, faults: list[str]
    ) -> None:
        self._item = item
        self._subtask = subtask
        self._faults = faults
        if not isinstance(item.get("key", ""), str | None):
            self._fault("key", "must be a string")

    def _fault(self, field: str, words: str) -> None:
        self._faults.append(f"{self._subtask}: {field} {words}")

    def _wrong(self, field: str, expected: str) -> None:
        shown = repr(self._item[field])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
        self._fault(field, f"must be {expected}, not {shown}")

    def description(self) -> str:
        value = self._item.get("description")
        if value is None:
            self._fault("description", "is missing")
        elif not isinstance(value, str):
            self._wrong("description", "a string")
        elif words := _storable_fault(value):
            self._fault("description", words)
        else:
            return value
        return ""

    def capabilities(self) -> tuple[str, ...]:
        value = self._list("required_capabilities", "a list of capability names")
        if all(isinstance(name, str) for name in value):
            return tuple(value)
        self._wrong("required_capabilities", "a list of capability names")
        return ()

    def dependencies(self, keys: list[str]) -> tuple[str, ...]:
        expected = "a list of keys of other subtasks"
        found = []
        for value in self._list("dependencies", expected):
            if isinstance(value, str):
                found.append(value)
            elif not isinstance(value, int) or isinstance(value, bool):
                self._wrong("dependencies", expected)
                break
            elif 0 <= value < len(keys):
                found.append(keys[value])
            else:
                allowed = f"positions go from 0 to {len(keys) - 1}"
                self._fault("dependencies", f"has the position {value}; {allowed}")
        return tuple(found)

    def _list(self, field: str, expected: str) -> list[Any]:
        value = self._item.get(field)
        if isinstance(value, list):
            return value
        if value is not None:
            self._wrong(field, expected)
        return []

    def priority(self) -> int:
        value = self._item.get("priority")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if value is not None:
            self._wrong("priority", "a whole number from 0 to 10")
        return 5

    def estimated_duration(self) -> float:
        value = self._item.get("estimated_duration")
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                return math.inf
        if value is not None:
            self._wrong("estimated_duration", "a number of seconds")
        return 60.0

    def input_data(self) -> dict[str, Any]:
        value = self._item.get("input_data")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong("input_data", "an object")
        elif words := _storable_fault(value):
            self._fault("input_data", words)
        else:
            return value
        return {}


def _storable_fault(value: object) -> str | None:
    """What frames or PostgreSQL's jsonb cannot carry in ``value``, if anything."""
    pending = [(value, 0)]
    while pending:
        part, depth = pending.pop()
        if depth > _MAX_DEPTH:
            return f"is nested more than {_MAX_DEPTH} deep"
        if isinstance(part, dict):
            pending += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list):
            pending += [(inner, depth + 1) for inner in part]
        elif words := _scalar_fault(part):
            return words
    return None


def _scalar_fault(value: object) -> str | None:
    match value:
        case str() if "\0" in value:
            return "holds the character NUL"
        case str() if any("\ud800" <= char <= "\udfff" for char in value):
            return "holds half of a surrogate pair"
        case str() | bool() | None:
            return None
        case int() if not -(2**63) <= value < 2**64:
            return "holds a whole number of more than 64 bits; use a string"
        case float() if not math.isfinite(value):
            return "holds a number that is not finite; use null or a string"
        case int() | float():
            return None
        case date() | time():
            return "holds a date or time; put it in quotes"
        case _:
            return f"holds a {type(value).__name__}, which is not JSON"
