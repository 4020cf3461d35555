"""Runs mas, or an agent, until a point is reached, and kills the process there.

    python -m tests.crash.dying POINT -- run "a task" --json
    python -m tests.crash.dying --once FILE POINT -- PYTHON -P -m mas.agent --id agent_1

The second form is a ``command`` prefix of the roster. POINT is as ``str(Point)``, or
``-`` for a run that is not disturbed. With ``--calls FILE`` the name of each function
that is entered is appended to FILE. With ``--once FILE`` only the process that first
makes FILE dies.
"""

import argparse
import os
import runpy
import signal
import sys
from pathlib import Path

from msgspec import Struct

from tests.crash.instrument import instrument
from tests.crash.points import AGENT, SUPERVISOR, Point, Side


class Death(Struct):
    """What to do at each point that is passed."""

    at: Point | None
    once: Path | None
    calls: int | None
    """A descriptor that is open for appending."""

    def heard(self, point: Point) -> None:
        if self.calls is not None and point.side is Side.ENTERS:
            os.write(self.calls, f"{point.function}\n".encode())
        if point == self.at and self._is_the_first():
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_the_first(self) -> bool:
        if self.once is None:
            return True
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.dying")
    parser.add_argument("--once", type=Path)
    parser.add_argument("--calls", type=Path)
    parser.add_argument("point")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    calls = given.calls and os.open(given.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    point = None if given.point == "-" else Point.parse(given.point)
    death = Death(point, given.once, calls)
    command = given.command[given.command[:1] == ["--"] :]
    is_agent = "mas.agent" in command
    instrument(AGENT if is_agent else SUPERVISOR, death.heard)
    arguments = command[command.index("mas.agent") + 1 :] if is_agent else command
    sys.argv = ["mas", *arguments]
    runpy.run_module("mas.agent" if is_agent else "mas", run_name="__main__")


if __name__ == "__main__":
    main()
