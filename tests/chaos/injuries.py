"""How a run is injured. Only its own processes and those of its home are touched."""

import os
import signal
from collections.abc import Collection
from pathlib import Path
from random import Random

import psutil

from tests.chaos.plans import Injury
from tests.keeper.support import processes

_SIGNALS = {
    Injury.KILL_SUPERVISOR: signal.SIGKILL,
    Injury.INTERRUPT: signal.SIGINT,
    Injury.INTERRUPT_TWICE: signal.SIGINT,
    Injury.TERMINATE: signal.SIGTERM,
    Injury.HANG_UP: signal.SIGHUP,
}
EXIT_CODES = {
    Injury.KILL_SUPERVISOR: -signal.SIGKILL,
    Injury.INTERRUPT: 130,
    Injury.INTERRUPT_TWICE: 130,
    Injury.TERMINATE: 143,
    Injury.HANG_UP: 129,
}
_NO_FRAME = b"\0\0\0\4oops"


def inflict(
    injury: Injury,
    supervisor: int,
    greeted: Collection[int],
    home: Path,
    dice: Random,
) -> str | None:
    """Do it to the run whose supervisor has this pid; say to what it was done.

    None where there is nothing to do it to: no agent now, the server just gone. Only
    agents that have ``greeted`` are stopped: those that are about to start have not yet
    asked the kernel to be woken at their supervisor's end.
    """
    try:
        victims = _victims(injury, psutil.Process(supervisor), home)
        if injury is Injury.STOP_AGENT:
            victims = [agent for agent in victims if agent.pid in greeted]
        if not victims:
            return None
        victim = dice.choice(victims)
        shown = f"{injury}: {victim.pid} {' '.join(victim.cmdline())[:80]}"
        _strike(injury, victim)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
        return None  # it ended by itself meanwhile
    return shown


def _victims(
    injury: Injury, supervisor: psutil.Process, home: Path
) -> list[psutil.Process]:
    match injury:
        case Injury.KILL_AGENT | Injury.STOP_AGENT | Injury.GARBAGE:
            return _agents(supervisor)
        case Injury.KILL_CLAUDE:
            below = [
                child
                for agent in _agents(supervisor)
                for child in agent.children(recursive=True)
            ]
            return [process for process in below if process.name() == "claude"]
        case Injury.KILL_POSTMASTER:
            found = processes(home, "postgres")
            return [each for each in found if "-D" in each.cmdline()][:1]
        case Injury.KILL_BACKEND:
            found = processes(home, "postgres")
            return [each for each in found if "[local]" in " ".join(each.cmdline())]
        case Injury.KILL_VALKEY:
            return processes(home, "valkey-server")
        case Injury.KILL_KEEPER:
            return processes(home, "keeper")
        case _:
            return [supervisor]


def _agents(supervisor: psutil.Process) -> list[psutil.Process]:
    return [child for child in supervisor.children() if "--id" in child.cmdline()]


def _strike(injury: Injury, victim: psutil.Process) -> None:
    if injury is Injury.GARBAGE:
        pipe = os.open(f"/proc/{victim.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, _NO_FRAME)
        os.close(pipe)
        return
    if injury is Injury.STOP_AGENT:
        victim.suspend()
        return
    victim.send_signal(_SIGNALS.get(injury, signal.SIGKILL))
    if injury is Injury.INTERRUPT_TWICE:
        victim.send_signal(signal.SIGINT)
