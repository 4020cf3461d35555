"""The tool query_database: SQL on the agents' PostgreSQL, one statement a call."""

import re
from typing import Any

import asyncpg
import msgspec
from asyncpg import Connection
from asyncpg.prepared_stmt import PreparedStatement
from claude_agent_sdk import SdkMcpTool, tool

from mas.agent.tools import values
from mas.agent.tools.database import Database, UnreachableError, Use
from mas.agent.tools.parameters import LOST, adapt
from mas.agent.tools.replies import Reply, answer, refusal

MAX_ROWS = 200
MAX_BYTES = 60_000
"""What Claude gets to see of a result; more would crowd out its own work."""

_BATCH_ROWS = 20

_DESCRIPTION = f"""\
Run one SQL statement on the PostgreSQL 18 that all agents share, and get {{columns,
rows, row_count, status, note}} back. Unqualified names are in the task's own
schema, which is first in the search_path; `shared` outlives the task. Values go
into params as $1, $2, … Each call is a transaction of its own: BEGIN and SET do not
last. At most {MAX_ROWS} rows and {MAX_BYTES // 1000} kB come back: aggregate in
SQL. numeric comes as a string, bytea as base64, duplicate column names stay apart."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "One SQL statement"},
        "params": {
            "type": "array",
            "items": {},
            "description": "Values for $1, $2, …; strings do for every type",
        },
    },
    "required": ["query"],
    "additionalProperties": False,
}

# asyncpg waits for data that never comes, until its timeout. The groups are atomic, as
# backtracking through many comments takes for ever.
_COPY = re.compile(r"(?>\s+|--[^\n]*\n|/\*.*?\*/)*+copy\b", re.IGNORECASE | re.DOTALL)

_ADVICE = {
    "42501": "This role may only work in the task's schema and in `shared`.",
    "42703": "Look the columns up in information_schema.columns.",
    "42P01": "Look up what there is: SELECT table_schema, table_name FROM "
    "information_schema.tables WHERE table_schema = ANY(current_schemas(false)).",
    "57014": "It ran too long: narrow it, or add an index.",
}


def query_database(database: Database) -> SdkMcpTool[Any]:
    """The tool over ``database``."""

    @tool("query_database", _DESCRIPTION, _SCHEMA)
    async def run(arguments: dict[str, Any]) -> Reply:
        return await run_statement(
            database, arguments["query"], arguments.get("params", [])
        )

    return run


async def run_statement(database: Database, query: str, params: list[Any]) -> Reply:
    """Run one statement; every failure is a reply that says what to do."""
    if _COPY.match(query):
        return refusal(
            "COPY does not work here: SELECT, or INSERT … SELECT FROM unnest."
        )
    use: Use | None = None
    try:
        async with database.use() as use:
            result = await _run(use.connection, query, params)
    except UnreachableError as error:
        return _unreachable(error)
    except LOST as error:
        return _broken_off(error)
    except asyncpg.PostgresError as error:
        return _refused(query, error)
    except (asyncpg.InterfaceError, ValueError, TypeError) as error:
        if use is None or use.connection.is_closed():
            return _broken_off(error)
        return refusal(f"The statement could not be sent: {error}")
    result["note"] = " ".join(filter(None, [result["note"], use.note])) or None
    return answer(result)


async def _run(
    connection: "Connection[Any]", query: str, params: list[Any]
) -> dict[str, Any]:
    # Prepared, always: the extended protocol refuses a second statement in one text.
    statement = await connection.prepare(query)
    types = statement.get_parameters()
    if len(types) != len(params):
        raise ValueError(f"it takes {len(types)} params, {len(params)} were given")
    adapted = [
        await adapt(connection, value, type_)
        for value, type_ in zip(params, types, strict=True)
    ]
    if statement.get_attributes():
        return await _fetch(connection, statement, adapted)
    await statement.fetch(*adapted)
    status = statement.get_statusmsg()
    count = status.rpartition(" ")[2]
    return {
        "columns": [],
        "rows": [],
        "row_count": int(count) if count.isdecimal() else 0,
        "status": status,
        "note": None,
    }


async def _fetch(
    connection: "Connection[Any]",
    statement: "PreparedStatement[Any]",
    params: list[Any],
) -> dict[str, Any]:
    """Fetch through a cursor, so that a huge result stays on the server."""
    attributes = statement.get_attributes()
    columns = [attribute.name for attribute in attributes]
    types = [attribute.type.name for attribute in attributes]
    rows: list[msgspec.Raw] = []
    size = 0
    async with connection.transaction():
        cursor = await statement.cursor(*params)
        while batch := await cursor.fetch(_BATCH_ROWS):
            for record in batch:
                row = _encoded(record, types, alone=not rows)
                if len(rows) == MAX_ROWS or (rows and size + len(row) > MAX_BYTES):
                    return _rows(columns, rows, _cut_note(len(rows)))
                rows.append(msgspec.Raw(row))
                size += len(row)
    return _rows(columns, rows, None)


def _rows(
    columns: list[str], rows: list[msgspec.Raw], note: str | None
) -> dict[str, Any]:
    return {
        "columns": columns,
        "rows": rows,
        "row_count": len(rows),
        "status": f"{len(rows)} rows",
        "note": note,
    }


def _cut_note(shown: int) -> str:
    return (
        f"Only the first {shown} rows are shown, there are more. Aggregate or filter "
        f"in SQL, or page on with ORDER BY … LIMIT … OFFSET {shown}."
    )


def _cut_cells(row: list[Any]) -> list[Any]:
    """A row that is too large alone, with its longest values cut."""
    room = MAX_BYTES // (2 * len(row))
    cells = []
    for value in row:
        is_text = isinstance(value, str)
        data = value.encode() if is_text else msgspec.json.encode(value)
        if len(data) > room:
            start = data[:room].decode(errors="ignore")
            value = f"{start}… [cut, of {len(data)} bytes; use substring()]"
        cells.append(value)
    return cells


def _encoded(record: asyncpg.Record, types: list[str], *, alone: bool) -> bytes:
    row = [
        values.to_json(value, type_)
        for value, type_ in zip(record.values(), types, strict=True)
    ]
    data = msgspec.json.encode(row)
    if alone and len(data) > MAX_BYTES:
        return msgspec.json.encode(_cut_cells(row))
    return data


def _refused(query: str, error: asyncpg.PostgresError) -> Reply:
    lines = [f"PostgreSQL refused the statement: {error.message} ({error.sqlstate})"]
    lines += [f"detail: {error.detail}"] if error.detail else []
    lines += [f"hint: {error.hint}"] if error.hint else []
    if error.position:
        at = int(error.position) - 1
        lines.append(f"position: {error.position}, at: {query[at : at + 60]!r}")
    if error.sqlstate == "42601" and "multiple commands" in error.message:
        lines.append("Send one statement a call.")
    lines.append(_ADVICE.get(error.sqlstate, "Mend the statement and send it again."))
    return refusal("\n".join(lines))


def _unreachable(error: UnreachableError) -> Reply:
    return refusal(
        f"The database cannot be reached: {error}. Try once more in a while. If it "
        "stays away, go on without it where the subtask allows that, and say so in "
        "your summary."
    )


def _broken_off(error: Exception) -> Reply:
    reason = str(error) or type(error).__name__
    return refusal(
        f"The connection to the database broke off: {reason}. Whether the statement "
        "took effect is unknown: look before you repeat it."
    )
