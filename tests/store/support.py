"""What the store's tests share: a task, its facts, and a line that can be cut."""

import socket
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import asyncpg
from anyio.abc import ByteStream
from msgspec import Struct, field

from mas.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    Recorded,
    SubtaskFinished,
    TaskCreated,
)
from mas.model import FailureKind, Plan, Status, Subtask, Task, Usage
from mas.store.address import Address
from mas.store.postgres import TaskStore

OUTPUT = {
    "success": True,
    "data": {"π": [1, 2.5, None, 2**70 + 1, {"deep": {"er": "\\u0000 in words"}}]},
    "summary": "done ✓",
    "files_created": ["a.txt"],
}
PLAN = Plan(
    (Subtask(id="a", description="first"), Subtask(id="b", description="second"))
)


def new_task(owner: str = "supervisor-1", **fields: Any) -> Task:
    now = datetime.now(UTC)
    task: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "description": "count the words",
        "status": Status.IN_PROGRESS,
        "created_at": now,
        "updated_at": now,
        "owner": owner,
    }
    return Task(**(task | fields))


async def begin(store: TaskStore) -> "Facts":
    """A new task that the store holds."""
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    return facts


async def hang_up(database: Address) -> None:
    """End every session in the database from the server's side."""
    admin = await asyncpg.connect(database.dsn)
    await admin.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = $1 AND pid <> pg_backend_pid()",
        database.database,
    )
    await admin.close()


class Facts:
    """Numbers a task's facts as its journal does."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.all: list[Recorded] = []

    def add(self, *events: Event) -> list[Recorded]:
        at = datetime.now(UTC)
        added = [
            Recorded(seq=seq, at=at, task_id=self.task.id, event=event)
            for seq, event in enumerate(events, start=len(self.all) + 1)
        ]
        self.all += added
        return added

    def created(self) -> list[Recorded]:
        return self.add(TaskCreated(description=self.task.description))


def started(subtask_id: str, attempt: int = 1) -> AttemptStarted:
    return AttemptStarted(subtask_id=subtask_id, attempt=attempt, agent_id="agent_1")


def completed(subtask_id: str, attempt: int = 1, **fields: Any) -> AttemptFinished:
    finished: dict[str, Any] = {
        "status": Status.COMPLETED,
        "output": OUTPUT,
        "execution_time": 2.5,
        "usage": Usage(input_tokens=7, cost_usd=0.25),
    }
    return AttemptFinished(
        subtask_id=subtask_id,
        attempt=attempt,
        agent_id="agent_1",
        **(finished | fields),
    )


def failed(subtask_id: str, attempt: int = 1, error: str = "no") -> AttemptFinished:
    return completed(
        subtask_id,
        attempt,
        status=Status.FAILED,
        output=None,
        error=error,
        failure=FailureKind.NO_RESULT,
    )


def subtask_done(subtask_id: str) -> SubtaskFinished:
    return SubtaskFinished(subtask_id=subtask_id, status=Status.COMPLETED)


class _Link(Struct):
    """One connection that runs through a ``Line``."""

    client: ByteStream
    server: ByteStream
    answers_left: int | None = None
    """So many answers come, then the line fails; None is all."""
    held: list[bytes] | None = None
    """The answers after those, kept back; None where the line breaks instead."""
    is_mute: bool = False
    """What comes is not passed on, in either direction, once an answer was due."""


class Line(Struct):
    """Carries bytes between clients and a server, and fails in the ways lines do."""

    url: str
    """Where clients reach the server through this line."""
    place: str
    """Its host and port."""
    refuses: bool = False
    """Whoever calls is hung up on."""
    swallowed: anyio.Event = field(default_factory=anyio.Event)
    """Set when an answer was kept back."""
    links: list[_Link] = field(default_factory=list)

    def lose_answer(self, *, after: int = 0) -> None:
        """Break every open connection at an answer: the next, or one after it."""
        for link in self.links:
            link.answers_left = after

    def hold_answers(self, *, after: int = 0) -> None:
        """Keep back what comes on the open connections, until ``deliver``."""
        for link in self.links:
            link.answers_left, link.held = after, []

    async def deliver(self) -> None:
        for link in self.links:
            held, link.held = link.held or [], None
            link.answers_left = None
            for data in held:
                await link.client.send(data)

    def go_dead(self) -> None:
        """The next requests arrive; no answer does, and nothing else any more."""
        for link in self.links:
            link.is_mute = True

    async def carry(self, client: ByteStream, socket: str) -> None:
        async with client:
            if self.refuses:
                return
            async with (
                await anyio.connect_unix(socket) as server,
                anyio.create_task_group() as tasks,
            ):
                link = _Link(client, server)
                self.links.append(link)
                tasks.start_soon(self._up, link)
                await self._down(link)
                self.links.remove(link)
                tasks.cancel_scope.cancel()

    async def _up(self, link: _Link) -> None:
        with suppress(anyio.BrokenResourceError):  # hung up, in a ruder way
            async for data in link.client:
                if not (link.is_mute and self.swallowed.is_set()):
                    await link.server.send(data)
        if not link.is_mute:
            with suppress(anyio.BrokenResourceError):
                await link.server.send_eof()

    async def _down(self, link: _Link) -> None:
        with suppress(anyio.BrokenResourceError):
            async for data in link.server:
                if link.answers_left == 0 or link.is_mute:
                    self.swallowed.set()
                    if link.held is not None:
                        link.held.append(data)
                    elif not link.is_mute:
                        return
                    continue
                if link.answers_left is not None:
                    link.answers_left -= 1
                await link.client.send(data)


@asynccontextmanager
async def line_to(socket: str, url: str) -> AsyncIterator[Line]:
    """A line on loopback to the server on ``socket``; ``url`` has a ``{place}``."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    place = f"127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
    line = Line(url=url.format(place=place), place=place)

    async def carry(client: ByteStream) -> None:
        await line.carry(client, socket)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, carry)
        yield line
        tasks.cancel_scope.cancel()


