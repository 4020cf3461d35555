"""The embedded PostgreSQL and Valkey: one pair of servers for all who share a home.

A keeper process owns them. Whoever uses them holds a lease, a shared flock, which ends
with the process that holds it, however that ends. With the last lease the keeper stops
the servers and itself.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

from msgspec import Struct

from mas.errors import NotReadyError
from mas.keeper.locks import SHARED, FileLock
from mas.keeper.log import tail
from mas.keeper.paths import DATABASE, POSTGRES_PORT, SUPERUSER, Layout, explained
from mas.keeper.starter import ensure_keeper, is_keeper_alive

__all__ = ["Lease", "Servers", "join", "join_running"]


class Servers(Struct, frozen=True):
    """How to reach the servers, as their superuser. The repr hides the password."""

    postgres_dsn: str
    redis_url: str

    def __repr__(self) -> str:
        return f"Servers(redis_url={self.redis_url!r})"


class Lease:
    """Keeps the servers running until ``close``, or the end of this process."""

    def __init__(self, servers: Servers, users: FileLock) -> None:
        self.servers = servers
        self._users = users
        _leases.add(self)

    def close(self) -> None:
        """Use the servers no more. Closing again does nothing."""
        self._users.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


_leases: WeakSet[Lease] = WeakSet()


def _drop_inherited_leases() -> None:
    for lease in _leases:
        lease.close()


# A forked child, of multiprocessing say, would hold its parent's lease on and on.
os.register_at_fork(after_in_child=_drop_inherited_leases)


def join(home: Path, *, timeout_s: float = 30) -> Lease:
    """Return a lease on the servers of ``home``, started where none run.

    Blocks; NotReadyError says what happened. When the connections break because the
    keeper was killed, join again: that starts a new one.
    """
    deadline = time.monotonic() + timeout_s
    layout = Layout(home)
    layout.make_base()
    with explained(layout.home):
        users = FileLock(layout.users_lock)
        try:
            # Who comes while the last one's servers stop waits here, then starts anew.
            if not users.lock(SHARED, timeout_s=timeout_s):
                raise NotReadyError(
                    f"the embedded servers are still stopping after {timeout_s:g} s",
                    hint=f"see {layout.log}",
                    evidence=tail(layout.log),
                )
            ensure_keeper(layout, deadline=deadline)
            return Lease(_servers(layout), users)
        except BaseException:
            users.close()
            raise


def join_running(home: Path) -> Lease | None:
    """Return a lease on the servers of ``home`` if they run; never start or wait."""
    layout = Layout(home)
    with explained(layout.home):
        try:
            users = FileLock(layout.users_lock, create=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if users.try_lock(SHARED) and _is_ready(layout):
                return Lease(_servers(layout), users)
        except BaseException:
            users.close()
            raise
        users.close()
        return None


def _is_ready(layout: Layout) -> bool:
    with FileLock(layout.starting_lock) as starting:
        return starting.try_lock(SHARED) and is_keeper_alive(layout)


def _servers(layout: Layout) -> Servers:
    password = layout.read_password()
    if password is None:
        raise NotReadyError(
            f"{layout.password} does not hold the password any more",
            hint="end every mas of this MAS_HOME: the next start makes up a new one",
        )
    where = f"host={layout.sockets}&port={POSTGRES_PORT}"
    return Servers(
        postgres_dsn=f"postgresql://{SUPERUSER}:{password}@/{DATABASE}?{where}",
        redis_url=f"unix://{layout.valkey_socket}",
    )
