"""The keeper's life: start the servers, restart what dies, stop when nobody is left."""

import signal
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from types import FrameType

from mas.errors import NotReadyError
from mas.keeper.binaries import find_binaries
from mas.keeper.cluster import Cluster
from mas.keeper.launcher import Launcher, how_it_ended
from mas.keeper.locks import EXCLUSIVE, FileLock
from mas.keeper.log import Log
from mas.keeper.paths import (
    Account,
    Layout,
    account_for_servers,
    make_private_folder,
    obstacle,
    remove_folder,
)
from mas.keeper.server import Event, Exited, Ready, Server, StopAsked, UsersGone
from mas.keeper.servers import Spec, postgres_spec, valkey_spec

_MAX_FAILURES = 5
_FAILURE_WINDOW_S = 60
# PostgreSQL replays its log after a crash, Valkey its file: seconds, at worst.
_START_TIMEOUT_S = 120
# For a clean end, then for each harder signal: within 5 s of the last user in all.
_STOP_PATIENCE_S = (3.5, 0.5, 0.5)
# Users hold it for microseconds only.
_STARTING_LOCK_TIMEOUT_S = 5


class Keeper:
    """Owns the servers of one home while anybody uses them.

    ``alive`` and ``starting`` are its locks, held exclusively since before it began.
    """

    def __init__(
        self, layout: Layout, log: Log, *, alive: FileLock, starting: FileLock
    ) -> None:
        self._layout = layout
        self._log = log
        self._alive = alive
        self._starting: FileLock | None = starting
        self._start_deadline = time.monotonic() + _START_TIMEOUT_S
        self._users = FileLock(layout.users_lock)
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._servers: list[Server] = []
        self._failures: deque[float] = deque(maxlen=_MAX_FAILURES)
        self.was_ready = False

    def run(self) -> None:
        """Serve until the last user is gone; NotReadyError when that cannot be."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note_signal)
        # Ignored, as some parent may leave it, it would hide how a server ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        threading.Thread(target=self._await_last_user, daemon=True).start()
        try:
            self._start()
            self._serve()
        finally:
            self._stop()
            # First of the locks: who gets another one must not find this one held.
            self._alive.close()

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._events.put(StopAsked(number))

    def _await_last_user(self) -> None:
        try:
            self._users.lock_however_long(EXCLUSIVE)
        finally:
            # Were flock to fail, servers that stop are better than some that never do.
            self._events.put(UsersGone())

    def _start(self) -> None:
        layout = self._layout
        account = account_for_servers()
        if account is not None:
            _check_way(layout, account)
        binaries = find_binaries(layout, account)
        layout.make_sockets_folder(account)
        launcher = Launcher(account, self._log)
        valkey = self._add(valkey_spec(layout, binaries), launcher)
        postgres = self._add(postgres_spec(layout, binaries), launcher)
        make_private_folder(layout.valkey_data, account)
        valkey.start()
        cluster = Cluster(layout, binaries, launcher)
        with postgres.claim() as family:
            cluster.prepare(family)
        postgres.start()

    def _add(self, spec: Spec, launcher: Launcher) -> Server:
        server = Server(
            spec,
            mark=self._layout.mark,
            launcher=launcher,
            log=self._log,
            events=self._events,
        )
        self._servers.append(server)
        return server

    def _serve(self) -> None:
        while True:
            match self._next_event():
                case Ready(server, process):
                    server.note_ready(process)
                    if all(each.is_ready for each in self._servers):
                        self._announce()
                case Exited(server, returncode):
                    server.note_exit()
                    self._restart(server, how_it_ended(returncode))
                case UsersGone():
                    self._log.write("keeper", "the last user is gone")
                    return
                case StopAsked(number):
                    name = signal.Signals(number).name
                    self._log.write("keeper", f"asked to stop by {name}")
                    return

    def _next_event(self) -> Event:
        if self._starting is None:
            return self._events.get()  # this wait is the keeper's purpose
        remaining_s = self._start_deadline - time.monotonic()
        try:
            return self._events.get(timeout=max(0.0, remaining_s))
        except Empty:
            slow = [each.name for each in self._servers if not each.is_ready]
            raise NotReadyError(
                f"{' and '.join(slow)} not ready after {_START_TIMEOUT_S} s",
                evidence=self._log.recent(),
            ) from None

    def _announce(self) -> None:
        if self._starting is None:
            return  # PostgreSQL got over the crash of a child by itself
        self._log.write("keeper", "ready")
        self.was_ready = True
        # The starter waits for the end of these.
        self._log.take_over(1, 2)
        self._starting.close()
        self._starting = None

    def _restart(self, server: Server, how: str) -> None:
        now = time.monotonic()
        self._failures.append(now)
        self._log.write("keeper", f"{server.name} ended, {how}")
        is_full = len(self._failures) == _MAX_FAILURES
        if is_full and now - self._failures[0] < _FAILURE_WINDOW_S:
            raise NotReadyError(
                f"{server.name} ended again and again, at last {how}",
                hint=f"the lines below say why; all of them are in {self._layout.log}",
                evidence=self._log.recent(),
            )
        self._hold_starting_lock()
        server.start()

    def _hold_starting_lock(self) -> None:
        if self._starting is not None:
            return
        try:
            starting = FileLock(self._layout.starting_lock)
        except FileNotFoundError:  # somebody removed the home: nobody can join it
            return
        if starting.lock(EXCLUSIVE, timeout_s=_STARTING_LOCK_TIMEOUT_S):
            self._starting = starting
        else:  # who joins now may be early: no reason to leave the servers alone
            self._log.write("keeper", f"{self._layout.starting_lock} is not let go")
        self._start_deadline = time.monotonic() + _START_TIMEOUT_S

    def _stop(self) -> None:
        """End the servers, harder and harder, and what is left of them."""
        self._hold_starting_lock()
        for step, patience_s in enumerate(_STOP_PATIENCE_S):
            for server in self._servers:
                signals = server.spec.stop_signals
                server.signal(signals[min(step, len(signals) - 1)])
            self._await_exits(time.monotonic() + patience_s)
        try:
            for server in self._servers:
                server.claim().close()  # their children are gone too
        finally:
            if self._servers:  # the sockets' folder is known to be ours
                remove_folder(self._layout.sockets)
        self._log.write("keeper", "stopped")

    def _await_exits(self, deadline: float) -> None:
        while any(server.is_running for server in self._servers):
            remaining_s = deadline - time.monotonic()
            try:
                event = self._events.get(timeout=max(0.0, remaining_s))
            except Empty:
                return
            if isinstance(event, Exited):
                event.server.note_exit()


def _check_way(layout: Layout, account: Account) -> None:
    blocked_at = obstacle(layout.base, account)
    if blocked_at is not None:
        raise NotReadyError(
            f"root's servers run as the user {account.name}, who cannot enter"
            f" {blocked_at}",
            hint="set MAS_HOME to a folder that other users can reach, such as"
            f" /var/lib/mas, or: chmod o+x {blocked_at}",
        )
