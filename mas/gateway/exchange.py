"""The seam of the gateway: a request, its answer, and whoever gives it.

``Forward`` sends requests on to Claude, ``mas.testing`` plays a script, ``Replay``
plays what was recorded. To the gateway they are the same: an ``Upstream``.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from mas.errors import MasError

Headers = tuple[tuple[bytes, bytes], ...]
"""Pairs in the order in which they came, names in lower case; one may stand twice."""

PLANNER = "planner"
"""The ``agent_id`` of the planner's calls."""


class Caller(Struct, frozen=True, kw_only=True):
    """Who a token was given to: one attempt at a subtask, or the planner."""

    task_id: str
    agent_id: str
    subtask_id: str | None = None
    attempt: int | None = None
    priority: int = 5
    """The subtask's, 0 to 10; higher goes first where requests wait."""
    workspace: str = ""
    """Absolute path of the subtask's folder; empty for the planner."""


class Request(Struct, frozen=True, kw_only=True):
    """One request as the gateway received it, whole."""

    caller: Caller
    method: str
    target: bytes
    """Path and query, as they came."""
    headers: Headers
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    def header(self, name: bytes) -> str:
        """The first header of this name, in lower case; empty where there is none."""
        return header(self.headers, name)


class Response(Protocol):
    """The answer, as soon as its headers are there."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Headers: ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, encoded as it is; CutError where it breaks off."""
        ...


class Upstream(Protocol):
    """Gives the answers."""

    @property
    def is_first_party(self) -> bool:
        """Whether Anthropic's own endpoint gives them, with its prompt cache."""
        ...

    @property
    def is_paid(self) -> bool:
        """Whether its answers cost anything."""
        ...

    def open(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """Send the request; leaving the context ends the answer, wherever it is.

        UpstreamError where no answer comes.
        """
        ...


class UpstreamError(MasError):
    """Nobody answered: no connection, no name, no headers in time."""


class CutError(UpstreamError):
    """An answer that had begun broke off."""


def header(headers: Headers, name: bytes) -> str:
    """The first header of this name, in lower case; empty where there is none."""
    return next((v.decode("latin-1") for k, v in headers if k == name), "")
