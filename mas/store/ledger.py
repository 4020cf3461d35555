"""The ledger's table: a call of Claude's API is a row, open until the call ended."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import structs

from mas.model import CallState, ModelCall, Usage
from mas.store.facts import clean_text
from mas.store.reader import Fetch
from mas.store.sql import Connection

ABANDONED: Final = "its supervisor was gone before it ended"
"""The error of a call that was closed when its task was taken over."""

_MOST_CHARACTERS = 2000
_MOST_TOKENS = 2**63 - 1
_MOST_USD = 1e12

_USAGE: Final = {
    name: "double precision" if name == "cost_usd" else "bigint"
    for name in Usage.__struct_fields__
}
_COLUMNS: Final = {
    "id": "text",
    "task_id": "text",
    "subtask_id": "text",
    "attempt": "integer",
    "agent_id": "text",
    "subagent": "text",
    "path": "text",
    "model": "text",
    "state": "text",
    "http_status": "integer",
    **_USAGE,
    "started_at": "timestamptz",
    "held_s": "double precision",
    "first_byte_s": "double precision",
    "duration_s": "double precision",
    "error": "text",
}
_NAMES: Final = ", ".join(_COLUMNS)
_ARRAYS: Final = ", ".join(
    f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), start=2)
)
_CHANGES: Final = ", ".join(
    f"{name} = EXCLUDED.{name}" for name in _COLUMNS if name not in ("id", "task_id")
)
# Whoever takes a task over closes its calls without a duration, as nobody knows it. The
# supervisor that was taken for dead may still say how such a call really ended.
_MAY_REPLACE: Final = """
    kept.state = 'open' OR (
        kept.duration_s IS NULL AND EXCLUDED.duration_s IS NOT NULL
        AND EXCLUDED.state <> 'open'
    )"""
# The table as the statement found it, without the rows that it writes, and those.
_WRITE: Final = f"""
    WITH written AS (
        INSERT INTO model_calls AS kept ({_NAMES})
        SELECT {_NAMES} FROM unnest({_ARRAYS}) AS sent ({_NAMES})
        ON CONFLICT (id) DO UPDATE SET {_CHANGES}
        WHERE {_MAY_REPLACE}
        RETURNING id, started_at, cost_usd
    ), today AS (
        SELECT cost_usd FROM written WHERE started_at >= $1
        UNION ALL
        SELECT cost_usd FROM model_calls
        WHERE started_at >= $1 AND id NOT IN (SELECT id FROM written)
    )
    SELECT coalesce(sum(cost_usd), 0) FROM today
    """
_CALLS: Final = f"""
    SELECT {_NAMES} FROM model_calls WHERE task_id = $1 ORDER BY started_at, id
    """
_SPENT: Final = """
    SELECT coalesce(sum(cost_usd), 0) FROM model_calls WHERE started_at >= $1
    """
# Locked in the order in which they are written: who is not dead yet is no deadlock.
_CLOSE: Final = """
    UPDATE model_calls
    SET state = 'cut', error = $2,
        estimated_tokens = greatest(estimated_tokens, output_tokens)
    WHERE id IN (
        SELECT id FROM model_calls WHERE task_id = $1 AND state = 'open'
        ORDER BY id
        FOR UPDATE
    )
    """


async def write_calls(
    connection: Connection, calls: Sequence[ModelCall], day_began: datetime
) -> float:
    """See ``TaskStore.write_calls``."""
    rows = [_to_row(call) for call in _latest(calls)]
    arrays = [[row[name] for row in rows] for name in _COLUMNS]
    spent: float = (await connection.fetch(_WRITE, day_began, *arrays))[0][0]
    return spent


async def read_calls(fetch: Fetch, task_id: str) -> list[ModelCall]:
    """The task's calls, by their start."""
    return [_from_row(row) for row in await fetch(_CALLS, task_id)]


async def read_spent(fetch: Fetch, began: datetime) -> float:
    """What the calls sent since ``began`` cost, of all tasks, in US dollars."""
    spent: float = (await fetch(_SPENT, began))[0][0]
    return spent


async def close_open_calls(connection: Connection, task_id: str) -> int:
    """See ``TaskStore.close_open_calls``."""
    return await connection.execute(_CLOSE, task_id, ABANDONED)


def _latest(calls: Iterable[ModelCall]) -> list[ModelCall]:
    """Each call once, as the batch leaves it, by id: one statement, one row a call."""
    latest: dict[str, ModelCall] = {}
    for call in calls:
        former = latest.get(call.id)
        if former is None or former.state is CallState.OPEN:
            latest[call.id] = call
    return [latest[key] for key in sorted(latest)]


def _to_row(call: ModelCall) -> dict[str, Any]:
    """The call as PostgreSQL can hold it: others wrote its texts and its numbers."""
    row = structs.asdict(call) | structs.asdict(call.usage)
    for name, value in row.items():
        if name in _USAGE:
            row[name] = _acceptable(value)
        elif isinstance(value, str):
            row[name] = clean_text(value)
    for name in ("path", "model", "subagent", "error"):
        row[name] = row[name] and row[name][:_MOST_CHARACTERS]
    row["state"] = call.state.value
    return row


def _acceptable(number: float) -> float:
    """One NaN or infinity would be the sum of the whole day."""
    if isinstance(number, int):
        return min(max(number, 0), _MOST_TOKENS)
    return min(max(number, 0.0), _MOST_USD) if math.isfinite(number) else 0.0


def _from_row(row: Any) -> ModelCall:
    fields = {name: row[name] for name in _COLUMNS if name not in _USAGE}
    usage = Usage(**{name: row[name] for name in _USAGE})
    return ModelCall(**fields | {"state": CallState(row["state"]), "usage": usage})
