"""What the store's modules ask of PostgreSQL, and how it says no. No client in here."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from mas.errors import NotReadyError, StoreError


class UnreachableError(NotReadyError):
    """PostgreSQL cannot be connected to; ``reason`` is why, without the place."""

    def __init__(
        self, message: str, *, hint: str = "", evidence: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.reason = reason


class ConnectionLostError(StoreError):
    """The connection to PostgreSQL is gone; whether the last words counted is open.

    ``reason`` is why, without the place.
    """

    def __init__(
        self, message: str, *, hint: str = "", evidence: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.reason = reason


class QueryError(StoreError):
    """PostgreSQL refused a statement. ``sqlstate`` is its code for the reason."""

    def __init__(
        self, message: str, *, hint: str = "", evidence: str = "", sqlstate: str = ""
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.sqlstate = sqlstate

    @property
    def is_about_data(self) -> bool:
        """A value in the statement cannot be stored; without it, it would work."""
        return self.sqlstate[:2] in ("22", "54")

    @property
    def is_duplicate(self) -> bool:
        return self.sqlstate == "23505"

    @property
    def is_denied(self) -> bool:
        return self.sqlstate == "42501"

    @property
    def is_undefined_table(self) -> bool:
        return self.sqlstate == "42P01"


class Notices(Protocol):
    """What is announced to a session that listens."""

    async def wait(self) -> None:
        """Return when it was announced since the last call, or the session is over."""


class Connection(Protocol):
    """One session. Raises QueryError, or ConnectionLostError when it is over."""

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """Run one statement and return its rows; columns by name or number."""

    async def execute(self, query: str, *arguments: object) -> int:
        """Run a statement (several where there are no arguments).

        Return how many rows the last one changed.
        """

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """All or nothing. It is seen through to its end, cancelled or not."""


class Listener(Connection, Protocol):
    """A session that can be told of things."""

    async def listen(self, channel: str, payload: str) -> Notices:
        """Hear from now on whenever ``payload`` is announced on ``channel``."""

    async def close(self) -> None:
        """End the session, within seconds."""


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """For statements that take no arguments. ``standard_conforming_strings`` is on."""
    return "'" + text.replace("'", "''") + "'"


def one_line(lines: Sequence[str] | str) -> str:
    text = lines if isinstance(lines, str) else " ".join(lines)
    return " ".join(text.split())
