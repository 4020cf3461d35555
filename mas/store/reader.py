"""Reading the supervisor's tables: tasks, their facts and results, what was logged."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from mas.core.events import Recorded
from mas.errors import UsageError
from mas.model import FailureKind, LogRecord, Plan, Status, SubtaskResult, Task, Usage
from mas.store.facts import from_json, payload_from_json
from mas.store.statements import LOCK_KEY

_CANDIDATES = 8

# A held advisory lock shows its 64-bit key in two halves.
_TASK: Final = f"""
    SELECT id, description, status, plan, {{result}} AS result, error,
        created_at, updated_at, finished_at, owner, owner_epoch, suspended,
        {LOCK_KEY.format("id")} IN (
            SELECT (classid::bigint << 32) | objid::bigint
            FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (
                    SELECT oid FROM pg_database WHERE datname = current_database()
                )
        ) AS owner_alive
    FROM tasks
    """
_ONE: Final = _TASK.format(result="result")
_MANY: Final = _TASK.format(result="NULL::jsonb")
_NEWEST_FIRST: Final = "ORDER BY created_at DESC, id DESC LIMIT "

_RESULTS: Final = """
    SELECT task_id, subtask_id, attempt, agent_id, status, output, error, failure,
        execution_time, usage, started_at, finished_at, id
    FROM subtask_results
    WHERE task_id = $1
    UNION ALL
    SELECT task_id, event ->> 'subtask_id', (event ->> 'attempt')::integer,
        event ->> 'agent_id', 'in_progress', NULL, NULL, NULL,
        NULL, NULL, at, NULL, NULL
    FROM task_events AS started
    WHERE task_id = $1 AND type = 'attempt_started' AND NOT EXISTS (
        SELECT FROM subtask_results AS ended
        WHERE ended.task_id = $1
            AND ended.subtask_id = started.event ->> 'subtask_id'
            AND ended.attempt = (started.event ->> 'attempt')::integer
    )
    ORDER BY started_at, id, subtask_id, attempt
    """
_LOGS: Final = """
    SELECT * FROM (
        SELECT id, at, agent_id, task_id, subtask_id, level, message
        FROM agent_logs
        WHERE ($1::text IS NULL OR task_id = $1)
            AND ($2::text IS NULL OR agent_id = $2)
        ORDER BY at DESC, id DESC
        LIMIT $3
    ) AS newest
    ORDER BY at, id
    """

Fetch = Callable[..., Awaitable[list[Any]]]


class TaskReader:
    """What is recorded, whoever recorded it. Changes nothing."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def tasks(self, limit: int = 100) -> list[Task]:
        """The newest tasks, newest first; their results are left out."""
        rows = await self._fetch(f"{_MANY} {_NEWEST_FIRST} $1", limit)
        return [_task(row) for row in rows]

    async def task(self, task_id: str) -> Task | None:
        rows = await self._fetch(f"{_ONE} WHERE id = $1", task_id)
        return _task(rows[0]) if rows else None

    async def find_task(self, prefix: str) -> Task:
        """The task with this id, or whose id alone begins so; ``-`` is the newest.

        UsageError, with those that could be meant, where there is not exactly one.
        """
        if prefix == "-":
            rows = await self._fetch(f"{_ONE} {_NEWEST_FIRST} 1")
            if not rows:
                raise UsageError("there is no task yet", hint='start one: mas run "…"')
            return _task(rows[0])
        exact = await self.task(prefix)
        if exact is not None:
            return exact
        where = f"{_MANY} WHERE starts_with(id, $1) {_NEWEST_FIRST} $2"
        rows = await self._fetch(where, prefix, _CANDIDATES + 1)
        if len(rows) == 1:
            return _task((await self._fetch(f"{_ONE} WHERE id = $1", rows[0]["id"]))[0])
        candidates = [_task(row) for row in rows]
        if not candidates:
            raise _unknown(prefix, await self.tasks(_CANDIDATES))
        raise _ambiguous(prefix, candidates)

    async def events(
        self, task_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        """The task's facts with a ``seq`` above ``after``, in order, or the first."""
        rows = await self._fetch(
            "SELECT seq, at, event FROM task_events"
            " WHERE task_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            task_id,
            after,
            limit,
        )
        return [
            Recorded(
                seq=row["seq"],
                at=row["at"],
                task_id=task_id,
                event=from_json(row["event"]),
            )
            for row in rows
        ]

    async def results(self, task_id: str) -> list[SubtaskResult]:
        """Every attempt that began, by its start; one not ended is in progress."""
        return [_result(row) for row in await self._fetch(_RESULTS, task_id)]

    async def logs(
        self,
        task_id: str | None = None,
        agent_id: str | None = None,
        limit: int = 1000,
    ) -> list[LogRecord]:
        """The newest records that match, oldest first."""
        rows = await self._fetch(_LOGS, task_id, agent_id, limit)
        return [
            LogRecord(
                at=row["at"],
                agent_id=row["agent_id"],
                level=row["level"],
                message=row["message"],
                task_id=row["task_id"],
                subtask_id=row["subtask_id"],
            )
            for row in rows
        ]

    async def server_version(self) -> str:
        """PostgreSQL's version, for people: ``18.6``."""
        text: str = (await self._fetch("SHOW server_version"))[0][0]
        return text.partition(" ")[0]


def _task(row: Any) -> Task:
    return Task(
        id=row["id"],
        description=row["description"],
        status=Status(row["status"]),
        plan=msgspec.json.decode(row["plan"], type=Plan) if row["plan"] else None,
        result=payload_from_json(row["result"]) if row["result"] else None,
        error=row["error"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        owner=row["owner"],
        owner_epoch=row["owner_epoch"],
        owner_alive=row["owner_alive"],
        suspended=row["suspended"],
    )


def _result(row: Any) -> SubtaskResult:
    usage = row["usage"]
    return SubtaskResult(
        task_id=row["task_id"],
        subtask_id=row["subtask_id"],
        attempt=row["attempt"],
        agent_id=row["agent_id"],
        status=Status(row["status"]),
        output=payload_from_json(row["output"]) if row["output"] else None,
        error=row["error"],
        failure=FailureKind(row["failure"]) if row["failure"] else None,
        execution_time=row["execution_time"],
        usage=msgspec.json.decode(usage, type=Usage) if usage else Usage(),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _unknown(prefix: str, newest: list[Task]) -> UsageError:
    return UsageError(
        f"there is no task {prefix!r}",
        hint="mas tasks lists them" if newest else 'start one: mas run "…"',
        evidence=_listing(newest),
    )


def _ambiguous(prefix: str, candidates: list[Task]) -> UsageError:
    more = len(candidates) > _CANDIDATES
    count = f"more than {_CANDIDATES}" if more else str(len(candidates))
    return UsageError(
        f"{count} tasks begin with {prefix!r}",
        hint="give more of the id",
        evidence=_listing(candidates[:_CANDIDATES]),
    )


def _listing(tasks: list[Task]) -> str:
    return "\n".join(
        f"{task.id}  {task.shown_status}  {task.description.partition(chr(10))[0][:60]}"
        for task in tasks
    )
