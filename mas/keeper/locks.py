"""File locks, which the kernel lets go of once the last holder is gone in any way.

An flock belongs to the open file, not to the process: a child that inherits the
descriptor holds the lock with its parent. The keeper leans on both: a user's lock ends
with the user, a server's with the last process of that server.
"""

import fcntl
import os
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

SHARED = fcntl.LOCK_SH
EXCLUSIVE = fcntl.LOCK_EX


class FileLock:
    """An open lock file; what is locked stays so until ``close``."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._fd = os.open(path, flags, 0o600)

    @classmethod
    def inherited(cls, fd: int) -> Self:
        """Take over a lock that the starter of this process passed on."""
        lock = cls.__new__(cls)
        lock._fd = fd
        os.set_inheritable(fd, False)
        return lock

    def fileno(self) -> int:
        return self._fd

    def try_lock(self, mode: int) -> bool:
        """Lock if that needs no waiting; say whether it is locked now."""
        try:
            fcntl.flock(self._fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(self, mode: int, *, timeout_s: float) -> bool:
        """Lock, and say whether it is; if not within ``timeout_s``, this is closed."""
        if self.try_lock(mode):
            return True
        # flock(2) knows no deadline, and a signal would reach the main thread only. So
        # a thread blocks, on a descriptor of its own: if nobody waits for it any more,
        # closing that one lets the lock go again at once.
        outcome: SimpleQueue[OSError | None] = SimpleQueue()
        waiter = (os.dup(self._fd), mode, outcome)
        threading.Thread(target=_block, args=waiter, daemon=True).start()
        try:
            error = outcome.get(timeout=max(0.0, timeout_s))
        except Empty:
            self.close()
            return False
        if error is not None:
            raise error
        return True

    def lock_however_long(self, mode: int) -> None:
        """Lock, and wait for it as long as it takes."""
        fcntl.flock(self._fd, mode)

    def close(self) -> None:
        """Let go. Closing again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _block(fd: int, mode: int, outcome: "SimpleQueue[OSError | None]") -> None:
    try:
        fcntl.flock(fd, mode)
    except OSError as error:
        outcome.put(error)
    else:
        outcome.put(None)
    finally:
        os.close(fd)
