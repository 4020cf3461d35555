"""Finds out whether a keeper runs, and starts one where none does."""

import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from mas.errors import NotReadyError
from mas.keeper.locks import EXCLUSIVE, SHARED, FileLock
from mas.keeper.log import tail
from mas.keeper.paths import Layout

# What Python may need to start and to find its modules; above all no API key.
_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "PATH", "HOME", "LANG")
_PASSED_ON_PREFIXES = ("LC_", "LD_", "DYLD_")
_OWN_SERVERS = "or set POSTGRES_HOST and REDIS_HOST to servers of your own"


class Failure(Struct):
    """Why a keeper could not start: the last thing it says to its starter."""

    message: str
    hint: str
    evidence: str


def is_keeper_alive(layout: Layout) -> bool:
    """Ask while the starting lock is held, shared or not: then alive means ready."""
    with FileLock(layout.keeper_lock) as alive:
        return not alive.try_lock(SHARED)


def ensure_keeper(layout: Layout, *, deadline: float) -> None:
    """Return once a keeper's servers are ready; the caller is one of their users."""
    with FileLock(layout.starting_lock) as starting:
        _lock(starting, SHARED, layout, deadline)
        if is_keeper_alive(layout):
            return
    # Opened in this order: should the keeper be killed, the kernel closes its lower
    # descriptor first, and nobody finds it neither dead nor starting.
    with (
        FileLock(layout.keeper_lock) as alive,
        FileLock(layout.starting_lock) as starting,
    ):
        _lock(starting, EXCLUSIVE, layout, deadline)
        if not alive.try_lock(EXCLUSIVE):
            return  # somebody was faster, and it is ready: nobody holds starting
        # It holds both from its first moment on, and from now on it alone.
        process = _spawn(layout, alive, starting)
    with process:
        assert process.stdout is not None
        try:
            said = _read_to_end(process.stdout, layout, deadline)
        except BaseException:
            process.kill()  # it ends at once as a rule, leaving the keeper on its own
            raise
    if said:
        raise _as_error(said, layout)
    with FileLock(layout.starting_lock) as starting:
        _lock(starting, SHARED, layout, deadline)
        if not is_keeper_alive(layout):
            raise _not_started(layout, "it ended without a word")


def _lock(lock: FileLock, mode: int, layout: Layout, deadline: float) -> None:
    if not lock.lock(mode, timeout_s=deadline - time.monotonic()):
        raise _not_started(layout, "not ready in the time allowed")


def _spawn(
    layout: Layout, alive: FileLock, starting: FileLock
) -> subprocess.Popen[bytes]:
    descriptors = [alive.fileno(), starting.fileno()]
    arguments = [str(layout.home), *map(str, descriptors)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mas.keeper", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        cwd="/",
        pass_fds=descriptors,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Let the keeper find this very package, in a checkout too."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    root = str(Path(__file__).parents[2])
    if root.endswith("-packages"):  # in front of it, the standard library must stay
        return environment
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, path)))
    return environment


def _read_to_end(output: IO[bytes], layout: Layout, deadline: float) -> bytes:
    """What the keeper says until it is ready, which is nothing, or until it fails."""
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                return said
            said += chunk
    raise _not_started(layout, "not ready in the time allowed")


def _as_error(said: bytes, layout: Layout) -> NotReadyError:
    try:
        failure = msgspec.json.decode(said, type=Failure)
    except msgspec.DecodeError:  # a traceback
        text = said.decode(errors="replace").strip()
        return _not_started(layout, text.splitlines()[-1], evidence=text)
    hint = f"{failure.hint}, {_OWN_SERVERS}" if failure.hint else ""
    return _not_started(layout, failure.message, hint=hint, evidence=failure.evidence)


def _not_started(
    layout: Layout, why: str, *, hint: str = "", evidence: str = ""
) -> NotReadyError:
    return NotReadyError(
        f"the embedded servers did not start: {why}",
        hint=hint or f"{layout.log} says more; try again, {_OWN_SERVERS}",
        evidence=evidence or tail(layout.log),
    )
