"""What PostgreSQL and Valkey are started with."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from mas.keeper.binaries import Binaries
from mas.keeper.paths import POSTGRES_PORT, Layout

_POSTGRES_SETTINGS: dict[str, str | int] = {
    "listen_addresses": "",  # no TCP
    "port": POSTGRES_PORT,
    "unix_socket_permissions": "0700",
    "max_connections": 200,
    "restart_after_crash": "on",
    "fsync": "on",
    "synchronous_commit": "on",
    # A small machine's share: 13 MB and five processes when idle.
    "shared_buffers": "32MB",
    "io_method": "sync",
    "max_logical_replication_workers": 0,
    "max_wal_senders": 0,
    "wal_level": "minimal",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The passwords are 256 random bits: stretching them makes connecting slower only.
    "scram_iterations": 1,
    # What the server says of itself, not each statement of an agent that failed.
    "log_min_messages": "log",
    "log_checkpoints": "off",
    "log_line_prefix": "",
}


class Spec(Struct, frozen=True):
    """How one server is started, recognised as ready, and stopped."""

    name: str
    programs: tuple[str, ...]
    """What its processes are called."""
    command: list[str]
    ready_text: str
    stop_signals: tuple[signal.Signals, ...]
    """Each stronger than the one before; the first is a clean end."""
    lock: Path
    """Held by its processes."""
    left_behind: tuple[Path, ...]
    """Files that a killed server leaves and a new one takes for a living one's."""


def postgres_spec(layout: Layout, binaries: Binaries) -> Spec:
    settings = _POSTGRES_SETTINGS | {
        "unix_socket_directories": str(layout.sockets),
        "cluster_name": layout.mark,  # shown in each process's title
    }
    command = [str(binaries.postgres), "-D", str(layout.postgres_data)]
    return Spec(
        name="postgres",
        programs=("postgres", "initdb"),
        command=[*command, *as_options(settings)],
        ready_text="database system is ready to accept connections",
        stop_signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),
        lock=layout.postgres_lock,
        left_behind=(
            layout.postgres_data / "postmaster.pid",
            layout.postgres_socket,
            layout.postgres_socket.with_name(f"{layout.postgres_socket.name}.lock"),
        ),
    )


def valkey_spec(layout: Layout, binaries: Binaries) -> Spec:
    settings = {
        "port": "0",
        "unixsocket": str(layout.valkey_socket),
        "unixsocketperm": "700",
        "dir": str(layout.valkey_data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is enough
        "maxmemory": "0",
        "daemonize": "no",
        "logfile": "",
    }
    options = [
        part for name, value in settings.items() for part in (f"--{name}", value)
    ]
    return Spec(
        name="valkey",
        programs=("valkey-server",),
        command=[str(binaries.valkey), *options],
        ready_text="Ready to accept connections",
        stop_signals=(signal.SIGTERM, signal.SIGKILL),
        lock=layout.valkey_lock,
        left_behind=(layout.valkey_socket,),
    )


def as_options(settings: Mapping[str, str | int]) -> Iterator[str]:
    """Settings as PostgreSQL's programs take them."""
    for name, value in settings.items():
        yield from ("-c", f"{name}={value}")
