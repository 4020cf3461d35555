"""The tables of mas, brought to the newest form: numbered SQL files, each run once."""

from importlib import resources

from msgspec import Struct

from mas.errors import NotReadyError
from mas.store.sql import Connection, QueryError, literal

_TABLES = (
    *("tasks", "subtask_results", "agent_logs", "task_events", "task_commands"),
    "model_calls",
)
_LOCK = "hashtextextended('mas_schema_versions', 0)"
_LOCK_TIMEOUT_S = 20


class _Step(Struct, frozen=True):
    version: int
    name: str
    sql: str


def _steps() -> list[_Step]:
    """The files of schema/, in order; ``0001_initial.sql`` is version 1."""
    folder = resources.files("mas.store") / "schema"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    steps = [
        _Step(int(file.name.partition("_")[0]), file.name, file.read_text("utf-8"))
        for file in files
    ]
    return sorted(steps, key=lambda step: step.version)


async def migrate(connection: Connection, *, database: str) -> None:
    """Bring the tables to this mas's form. One query where they are in it already.

    NotReadyError where the database belongs to a newer mas, to something else, or
    where the right to create tables is missing.
    """
    steps = _steps()
    if await _version(connection, database, newest=steps[-1].version) is not None:
        return
    try:
        async with connection.transaction():
            await connection.execute(
                f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s';"
                f"SELECT pg_advisory_xact_lock({_LOCK})"
            )
            await _apply(connection, steps, database)
    except QueryError as error:
        if error.is_denied:
            raise NotReadyError(
                f"mas may not create its tables in the database {database!r}",
                hint="grant the user CREATE on the schema, or use another database",
                evidence=error.evidence,
            ) from error
        raise


async def _version(connection: Connection, database: str, *, newest: int) -> int | None:
    """Return ``newest`` where the tables are in that form, else None."""
    try:
        rows = await connection.fetch("SELECT max(version) FROM mas_schema_versions")
    except QueryError as error:
        if error.is_undefined_table:
            return None
        raise
    version: int = rows[0][0] or 0
    if version > newest:
        raise NotReadyError(
            f"the database {database!r} belongs to a newer mas: its tables have "
            f"version {version}, this mas knows {newest}",
            hint="upgrade mas: pip install --upgrade mas",
        )
    return version if version == newest else None


async def _apply(connection: Connection, steps: list[_Step], database: str) -> None:
    """Run the steps that are missing. The caller holds the lock."""
    if not (await connection.fetch("SELECT to_regclass('mas_schema_versions')"))[0][0]:
        await _refuse_foreign_tables(connection, database)
        await connection.execute(
            "CREATE TABLE mas_schema_versions (version integer PRIMARY KEY,"
            " name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
    done = await connection.fetch("SELECT version FROM mas_schema_versions")
    applied = {row["version"] for row in done}
    for step in steps:
        if step.version not in applied:
            await connection.execute(step.sql)
            await connection.execute(
                "INSERT INTO mas_schema_versions (version, name)"
                f" VALUES ({step.version}, {literal(step.name)})"
            )


async def _refuse_foreign_tables(connection: Connection, database: str) -> None:
    rows = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS name"
        " WHERE to_regclass(name) IS NOT NULL",
        list(_TABLES),
    )
    if rows:
        names = ", ".join(row["name"] for row in rows)
        raise NotReadyError(
            f"the database {database!r} holds tables that are not mas's: {names}",
            hint="give mas a database or a schema of its own, for instance CREATE "
            "DATABASE mas, and name it in [postgres] dsn",
        )
