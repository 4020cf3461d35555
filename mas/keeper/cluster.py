"""PostgreSQL's data: made whole or not at all, and always with a known password."""

from pathlib import Path

from mas.keeper.binaries import Binaries
from mas.keeper.launcher import Launcher
from mas.keeper.locks import FileLock
from mas.keeper.paths import (
    DATABASE,
    SUPERUSER,
    Layout,
    make_private_folder,
    new_password,
    remove_folder,
    write_private_file,
)
from mas.keeper.servers import as_options

_TIMEOUT_S = 60


class Cluster:
    """The data folder of one home.

    No server runs on it meanwhile: ``family`` is the server's lock, which says so.
    """

    def __init__(self, layout: Layout, binaries: Binaries, launcher: Launcher) -> None:
        self._layout = layout
        self._binaries = binaries
        self._launcher = launcher
        self._data = layout.postgres_data

    def prepare(self, family: FileLock) -> None:
        """See to it that there are data, and a password to reach them."""
        password = self._layout.read_password()
        if not self._data.is_dir():
            self._create(password or new_password(), family)
        elif password is None:
            self._reset_password(family)

    def _create(self, password: str, family: FileLock) -> None:
        new = self._data.with_suffix(".new")
        remove_folder(new)
        make_private_folder(new, self._launcher.account)
        password_file = self._layout.sockets / "password"
        write_private_file(password_file, password, self._launcher.account)
        command = [
            *(str(self._binaries.initdb), "-D", str(new), "--username", SUPERUSER),
            *("--pwfile", str(password_file), "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            # A crash before the rename loses nothing, and it takes half the time.
            *("--no-sync", "--no-instructions"),
            *as_options({"scram_iterations": 1}),
        ]
        self._launcher.run(command, family=family, timeout_s=_TIMEOUT_S)
        password_file.unlink()
        # Faster than another database, and nobody needs one called postgres.
        rename = f"ALTER DATABASE postgres RENAME TO {DATABASE}"
        self._perform(rename, new, family)
        self._layout.keep_password(password)
        new.rename(self._data)

    def _reset_password(self, family: FileLock) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        password = new_password()
        sql = f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'"
        self._perform(sql, self._data, family)
        self._layout.keep_password(password)

    def _perform(self, sql: str, data: Path, family: FileLock) -> None:
        """Perform one statement, without a server."""
        settings: dict[str, str | int] = {
            "cluster_name": self._layout.mark,
            "exit_on_error": "on",
            "scram_iterations": 1,
            "log_checkpoints": "off",
            "log_min_error_statement": "panic",  # a statement may hold a password
        }
        command = [str(self._binaries.postgres), "--single", "-D", str(data)]
        self._launcher.run(
            [*command, *as_options(settings), "template1"],
            family=family,
            timeout_s=_TIMEOUT_S,
            stdin=f"{sql}\n",
        )
