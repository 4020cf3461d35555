"""What a killed keeper or a killed PostgreSQL left running, and how to end it.

A process id in a file may be anybody's by now, and a zombie answers to its id: so the
processes are known by their name together with the mark of the home, which is in the
arguments of a server and in the titles of its children.
"""

from collections.abc import Iterator
from contextlib import suppress
from signal import SIGKILL, Signals

import psutil

from mas.keeper.log import Log

_TITLE_OF_A_CHILD = "postgres: "


class Leftovers:
    """The processes called ``programs`` that bear ``mark``."""

    def __init__(self, programs: tuple[str, ...], mark: str, log: Log) -> None:
        self._programs = programs
        self._mark = mark
        self._log = log

    def signal_servers(self, number: Signals) -> bool:
        """Signal the servers, not their children, which follow; was there any?"""
        found = [
            process
            for process, command in self._find()
            if not command.startswith(_TITLE_OF_A_CHILD)
        ]
        self._signal(found, number)
        return bool(found)

    def kill_all(self) -> None:
        self._signal([process for process, _ in self._find()], SIGKILL)

    def _find(self) -> Iterator[tuple[psutil.Process, str]]:
        for process in psutil.process_iter(["name", "cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if process.info["name"] in self._programs and self._mark in command:
                yield process, command

    def _signal(self, processes: list[psutil.Process], number: Signals) -> None:
        for process in processes:
            self._log.write("keeper", f"{number.name} to {process.pid}, left running")
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
