"""The agents' database as query_database uses it: one connection, always tidy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import msgspec
from asyncpg import Connection

from mas.agent.tools import values
from mas.agent.tools.parameters import LOST, quoted

STATEMENT_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
_ANSWER_MARGIN_S = 5.0
"""The server gives up first, and says so; the client only where that fails."""

_CLOSE_TIMEOUT_S = 2.0

_ROLLED_BACK = (
    "The open transaction was rolled back: each call is a transaction of its own. Put "
    "what belongs together into one statement: WITH …, or DO $$ … $$."
)


class UnreachableError(Exception):
    """No connection could be made; the text says why."""


class Use:
    """The connection for one statement; ``note`` is set when it is given back."""

    def __init__(self, connection: "Connection[Any]") -> None:
        self.connection = connection
        self.note: str | None = None


class Database:
    """One connection, made when it is first needed, for one statement at a time."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        *,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    ) -> None:
        self._dsn = dsn
        self._schema = schema
        self._timeout_s = statement_timeout_s
        self._connection: Connection[Any] | None = None
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Use]:
        """Lend the connection for one statement; UnreachableError where there is none.

        What the statement leaves in the session is undone: a `SET statement_timeout =
        0` must not last, nor an open transaction's locks.
        """
        async with self._lock:
            use = Use(await self._connected())
            try:
                yield use
            finally:
                use.note = await self._settle(use.connection)

    async def close(self) -> None:
        """Let the connection go, in good time."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with anyio.CancelScope(shield=True):  # bounded by the timeout
                try:
                    await connection.close(timeout=_CLOSE_TIMEOUT_S)
                except (OSError, TimeoutError, asyncpg.PostgresError):
                    connection.terminate()

    async def _connected(self) -> "Connection[Any]":
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
            except (
                *(OSError, TimeoutError, ValueError),
                *(asyncpg.PostgresError, asyncpg.InterfaceError),
            ) as error:
                raise UnreachableError(str(error) or type(error).__name__) from error
        return self._connection

    async def _connect(self) -> "Connection[Any]":
        connection = await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=self._timeout_s + _ANSWER_MARGIN_S,
            # Another agent's ALTER TABLE would make kept statements stale.
            statement_cache_size=0,
            server_settings={
                "application_name": "mas agent",
                "search_path": f"{quoted(self._schema)}, shared, public",
                "statement_timeout": f"{self._timeout_s * 1000:.0f}",
            },
        )
        try:
            await _teach(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _settle(self, connection: "Connection[Any]") -> str | None:
        note, settled = None, False
        try:
            if not connection.is_closed():
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                    note = _ROLLED_BACK
                await connection.reset(timeout=_CLOSE_TIMEOUT_S)
                settled = True
        except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError):
            note = None  # what cannot be settled is not used again, see below
        finally:
            if not settled:
                connection.terminate()
                self._connection = None
        return note


async def _teach(connection: "Connection[Any]") -> None:
    """Have asyncpg hand over what Python's own types would bend."""
    for name, make in values.MOMENTS.items():
        await connection.set_type_codec(
            name,
            schema="pg_catalog",
            encoder=tuple,
            decoder=make,
            format="tuple",
        )
    # Binary, so that it also works inside arrays and composites; jsonb leads with a
    # version.
    await connection.set_type_codec(
        "json",
        schema="pg_catalog",
        encoder=lambda value: values.json_parameter(value).encode(),
        decoder=lambda data: msgspec.Raw(bytes(data)),
        format="binary",
    )
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\1" + values.json_parameter(value).encode(),
        decoder=lambda data: msgspec.Raw(bytes(data[1:])),
        format="binary",
    )
