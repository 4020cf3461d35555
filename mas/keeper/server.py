"""One server under the keeper: started, watched, ended with all its processes."""

import subprocess
import threading
from queue import SimpleQueue
from signal import Signals
from typing import IO, NamedTuple

from mas.errors import NotReadyError
from mas.keeper.launcher import Launcher
from mas.keeper.locks import EXCLUSIVE, FileLock
from mas.keeper.log import Log
from mas.keeper.servers import Spec

# How long a killed keeper's server may take to stop when asked, a killed PostgreSQL's
# children to notice, and any process to be gone once killed.
_STOP_PATIENCE_S = 4.0
_ORPHAN_PATIENCE_S = 1.0
_KILL_PATIENCE_S = 10.0


class Ready(NamedTuple):
    """The server takes connections."""

    server: "Server"
    process: subprocess.Popen[bytes]


class Exited(NamedTuple):
    """The server's process has ended and is reaped."""

    server: "Server"
    returncode: int


class UsersGone(NamedTuple):
    """Nobody uses the servers any more."""


class StopAsked(NamedTuple):
    """The keeper got a signal that asks it to stop."""

    signal_number: int


Event = Ready | Exited | UsersGone | StopAsked


class Server:
    """A server and its life; what happens to it goes to ``events``."""

    def __init__(
        self,
        spec: Spec,
        *,
        mark: str,
        launcher: Launcher,
        log: Log,
        events: "SimpleQueue[Event]",
    ) -> None:
        self.spec = spec
        self.is_ready = False
        self._mark = mark
        self._launcher = launcher
        self._log = log
        self._events = events
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def claim(self) -> FileLock:
        """Return the server's lock, with all gone that an earlier one left running."""
        family = FileLock(self.spec.lock)
        if family.try_lock(EXCLUSIVE):
            return family
        # It brings psutil, 25 ms that no start pays but after somebody was killed.
        from mas.keeper.leftovers import Leftovers  # noqa: PLC0415

        leftovers = Leftovers(self.spec.programs, self._mark, self._log)
        asked = leftovers.signal_servers(self.spec.stop_signals[0])
        patience_s = _STOP_PATIENCE_S if asked else _ORPHAN_PATIENCE_S
        if family.lock(EXCLUSIVE, timeout_s=patience_s):
            return family
        leftovers.kill_all()
        family = FileLock(self.spec.lock)
        if not family.lock(EXCLUSIVE, timeout_s=_KILL_PATIENCE_S):
            raise NotReadyError(
                f"an earlier {self.name} does not end",
                hint=f"end the processes that have {self.spec.lock} open",
            )
        return family

    def start(self) -> None:
        """Start it; Ready follows, or Exited."""
        with self.claim() as family:
            # A process id in such a file may be anybody's by now, and nobody of this
            # server is left: the lock says so.
            for file in self.spec.left_behind:
                file.unlink(missing_ok=True)
            process = self._launcher.spawn(
                self.spec.command,
                on_keeper_death=self.spec.stop_signals[0],
                family=family,
            )
        self._process = process
        self._log.write("keeper", f"{self.name} started, pid {process.pid}")
        assert process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(process, process.stdout), daemon=True
        )
        self._reader.start()
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def note_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Take note of Ready, unless it is of a process that is gone by now."""
        self.is_ready = process is self._process

    def note_exit(self) -> None:
        """Take note of Exited, with all in the log that the process said."""
        self._process = None
        self.is_ready = False
        if self._reader is not None:
            self._reader.join(timeout=_ORPHAN_PATIENCE_S)

    def signal(self, signal_number: Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal_number)

    def _read(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        with output:
            for line in output:
                text = line.decode(errors="replace").rstrip()
                self._log.write(self.name, text)
                if self.spec.ready_text in text:
                    self._events.put(Ready(self, process))

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        self._events.put(Exited(self, process.wait()))
