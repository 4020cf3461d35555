"""result.json: what it must be to count, and how results add up to the task's."""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from mas.model import Plan, Status

MAX_RESULT_BYTES = 4 * 2**20
"""Larger data belongs in a file beside result.json."""

MAX_DEPTH = 64
"""Deeper than any result needs; what reads it later need not fear for its stack."""

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_MAX_DIGITS = 20

_FIELDS: dict[str, tuple[type, str]] = {
    "success": (bool, "true or false"),
    "data": (dict, "an object"),
    "summary": (str, "a string"),
    "files_created": (list, "a list of paths inside output/"),
}


class _RefusedError(ValueError):
    pass


def check_result(
    raw: bytes, output_dir: PurePosixPath
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return result.json's content and no faults, or None and every fault found.

    ``output_dir`` is the absolute path of the subtask's output folder. A fault is a
    sentence that tells the writer of the file what to change. What PostgreSQL's jsonb
    refuses (NUL, lone surrogates, NaN, infinities) is a fault.
    """
    if len(raw) > MAX_RESULT_BYTES:
        return None, [
            f"it has {len(raw)} bytes, the limit is {MAX_RESULT_BYTES}; write large "
            "data to a file in output/ and name it in files_created"
        ]
    try:
        value = json.loads(
            raw, parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer
        )
    except _RefusedError as error:
        return None, [str(error)]
    except (ValueError, RecursionError) as error:
        return None, [f"it is not valid JSON: {error}"]
    if not isinstance(value, dict):
        return None, ["it must be a JSON object"]
    if _is_deeper(value, MAX_DEPTH):
        return None, [f"it is nested more than {MAX_DEPTH} levels deep"]
    faults = [*_field_faults(value, output_dir), *_text_faults(value)]
    return (None, faults) if faults else (value, [])


def inside_output(path: str, output_dir: PurePosixPath) -> PurePosixPath | None:
    """The path relative to the output folder; None where it leads elsewhere.

    Writers give ``report.md``, ``output/report.md`` or the absolute path: all three
    mean the same file.
    """
    parts = PurePosixPath(path)
    if ".." in parts.parts:
        return None
    if parts.is_absolute():
        if not parts.is_relative_to(output_dir):
            return None
        parts = parts.relative_to(output_dir)
    elif parts.parts[:1] == (output_dir.name,):
        parts = parts.relative_to(output_dir.name)
    return parts if parts.parts else None


def _field_faults(value: Mapping[str, Any], output_dir: PurePosixPath) -> list[str]:
    faults = []
    for name, (kind, words) in _FIELDS.items():
        if name not in value:
            faults.append(f"the field {name!r} is missing; it must be {words}")
        elif not isinstance(value[name], kind):
            faults.append(f"the field {name!r} must be {words}")
    steps = value.get("next_steps")
    if steps is not None and not isinstance(steps, str):
        faults.append("the field 'next_steps' must be a string where it is given")
    created = value.get("files_created")
    if isinstance(created, list):
        faults += [
            fault for path in created if (fault := _path_fault(path, output_dir))
        ]
    return faults


def _path_fault(path: object, output_dir: PurePosixPath) -> str | None:
    if not isinstance(path, str) or not path or "\0" in path:
        return f"files_created holds {path!r}, which is not a path"
    if inside_output(path, output_dir) is None:
        return f"files_created holds {path!r}; give paths relative to output/"
    return None


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _text_faults(value: object) -> list[str]:
    text = json.dumps(value, ensure_ascii=False)
    faults = []
    if "\\u0000" in text.replace("\\\\", ""):
        faults.append("a string holds the character NUL (\\u0000)")
    if any("\ud800" <= char <= "\udfff" for char in text):
        faults.append("a string holds half of a surrogate pair (\\ud800 to \\udfff)")
    return faults


def _refuse_constant(name: str) -> float:
    raise _RefusedError(f"{name} is not valid JSON; use null or a string")


def _integer(digits: str) -> int:
    """What jsonb would keep and msgpack has no room for is refused too."""
    if len(digits) > _MAX_DIGITS or not _INT_MIN <= int(digits) <= _INT_MAX:
        raise _RefusedError(
            f"the integer {digits[:30]} has more than 64 bits; give it as a string"
        )
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError(f"the number {digits} is too large")
    return value


def aggregate(
    plan: Plan,
    outputs: Mapping[str, dict[str, Any]],
    statuses: Mapping[str, Status],
    files: Mapping[str, list[str]],
) -> dict[str, Any]:
    """The task's result: a summary, each subtask's result, and where every file is.

    ``outputs`` and ``files`` are by subtask id; files are absolute paths.
    """
    subtasks = {
        subtask.id: {
            "description": subtask.description,
            "status": statuses[subtask.id].value,
            "result": outputs.get(subtask.id),
            "files": files.get(subtask.id, []),
        }
        for subtask in plan.subtasks
    }
    done = sum(status is Status.COMPLETED for status in statuses.values())
    lines = [f"{done} of {len(plan.subtasks)} subtasks completed."]
    lines += [
        f"{subtask_id}: {output.get('summary', '')}"
        for subtask_id, output in outputs.items()
    ]
    return {
        "summary": "\n".join(lines),
        "subtasks": subtasks,
        "files": [path for paths in files.values() for path in paths],
    }
