"""What the keeper's tests share: users as processes of their own, and who is there."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import psutil
import redis

from mas.keeper import Servers
from mas.keeper.locks import EXCLUSIVE, SHARED, FileLock
from mas.keeper.paths import Layout

GONE_S = 5.0
"""What has to go once the last user has left is gone within this."""

_KINDS = ("keeper", "postgres", "valkey-server", "initdb")

_USER = """
import json, sys
from pathlib import Path
from mas.errors import NotReadyError
from mas.keeper import join
try:
    lease = join(Path(sys.argv[1]))
except NotReadyError as error:
    sys.exit("\\n".join([error.message, error.hint, error.evidence]))
{then}
print(json.dumps([lease.servers.postgres_dsn, lease.servers.redis_url]), flush=True)
sys.stdin.read()
"""


class User:
    """A process that joins, says how, and leaves when its input ends."""

    def __init__(
        self,
        home: Path | str,
        *,
        then: str = "",
        prefix: tuple[str, ...] = (),
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", _USER.format(then=then), str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=env,
        )

    def servers(self) -> Servers:
        """What it joined, as soon as it has."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate(timeout=30)
            raise AssertionError(f"the user did not join:\n{said}")
        return Servers(*json.loads(line))

    def kill(self) -> None:
        """Kill it; until ``leave`` it is a zombie."""
        self._process.kill()

    def leave(self) -> None:
        """Let it end, and wait for that."""
        self._process.communicate(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


def processes(home: Path, *kinds: str) -> list[psutil.Process]:
    """What runs for a home, of some kinds or of all; a zombie does not run."""
    digest = Layout(home).mark.rpartition("-")[2]  # whoever the user is

    def kind(info: dict[str, Any]) -> str:
        words = info["cmdline"] or [""]
        if info["status"] == psutil.STATUS_ZOMBIE:
            return "zombie"
        if words[2:5] == ["-m", "mas.keeper", str(home)]:
            return "keeper"
        return str(info["name"]) if digest in " ".join(words) else "foreign"

    wanted = kinds or _KINDS
    everything = psutil.process_iter(["name", "cmdline", "status"])
    return [process for process in everything if kind(process.info) in wanted]


def the(home: Path, kind: str) -> psutil.Process:
    """The one process of its kind; of PostgreSQL's, the first."""
    found = processes(home, kind)
    if kind == "postgres":
        found = [each for each in found if "-D" in each.cmdline()]
        pids = {each.pid for each in found}  # a fresh child still has its title
        found = [each for each in found if each.ppid() not in pids]
    (process,) = found
    return process


def kill_keeper(home: Path) -> None:
    """Kill the keeper and wait for its lock: a zombie's threads may hold it on."""
    the(home, "keeper").kill()
    with FileLock(Layout(home).keeper_lock) as lock:
        lock.lock_however_long(SHARED)


def assert_gone(home: Path) -> None:
    """Nothing of a home runs any more, or it stops to within ``GONE_S``."""
    layout = Layout(home)
    for path in (layout.keeper_lock, layout.postgres_lock, layout.valkey_lock):
        if path.exists():
            with FileLock(path) as lock:
                assert lock.lock(EXCLUSIVE, timeout_s=GONE_S), f"{path} is held"
    assert_ended(processes(home))
    digest = layout.mark.rpartition("-")[2]
    assert list(layout.sockets.parent.glob(f"mas-*-{digest}")) == []


def assert_ended(ending: list[psutil.Process]) -> None:
    """All have ended within ``GONE_S``, whether somebody has reaped them or not."""

    def are_ended() -> bool:
        return not any(map(_runs, ending))

    until(are_ended, f"{ending} end", timeout_s=GONE_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def until(
    condition: Callable[[], bool], described: str, *, timeout_s: float = 10
) -> None:
    """Return when the condition holds: for what announces nothing."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true: {described}"
        pause.wait(0.005)


def query(servers: Servers, sql: str) -> Any:
    """The first value that a statement gives."""

    async def ask() -> Any:
        connection = await asyncpg.connect(servers.postgres_dsn, timeout=10)
        try:
            return await connection.fetchval(sql, timeout=10)
        finally:
            await connection.close()

    return asyncio.run(ask())


def answers(servers: Servers) -> bool:
    """Whether both servers take a connection and answer."""
    try:
        return query(servers, "select 1") == 1 and ping(servers)
    except (OSError, asyncpg.PostgresError, redis.RedisError):
        return False


def ping(servers: Servers) -> bool:
    with redis.Redis.from_url(servers.redis_url) as client:
        return bool(client.ping())
