"""Commands from other processes: rows, announced by NOTIFY, followed by the owner."""

from collections.abc import Callable
from typing import NoReturn

from mas.store import statements
from mas.store.address import Address
from mas.store.news import look_until
from mas.store.outage import Revive
from mas.store.postgres import Session
from mas.store.sql import Connection

_CONNECT_TIMEOUT_S = 5.0


async def watch_cancel(
    dsn: str,
    task_id: str,
    cancelled: Callable[[str], None],
    *,
    revive: Revive | None = None,
) -> NoReturn:
    """Call ``cancelled`` with the reason of each request to cancel the task.

    For the task's owner; it never returns. A request made since it took the task is
    seen, whenever this begins, and each only once. It has a connection of its own,
    opened again whenever it is lost, for ever; ``revive`` is called before that.
    """
    address = Address.parse(dsn)
    seen: set[int] = set()

    async def connect() -> Session:
        return await Session.open(
            address, timeout_s=_CONNECT_TIMEOUT_S, name="mas commands"
        )

    async def look(connection: Connection) -> None:
        rows = await connection.fetch(statements.PENDING_COMMANDS, task_id)
        for row in rows:
            if row["id"] not in seen:
                seen.add(row["id"])
                cancelled(row["reason"])
        # Only now: were it marked first and the answer lost, nobody would see it.
        if rows:
            ids = [row["id"] for row in rows]
            await connection.execute(statements.MARK_TAKEN, ids)

    await look_until(connect, statements.COMMANDS_CHANNEL, task_id, look, revive=revive)
    raise AssertionError("it looks for ever")
