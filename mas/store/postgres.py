"""The supervisor's tables in PostgreSQL: the journal and what follows from it.

The home of asyncpg: nothing of it, its exceptions included, leaves this module.
"""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import asyncpg

from mas.core.events import Recorded
from mas.errors import NotReadyError, StoreError
from mas.model import LogRecord, Task
from mas.store import statements
from mas.store.address import Address
from mas.store.migrations import migrate
from mas.store.reader import TaskReader
from mas.store.sql import ConnectionLostError, QueryError, one_line
from mas.store.writer import TaskWriter

_T = TypeVar("_T")

_STATEMENT_TIMEOUT_S = 30
_CLOSE_TIMEOUT_S = 2
_RETRY_EVERY_S = 0.05
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


class Session:
    """One connection to PostgreSQL, with a deadline on every wait."""

    def __init__(self, raw: Any, address: Address) -> None:
        self._raw = raw
        self._address = address

    @classmethod
    async def open(
        cls, address: Address, *, timeout_s: float, name: str = "mas"
    ) -> "Session":
        """Connect; NotReadyError with the place and the reason where that fails."""
        try:
            with anyio.fail_after(timeout_s):
                raw = await asyncpg.connect(
                    address.dsn,
                    timeout=timeout_s,
                    command_timeout=_STATEMENT_TIMEOUT_S,
                    server_settings=_SESSION | {"application_name": name},
                )
        except (*_ASYNCPG_ERRORS, OSError, EOFError, ValueError) as error:
            raise _not_ready(address, error, timeout_s) from error
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

    async def close(self) -> None:
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
            raise self._lost(f"no answer within {_STATEMENT_TIMEOUT_S} s") from error
        except (*_ASYNCPG_ERRORS, OSError) as error:
            code = str(getattr(error, "sqlstate", None) or "")
            if self._raw.is_closed() or code[:2] == "08" or code[:3] == "57P":
                self._raw.terminate()
                raise self._lost(_reason(error)) from error
            raise _refusal(error, code) from error

    def _lost(self, reason: str) -> ConnectionLostError:
        return ConnectionLostError(
            f"the connection to PostgreSQL at {self._address.where} is lost: {reason}",
            hint="see whether the server runs; what was finished is kept",
        )


class TaskStore(TaskReader):
    """The supervisor's tables, over one connection that it keeps.

    It holds a task by an advisory lock on that connection: who dies, holds nothing.
    A lost connection is opened again, within the time that ``connect`` was given, and
    each task held before is held again, unless somebody else took it.
    """

    def __init__(
        self, session: Session, address: Address, name: str, timeout_s: float
    ) -> None:
        super().__init__(self._read)
        self._session = session
        self._address = address
        self._name = name
        self._timeout_s = timeout_s
        self._writer = TaskWriter(session)
        self._turn = anyio.Lock(fast_acquire=True)

    @classmethod
    async def connect(cls, dsn: str, *, timeout_s: float = 10) -> "TaskStore":
        """Connect and bring the tables up to date, or raise NotReadyError."""
        address = Address.parse(dsn)
        name = f"mas {secrets.token_hex(8)}"
        session = await Session.open(address, timeout_s=timeout_s, name=name)
        try:
            await migrate(session, database=address.database)
        except BaseException:
            await session.close()
            raise
        return cls(session, address, name, timeout_s)

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

    async def write_logs(self, rows: Sequence[LogRecord]) -> None:
        """Add to what is logged. A crash of the server may lose the last moment's."""
        if rows:
            await self._lasting(lambda: self._writer.log(rows))

    async def _read(self, query: str, *arguments: object) -> list[Any]:
        return await self._lasting(lambda: self._session.fetch(query, *arguments))

    async def _lasting(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Do it when the connection is free; again on another one if that is lost."""
        async with self._turn:
            try:
                return await operation()
            except ConnectionLostError:
                await self._reconnect()
                return await operation()

    async def _reconnect(self) -> None:
        await self._session.close()
        self._session = await self._open_again()
        # The old session may live on at the server's end, with its locks.
        await self._session.fetch(statements.END_SESSION, self._name)
        await self._writer.move(self._session)

    async def _open_again(self) -> Session:
        deadline = anyio.current_time() + self._timeout_s
        while True:
            left_s = max(deadline - anyio.current_time(), _RETRY_EVERY_S)
            try:
                return await Session.open(
                    self._address, timeout_s=left_s, name=self._name
                )
            except NotReadyError as error:
                if anyio.current_time() >= deadline:
                    raise _gone(self._address, self._timeout_s, error) from error
            await anyio.sleep(_RETRY_EVERY_S)  # a restarting server announces nothing


def _gone(address: Address, timeout_s: float, error: NotReadyError) -> StoreError:
    return StoreError(
        f"the connection to PostgreSQL at {address.where} is lost and did not come "
        f"back within {timeout_s:g} s",
        hint="what was finished is kept; mas doctor says whether the server runs",
        evidence=error.message,
    )


def _not_ready(address: Address, error: Exception, timeout_s: float) -> NotReadyError:
    hint = "start it or correct [postgres] dsn; without one, mas runs its own server"
    if isinstance(error, TimeoutError):
        reason = f"no answer within {timeout_s:g} s"
    else:
        reason = address.scrub(_reason(error))
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        hint = f"create it (createdb {address.database}) or correct [postgres] dsn"
    elif isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        hint = "correct user and password in [postgres] dsn, DATABASE_URL or POSTGRES_*"
    return NotReadyError(
        f"PostgreSQL at {address.where} cannot be used: {reason}", hint=hint
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
