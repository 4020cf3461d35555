"""What a run has left in PostgreSQL, in Redis and in its ledger."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import redis
from msgspec import Struct

from mas.keeper import Servers
from mas.store.statements import LOCK_KEY
from tests.crash.verdict import Execution, Row

_TIMEOUT_S = 10
_DISCONNECT_OWNER = f"""
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory'
        AND (classid::bigint << 32) | objid::bigint = {LOCK_KEY.format("$1")}
    """
_FINAL = ("completed", "failed", "cancelled")


class Recording(Struct, frozen=True, kw_only=True):
    """A task as the database has it; ``tasks`` is 0 where there is none."""

    tasks: int = 0
    id: str = ""
    status: str = ""
    journal: tuple[Mapping[str, Any], ...] = ()
    rows: tuple[Row, ...] = ()

    @property
    def is_final(self) -> bool:
        return self.status in _FINAL


def recorded(servers: Servers, description: str) -> Recording:
    """What is recorded of the task with this description, of which there is one."""
    try:
        return asyncio.run(_recorded(servers.postgres_dsn, description))
    except asyncpg.UndefinedTableError:  # killed before the tables were made
        return Recording()


def disconnect_owner(servers: Servers, task_id: str) -> None:
    """End the connection on which the supervisor of a task commits."""
    asyncio.run(_disconnect_owner(servers.postgres_dsn, task_id))


async def _disconnect_owner(dsn: str, task_id: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S)
    try:
        await connection.execute(_DISCONNECT_OWNER, task_id, timeout=_TIMEOUT_S)
    finally:
        await connection.close(timeout=_TIMEOUT_S)


async def _recorded(dsn: str, description: str) -> Recording:
    connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S)
    try:
        query = "SELECT id, status FROM tasks WHERE description = $1"
        tasks = await connection.fetch(query, description)
        if not tasks:
            return Recording()
        task_id = tasks[0]["id"]
        query = "SELECT seq, at, event FROM task_events WHERE task_id = $1 ORDER BY seq"
        events = await connection.fetch(query, task_id)
        query = "SELECT * FROM subtask_results WHERE task_id = $1 ORDER BY id"
        rows = await connection.fetch(query, task_id)
    finally:
        await connection.close(timeout=_TIMEOUT_S)
    return Recording(
        tasks=len(tasks),
        id=task_id,
        status=tasks[0]["status"],
        journal=tuple(_event(task_id, row) for row in events),
        rows=tuple(
            Row(
                subtask_id=row["subtask_id"],
                attempt=row["attempt"],
                status=row["status"],
                output=json.loads(row["output"]) if row["output"] else None,
            )
            for row in rows
        ),
    )


def _event(task_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The public form, as ``--json`` shows it."""
    head = {"seq": row["seq"], "at": row["at"].isoformat(), "task_id": task_id}
    return {**head, **json.loads(row["event"])}


def executions(ledger: Path) -> list[Execution]:
    """The ledger's lines; none where nothing was executed."""
    if not ledger.exists():
        return []
    lines = ledger.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Execution) for line in lines]


def keys_without_ttl(servers: Servers) -> list[str]:
    """Every key in Redis that would stay for ever."""
    with redis.Redis.from_url(servers.redis_url, decode_responses=True) as client:
        return [str(key) for key in client.scan_iter() if client.ttl(key) == -1]
