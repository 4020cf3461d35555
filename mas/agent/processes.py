"""The agent's process tree: kept together, measured, and ended without a survivor."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_TIMEOUT_S = 3.0
_ASK_TIMEOUT_S = 0.5
_RECHECK_S = 0.01


def claim_descendants() -> None:
    """Keep every descendant below this process, also those that call setsid.

    Only Linux has a means; elsewhere a child whose parent ended leaves the tree.
    """
    # Every Bash of the CLI is a session and process group of its own: a signal to the
    # agent's group misses them, so the tree of parents is what has to hold.
    with suppress(PermissionError):  # a session leader has its own group already
        os.setpgid(0, 0)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Stopped, this process could not see that its supervisor is gone.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def living_descendants() -> list[psutil.Process]:
    """Every process below this one that still runs; zombies do not."""
    living = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


def kill_descendants(timeout_s: float = _KILL_TIMEOUT_S) -> list[int]:
    """SIGKILL everything below this process; return the pids that outlived it.

    Stopped before killed: what is stopped cannot fork, and where orphans leave the
    tree (macOS) the first look is the only one that sees them all.
    """
    deadline = time.monotonic() + timeout_s
    stopped: set[psutil.Process] = set()
    while new := set(living_descendants()) - stopped:
        for process in new:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        stopped |= new
        if time.monotonic() > deadline:
            break
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    # The death of a grandchild is no event that can be waited for on every system.
    while (living := living_descendants()) and time.monotonic() < deadline:
        for process in living:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(_RECHECK_S)
    return [process.pid for process in living]


def reap_orphans() -> None:
    """Collect the dead children that this process inherited.

    Not while a CLI is connected: asyncio waits for that child itself.
    """
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_process(code: int, line: str = "") -> NoReturn:
    """Say ``line`` on stderr, kill everything below, and be gone: from any thread."""
    if line:
        with suppress(OSError):
            os.write(2, line.encode(errors="replace") + b"\n")
    try:
        ask_descendants_to_end()
        kill_descendants()
    finally:
        os._exit(code)


def ask_descendants_to_end(timeout_s: float = _ASK_TIMEOUT_S) -> None:
    """SIGTERM everything below this process: a shell's traps free what it locked."""
    asked = living_descendants()
    for process in asked:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.terminate()
    psutil.wait_procs(asked, timeout=timeout_s)


class TreeMeter:
    """CPU and memory of this process and all below it, from sample to sample."""

    def __init__(self) -> None:
        self._seconds: dict[psutil.Process, float] = {}
        self._at = time.monotonic()
        self.sample()

    def sample(self) -> tuple[float, float]:
        """Return percent of one core since the last sample, and resident MiB now."""
        seconds: dict[psutil.Process, float] = {}
        resident = 0
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            # A zombie has no memory to read on macOS.
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                seconds[process] = _cpu_seconds(process)
                resident += process.memory_info().rss
        before, self._seconds = self._seconds, seconds
        elapsed, self._at = time.monotonic() - self._at, time.monotonic()
        spent = sum(now - before.get(process, 0.0) for process, now in seconds.items())
        if sys.platform == "linux":
            # Whoever ended has left its time to its parent, where it counts anew.
            ended = before.keys() - seconds.keys()
            spent -= sum(before[process] for process in ended)
        percent = 100 * max(0.0, spent) / elapsed if elapsed > 0 else 0.0
        return round(percent, 1), round(resident / 2**20, 1)


def _cpu_seconds(process: psutil.Process) -> float:
    # With the children's, so that a command that came and went between two samples is
    # not lost (only Linux fills those fields).
    times = process.cpu_times()
    return float(
        times.user + times.system + times.children_user + times.children_system
    )


def on_terminate(end: Callable[[int], object]) -> None:
    """Call ``end`` with the signal on SIGTERM and SIGHUP; leave Ctrl-C to others.

    A handler that does nothing, not SIG_IGN: that would be inherited by every command
    that Claude starts.
    """
    for terminating in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(terminating, lambda number, _: end(number))
    signal.signal(signal.SIGINT, lambda *_: None)
