"""``python -m mas`` as a process that may be killed, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from tests.conftest import MARK
from tests.keeper.support import processes

ROOT = Path(__file__).parent.parent.parent
GONE_S = 5.0
"""Whatever a supervisor started is gone so long after its end."""

_DEADLINE_S = 180
_FROM_OUTSIDE = (
    "ANTHROPIC_", "CLAUDE", "DATABASE_URL", "POSTGRES_", "REDIS_", "MAS_HOME",
)  # fmt: skip


class Surroundings(Struct, frozen=True, kw_only=True):
    """Where mas runs: whose servers, in which folder, and who plays Claude."""

    home: Path
    folder: Path
    claude_url: str

    @property
    def environment(self) -> dict[str, str]:
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FROM_OUTSIDE)
        }
        return outside | {
            "MAS_HOME": str(self.home),
            # Shells that are killed must not run the user's start-up files.
            "HOME": str(self.folder),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": self.claude_url,
            "PYTHONPATH": str(ROOT),
        }


class Command:
    """One call of mas. Its JSON lines are kept in ``events`` as they come."""

    def __init__(
        self, where: Surroundings, arguments: Sequence[str], runner: Sequence[str]
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._is_late = False
        self._mark = uuid.uuid4().hex
        self._where = where
        self._errors = where.folder / f"stderr.{self._mark[:8]}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *runner, *arguments],
                cwd=where.folder,
                env=where.environment | {MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return self._errors.read_text(errors="replace")

    def follow(
        self, note: Callable[[dict[str, Any]], object] = lambda event: None
    ) -> int:
        """Read its events to its end; return its exit code, negative for a signal."""
        deadline = threading.Timer(_DEADLINE_S, self._give_up)
        deadline.start()
        try:
            for event in self._lines():
                self.events.append(event)
                note(event)
            code = self.process.wait()
        finally:
            deadline.cancel()
        if self._is_late:
            raise TimeoutError(f"mas did not end in {_DEADLINE_S} s: {self.said}")
        return code

    def left_behind(self) -> list[str]:
        """The command lines of what is still there, ``GONE_S`` after its end."""
        _, alive = psutil.wait_procs(self._remaining(), timeout=GONE_S)
        return [_shown(process) for process in alive]

    def _give_up(self) -> None:
        self._is_late = True
        self.process.kill()

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                if line.endswith(b"\n"):  # the last one may be cut off by a kill
                    yield json.loads(line)

    def _remaining(self) -> list[psutil.Process]:
        """Everything with its mark, but the servers, which all commands share."""
        shared = {process.pid for process in processes(self._where.home)}
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(MARK) == self._mark
            except (psutil.Error, OSError):
                continue  # gone meanwhile, or a zombie
            if marked and process.pid not in shared:
                found.append(process)
        return found


def pass_on_signals() -> None:
    """Let mas be interrupted though this program was started with ``&`` or ``nohup``.

    A child inherits that a signal is ignored, but not a handler.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def _shown(process: psutil.Process) -> str:
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid}"
