"""Agent processes: how they are started, and how nothing of them is left behind."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping

import psutil

RUN_MARKER = "MAS_RUN_ID"
"""The variable by which everything that an agent started is found again."""

_KILL_DEADLINE_S = 3.0

_WITHHELD = re.compile(
    r"ANTHROPIC_|CLAUDE|AWS_|DATABASE_URL|POSTGRES_|PG[A-Z]|REDIS_"
    r"|.*(KEY|TOKEN|SECRET|PASSW|CREDENTIAL)",
    re.IGNORECASE,
)


def agent_command(prefix: Iterable[str], module: str, agent_id: str) -> list[str]:
    """The command line of an agent. -P: the user's folder never shadows a module."""
    return [*prefix, sys.executable, "-P", "-m", module, "--id", agent_id]


def agent_environment(environment: Mapping[str, str], marker: str) -> dict[str, str]:
    """The environment for an agent: the user's, less everything that looks secret."""
    kept = {
        name: value for name, value in environment.items() if not _WITHHELD.match(name)
    }
    return kept | {RUN_MARKER: marker}


def agent_marker(supervisor_id: str, agent_id: str) -> str:
    """What everything that this agent starts carries in its environment."""
    return f"{supervisor_id}:{agent_id}"


def remove_marked(marker: str) -> None:
    """Kill every process that carries ``marker``.

    Blocks for at most some seconds. What runs as another user cannot be looked into and
    is not ours; on macOS system binaries hide their environment and are missed.
    """
    _remove(lambda found: found == marker)


def remove_all_of(supervisor_id: str) -> None:
    """Kill whatever the agents of this supervisor left, as ``remove_marked`` does."""
    _remove(lambda found: found.startswith(agent_marker(supervisor_id, "")))


def _remove(is_meant: Callable[[str], bool]) -> None:
    for _ in range(3):  # a process may fork between the scan and the kill
        found = [it for it in psutil.process_iter() if is_meant(_marker_of(it))]
        if not found:
            return
        _kill(found)


def remove_tree(pid: int) -> None:
    """Kill ``pid`` and all its descendants; blocks until these are gone, or 3 s."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _kill(family)


def _kill(processes: list[psutil.Process]) -> None:
    # asyncio waits for the agent itself; nobody else may, or its end is not known.
    others = [process for process in processes if not _is_child(process)]
    for signal_number in (signal.SIGSTOP, signal.SIGKILL):  # stopped, it cannot fork
        for process in processes:
            try:
                process.send_signal(signal_number)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # gone, or started by another user with sudo: not ours to end
    psutil.wait_procs(others, timeout=_KILL_DEADLINE_S)


def _is_child(process: psutil.Process) -> bool:
    try:
        return bool(process.ppid() == os.getpid())
    except psutil.Error:
        return False


def _marker_of(process: psutil.Process) -> str:
    """The marker that it carries; empty where it is none of ours."""
    if process.pid == os.getpid():
        return ""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return str(process.environ().get(RUN_MARKER, ""))
    except (psutil.Error, OSError):
        return ""  # gone meanwhile, or another user's
