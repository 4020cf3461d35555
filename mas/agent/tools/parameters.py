"""Parameters for query_database: what JSON holds, as what PostgreSQL's types want."""

from typing import Any

import asyncpg
from asyncpg import Connection

from mas.agent.tools import values

LOST = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""What says that the connection is of no use any more."""

_JSON = ("json", "jsonb")
_INTEGERS = ("int2", "int4", "int8")
_FLOATS = ("float4", "float8")
_TEXTS = ("text", "varchar", "bpchar", "name")
"""The types of parameters for which asyncpg takes JSON's own."""


async def adapt(connection: "Connection[Any]", value: Any, type_: asyncpg.Type) -> Any:
    """Turn a JSON value into what asyncpg takes for a parameter of this type.

    asyncpg wants Python's own type for each of PostgreSQL's. What is not one of those
    is given to the server to read as text, which knows how, and says so where it can't.
    """
    name = type_.name
    match value:
        case None:
            return None
        case _ if name in _JSON:
            return value
        case bool():
            if name == "bool":
                return value
        case int() if name in _INTEGERS or name in _FLOATS:
            return value
        case float() if name in _FLOATS:
            return value
        case str() if name in _TEXTS:
            return value
    element = name.removesuffix("[]")
    if isinstance(value, list) and element != name:
        text = values.array_literal(value, json_elements=element in _JSON)
    else:
        text = values.text_parameter(value)
    if name in _TEXTS:
        return text
    place = f"{quoted(type_.schema)}.{quoted(element)}{name.removeprefix(element)}"
    try:
        return await connection.fetchval(f"SELECT $1::text::{place}", text)
    except LOST:
        raise
    except asyncpg.PostgresError as error:
        raise ValueError(f"{value!r} is no {name}: {error}") from None


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