_DOOR_PORT = 5999


class Door:
    """The server's socket under another name, behind which the server can be away."""

    def __init__(self, database: Address, folder: Path) -> None:
        login = database.dsn.removeprefix("postgresql://").partition("@")[0]
        self.dsn = (
            f"postgresql://{login}@/{database.database}?host={folder}&port={_DOOR_PORT}"
        )
        self.path = folder / f".s.PGSQL.{_DOOR_PORT}"
        self._database = database
        self._listener: anyio.abc.Listener[Any] | None = None

    async def open(self) -> None:
        """The server is there, whoever answered before."""
        await self._remove()
        self.path.symlink_to(self._database.where)

    async def remove(self) -> None:
        """The server is gone, its socket too."""
        await self._remove()
        await hang_up(self._database)

    async def refuse(self) -> None:
        """The server is gone and left its socket behind."""
        await self._remove()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        await hang_up(self._database)

    async def answer(self, tasks: anyio.abc.TaskGroup, said: bytes | None) -> None:
        """Whoever calls is told this and hung up on; None says nothing, on and on."""
        await self._remove()
        listener = self._listener = await anyio.create_unix_listener(self.path)

        async def handle(client: ByteStream) -> None:
            async with client:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    await client.receive()
                    if said is not None:
                        await client.send(said)
                        return
                    await client.receive()

        async def serve() -> None:
            with suppress(anyio.ClosedResourceError):  # the server is back
                await listener.serve(handle, tasks)

        tasks.start_soon(serve)
        await hang_up(self._database)

    async def _remove(self) -> None:
        if self._listener is not None:
            await self._listener.aclose()
            self._listener = None
        self.path.unlink(missing_ok=True)


def refusal(sqlstate: str, message: str) -> bytes:
    """What PostgreSQL sends to who may not connect."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = b"".join(f"{key}{text}".encode() + b"\0" for key, text in fields.items())
    return b"E" + (len(body) + 5).to_bytes(4, "big") + body + b"\0"


@asynccontextmanager
async def door_to(database: Address) -> AsyncIterator[Door]:
    # Not pytest's folder: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="mas-door-") as folder:
        door = Door(database, Path(folder))
        await door.open()
        yield door
