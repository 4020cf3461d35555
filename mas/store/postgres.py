"""The supervisor's tables in PostgreSQL: the journal and what follows from it.

The home of asyncpg: nothing of it, its exceptions included, leaves this module.
"""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar

import anyio
import asyncpg

from mas.core.events import Recorded
from mas.errors import UsageError
from mas.model import LogRecord, ModelCall, Status, Task
from mas.store import ledger, statements
from mas.store.address import Address
from mas.store.migrations import migrate
from mas.store.news import look_until
from mas.store.outage import OnOutage, Outage, Revive
from mas.store.reader import TaskReader
from mas.store.sql import (
    Connection,
    ConnectionLostError,
    QueryError,
    UnreachableError,
    one_line,
)
from mas.store.writer import TaskWriter

_T = TypeVar("_T")

_STATEMENT_TIMEOUT_S = 30
_CLOSE_TIMEOUT_S = 2
_TRY_TIMEOUT_S = 5
"""For one try to connect again: a server may take the call and say nothing."""
_REASON_LENGTH = 300
_SESSION = {
    "jit": "off",  # compiling costs more than any statement here takes
    "synchronous_commit": "on",
    # A peer that vanished must not hold a task's lock for the system's two hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_ASYNCPG_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class _Notices:
    """Wakes whoever waits, when it is rung."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung = anyio.Event()


class Session:
    """One connection to PostgreSQL, with a deadline on every wait."""

    def __init__(self, raw: Any, address: Address) -> None:
        self._raw = raw
        self._address = address

    @classmethod
    async def open(
        cls, address: Address, *, timeout_s: float, name: str = "mas"
    ) -> "Session":
        """Connect; UnreachableError with the place and the reason if that fails."""
        try:
            with anyio.fail_after(timeout_s):
                raw = await asyncpg.connect(
                    address.dsn,
                    timeout=timeout_s,
                    command_timeout=_STATEMENT_TIMEOUT_S,
                    server_settings=_SESSION | {"application_name": name},
                )
        except (*_ASYNCPG_ERRORS, OSError, EOFError, ValueError) as error:
            raise _unreachable(address, error, timeout_s) from error
        return cls(raw, address)

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        with self._translated():
            rows: list[Any] = await self._raw.fetch(query, *arguments)
            return rows

    async def execute(self, query: str, *arguments: object) -> int:
        with self._translated():
            tag: str = await self._raw.execute(query, *arguments)
        count = tag.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._translated():
            transaction = self._raw.transaction()
            try:
                await transaction.start()
                yield
                await transaction.commit()
            except Exception:
                if not self._raw.is_closed():
                    await transaction.rollback()
                raise
            except BaseException:
                # Cancelled, and awaiting a ROLLBACK would be too. What came next on
                # this connection would join the open transaction and never count.
                self._raw.terminate()
                raise

    async def listen(self, channel: str, payload: str) -> _Notices:
        """Hear from now on whenever ``payload`` is announced on ``channel``."""
        notices = _Notices()

        def hear(raw: object, pid: int, channel: str, announced: str) -> None:
            if announced == payload:
                notices.ring()

        with self._translated():
            self._raw.add_termination_listener(lambda raw: notices.ring())
            await self._raw.add_listener(channel, hear)
        return notices

    def abandon(self) -> None:
        """End the session without a word; what waits for an answer loses it."""
        self._raw.terminate()

    async def close(self) -> None:
        """End the session, within seconds."""
        with anyio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
            try:
                await self._raw.close(timeout=_CLOSE_TIMEOUT_S)
            except (*_ASYNCPG_ERRORS, OSError):
                self._raw.terminate()
        self._raw.terminate()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            # Neither answered nor refused: nothing on this connection can be relied on.
            self._raw.terminate()
            raise self.lost(f"no answer within {_STATEMENT_TIMEOUT_S} s") from error
        except (*_ASYNCPG_ERRORS, OSError) as error:
            code = str(getattr(error, "sqlstate", None) or "")
            if self._raw.is_closed() or code[:2] == "08" or code[:3] == "57P":
                self._raw.terminate()
                raise self.lost(_reason(error)) from error
            raise _refusal(error, code) from error

    def lost(self, reason: str) -> ConnectionLostError:
        return ConnectionLostError(
            f"the connection to PostgreSQL at {self._address.where} is lost: {reason}",
            hint="see whether the server runs; what was finished is kept",
            reason=reason,
        )


class TaskStore(TaskReader):
    """The supervisor's tables, over one connection that it keeps.

    It holds a task by an advisory lock on that connection: who dies, holds nothing.
    A lost connection is opened again, for as long as ``connect`` was told to try, and
    each task held before is held again, unless somebody else took it. Operations wait
    their turn meanwhile, and then are done in that order.
    """

    def __init__(
        self, session: Session, address: Address, name: str, outage: Outage
    ) -> None:
        super().__init__(self._read)
        self._session = session
        self._address = address
        self._name = name
        self._outage = outage
        self._writer = TaskWriter(session)
        self._turn = anyio.Lock(fast_acquire=True)

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        timeout_s: float = 10,
        outage_timeout_s: float = 10,
        on_outage: OnOutage | None = None,
        revive: Revive | None = None,
    ) -> "TaskStore":
        """Connect and bring the tables up to date, or raise NotReadyError.

        Later, a server that is away or does not answer is waited for as long as
        ``outage_timeout_s``; then OutageError. ``revive`` is called before each try to
        connect again. ``on_outage`` hears what is waited for, once it takes a moment,
        and None when it is back.
        """
        address = Address.parse(dsn)
        name = f"mas {secrets.token_hex(8)}"
        session = await Session.open(address, timeout_s=timeout_s, name=name)
        try:
            await migrate(session, database=address.database)
        except BaseException:
            await session.close()
            raise
        outage = Outage(
            address.where, outage_timeout_s, on_outage=on_outage, revive=revive
        )
        return cls(session, address, name, outage)

    def limit_outage(self, timeout_s: float) -> None:
        """Wait no longer than this for a server that is away, from now on.

        That holds for what is waited for at this moment too.
        """
        self._outage.limit(timeout_s, lambda: self._session.abandon())

    async def close(self) -> None:
        """Let go of everything that is held and close the connection."""
        await self._session.close()

    async def create_task(self, task: Task, recorded: Sequence[Recorded]) -> None:
        """Write a new task with its first facts and hold it, at epoch 1."""
        await self._lasting(lambda: self._writer.create(task, recorded))

    async def take_task(self, task_id: str, owner: str) -> int:
        """Hold a task that nobody holds, and return its new epoch."""
        return await self._lasting(lambda: self._writer.take(task_id, owner))

    async def release_task(self, task_id: str) -> None:
        """Let go of a task, so that another supervisor can take it."""
        await self._lasting(lambda: self._writer.release(task_id))

    async def commit(self, task_id: str, epoch: int, batch: Sequence[Recorded]) -> None:
        """Return when the facts are durable, and with them the rows that follow.

        Repeating a batch changes nothing. OwnershipLostError where ``epoch`` is past.
        A fact that PostgreSQL cannot hold is kept without what it cannot hold.
        """
        if batch:
            await self._lasting(lambda: self._writer.commit(task_id, epoch, batch))

    async def request_cancel(self, task_id: str, reason: str) -> None:
        """Ask the task's owner, another process, to end it as cancelled.

        Meant for a task with an owner: who takes it later does not see the request.
        """
        await self._lasting(lambda: self._writer.request_cancel(task_id, reason))

    async def wait_until_finished(
        self, task_id: str, timeout_s: float
    ) -> Status | None:
        """The task's final status as soon as it has one; None when the time is up."""

        async def connect() -> Session:
            return await Session.open(
                self._address, timeout_s=_TRY_TIMEOUT_S, name=f"{self._name} waits"
            )

        async def look(connection: Connection) -> Status | None:
            rows = await connection.fetch(statements.STATUS, task_id)
            if not rows:
                raise UsageError(f"there is no task {task_id!r}")
            status = Status(rows[0]["status"])
            return status if status.is_final else None

        with anyio.move_on_after(timeout_s):
            channel = statements.FINISHED_CHANNEL
            return await look_until(connect, channel, task_id, look)
        return None

    async def write_logs(self, rows: Sequence[LogRecord]) -> None:
        """Add to what is logged. A crash of the server may lose the last moment's."""
        if rows:
            await self._lasting(lambda: self._writer.log(rows))

    async def write_calls(
        self, calls: Sequence[ModelCall], *, day_began: datetime
    ) -> float:
        """Return when the calls are durable: what all tasks spent since ``day_began``.

        In US dollars; a call counts for the time when it was sent. Repeating changes
        nothing: a call that ended stays so, one that is open is what was said last.
        """
        return await self._lasting(
            lambda: ledger.write_calls(self._session, calls, day_began)
        )

    async def close_open_calls(self, task_id: str) -> int:
        """Say of calls that a supervisor left open that they were cut; how many.

        For whoever took the task, before its own first call. Each keeps the usage that
        was last written, its output marked as estimated.
        """
        return await self._lasting(
            lambda: ledger.close_open_calls(self._session, task_id)
        )

    async def calls(self, task_id: str) -> list[ModelCall]:
        """The task's calls of Claude's API, by their start."""
        return await ledger.read_calls(self._read, task_id)

    async def spent_since(self, began: datetime) -> float:
        """What the calls sent since then cost, of all tasks, in US dollars."""
        return await ledger.read_spent(self._read, began)

    async def outlast(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Do something else with this server, again after an outage of it."""
        return await self._lasting(operation)

    async def _read(self, query: str, *arguments: object) -> list[Any]:
        return await self._lasting(lambda: self._session.fetch(query, *arguments))

    async def _lasting(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Do it when the connection is free; again on another one if that is lost."""
        async with self._turn:
            return await self._outage.survive(operation, self._reconnect)

    async def _reconnect(self) -> None:
        self._session.abandon()
        session = await Session.open(
            self._address, timeout_s=_TRY_TIMEOUT_S, name=self._name
        )
        try:
            # The old session may live on at the server's end, with its locks.
            for row in await session.fetch(statements.END_SESSION, self._name):
                if not row["has_ended"]:
                    raise session.lost("its former session does not end")
            await self._writer.move(session)
        except BaseException:
            session.abandon()
            raise
        self._session = session


def _unreachable(
    address: Address, error: Exception, timeout_s: float
) -> UnreachableError:
    hint = "start it or correct [postgres] dsn; without one, mas runs its own server"
    if isinstance(error, TimeoutError):
        reason = f"no answer within {timeout_s:g} s"
    else:
        reason = address.scrub(_reason(error))
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        hint = f"create it (createdb {address.database}) or correct [postgres] dsn"
    elif isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        hint = "correct user and password in [postgres] dsn, DATABASE_URL or POSTGRES_*"
    return UnreachableError(
        f"PostgreSQL at {address.where} cannot be used: {reason}",
        hint=hint,
        reason=reason,
    )


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return one_line(str(error))[:_REASON_LENGTH] or type(error).__name__


def _refusal(error: Exception, sqlstate: str) -> QueryError:
    said = {
        "code": sqlstate,
        "detail": getattr(error, "detail", None),
        "hint": getattr(error, "hint", None),
        "where": getattr(error, "where", None),
    }
    message = one_line(getattr(error, "message", None) or str(error))
    return QueryError(
        f"PostgreSQL refused: {message[:_REASON_LENGTH]}",
        evidence="\n".join(f"{key}: {text}" for key, text in said.items() if text),
        sqlstate=sqlstate,
    )
