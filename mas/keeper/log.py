"""The keeper's log: what it did and what the servers say, one file of bounded size."""

import os
import threading
import time
from collections import deque
from pathlib import Path

_MAX_BYTES = 2**20
_LINES_OF_EVIDENCE = 30


class Log:
    """Appends lines to a file; when that is large it starts anew and keeps the old."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._recent: deque[str] = deque(maxlen=_LINES_OF_EVIDENCE)
        self._fd = self._open()

    def write(self, source: str, text: str) -> None:
        """Append ``text`` as a line of ``source``."""
        now = time.time()
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{clock}.{int(now * 1000) % 1000:03d} {source}: {text}"
        with self._lock:
            self._recent.append(line)
            try:
                os.write(self._fd, f"{line}\n".encode())
                if os.fstat(self._fd).st_size > _MAX_BYTES:
                    self._start_anew()
            except OSError:
                # A full disk must not take down servers that run; the line is kept in
                # memory for the report of a failure.
                return

    def recent(self) -> str:
        """The last lines of this process, as evidence."""
        with self._lock:
            return "\n".join(self._recent)

    def take_over(self, *descriptors: int) -> None:
        """Let what is written to ``descriptors`` end up in the file too."""
        for descriptor in descriptors:
            os.dup2(self._fd, descriptor)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def _start_anew(self) -> None:
        self._path.replace(self._path.with_suffix(".log.old"))
        os.close(self._fd)
        self._fd = self._open()


def tail(path: Path) -> str:
    """The last lines of a log file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_LINES_OF_EVIDENCE:])
