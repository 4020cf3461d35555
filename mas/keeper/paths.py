"""Where the files of the embedded servers are, and who may reach them.

Everything durable is in ``HOME/servers``. The sockets have a short folder of their own:
a socket's path is limited to some hundred bytes, and a home may be deep.
"""

import errno
import hashlib
import os
import pwd
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from mas.errors import NotReadyError

POSTGRES_PORT = 5432
"""No TCP port: PostgreSQL names its socket after it."""

SUPERUSER = "mas"
DATABASE = "mas"

# The data folder's format changes with the major version only.
_POSTGRES_MAJOR = 18
# sun_path less its closing zero byte.
_MAX_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
# Not $TMPDIR or $XDG_RUNTIME_DIR: those differ between logins that share a home, are
# long on macOS, or go away at logout while a resident supervisor runs on.
_SOCKETS_PARENT = Path("/tmp")
# PostgreSQL refuses to run as root.
_ACCOUNTS_FOR_ROOT = ("postgres", "nobody")


class Account(Struct, frozen=True):
    """Whom the servers run as when root starts them."""

    name: str
    uid: int
    gid: int


class Layout:
    """The folders and files of the embedded servers of one MAS_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        self.base = self.home / "servers"
        self.users_lock = self.base / "users.lock"
        """Shared: held by each user. Exclusive: the keeper, once no user is left."""
        self.keeper_lock = self.base / "keeper.lock"
        """Exclusive: held by the keeper as long as it lives."""
        self.starting_lock = self.base / "starting.lock"
        """Exclusive: held while the servers start, restart or stop."""
        self.postgres_lock = self.base / "postgres.lock"
        self.valkey_lock = self.base / "valkey.lock"
        """Both: held by the processes of that server, down to the last one."""
        self.log = self.base / "keeper.log"
        self.password = self.base / "password"
        self.binaries = self.base / "binaries"
        self.postgres_data = self.base / f"pg{_POSTGRES_MAJOR}"
        self.valkey_data = self.base / "valkey"

        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        self.mark = f"mas-{os.geteuid()}-{digest}"
        """Unique to this home and user; in the command line of every server process."""
        self.sockets = _SOCKETS_PARENT / self.mark
        self.postgres_socket = self.sockets / f".s.PGSQL.{POSTGRES_PORT}"
        self.valkey_socket = self.sockets / "redis.sock"

    def make_base(self) -> None:
        """Make the home and its folder for the servers, private as far as possible."""
        # As root the servers run as somebody else, who must be able to walk through.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        with explained(self.home):
            for folder in (self.home, self.base):
                try:
                    folder.mkdir(mode=mode, parents=True)
                except FileExistsError:
                    if folder.is_dir():
                        continue
                    reason = os.strerror(errno.ENOTDIR)
                    raise NotADirectoryError(errno.ENOTDIR, reason, folder) from None
                folder.chmod(mode)  # whatever the umask is

    def make_sockets_folder(self, account: Account | None) -> None:
        """Make the sockets' folder, empty; NotReadyError where it is not only ours."""
        folder = self.sockets
        length = len(os.fsencode(self.postgres_socket))
        if length > _MAX_SOCKET_PATH_BYTES:
            raise NotReadyError(
                f"the socket {self.postgres_socket} has a path of {length} bytes;"
                f" the system allows {_MAX_SOCKET_PATH_BYTES}"
            )
        make_private_folder(folder, account)
        # /tmp is everybody's: somebody may have been here first.
        found = folder.lstat()
        owner = account.uid if account else os.geteuid()
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or mode & 0o077:
            raise NotReadyError(
                f"{folder} is not a folder of the servers' user alone",
                hint=f"remove {folder}, or ask its owner to",
                evidence=f"{stat.filemode(found.st_mode)} uid {found.st_uid},"
                f" expected drwx------ uid {owner}",
            )
        for left_behind in folder.iterdir():
            left_behind.unlink()

    def read_password(self) -> str | None:
        """The password of PostgreSQL's superuser; None where no usable one is kept."""
        try:
            text = self.password.read_bytes()
        except FileNotFoundError:
            return None
        return text.decode() if re.fullmatch(rb"[0-9a-f]{64}", text) else None

    def keep_password(self, password: str) -> None:
        """Keep it durably; a crash leaves the file as it was or as it should be."""
        new = self.password.with_suffix(".new")
        write_private_file(new, password, None)
        new.replace(self.password)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about ``folder`` into a NotReadyError."""
    try:
        yield
    except OSError as error:
        where = error.filename if error.filename is not None else folder
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space" if full else "set MAS_HOME to a folder you may write"
        raise NotReadyError(
            f"the embedded servers cannot use {folder}: {error.strerror or error}",
            hint=hint,
            evidence=str(where),
        ) from error


def new_password() -> str:
    """A password that ``read_password`` takes for one."""
    return os.urandom(32).hex()


def account_for_servers() -> Account | None:
    """Whom to run the servers as; None: the user who runs this."""
    uid = os.geteuid()
    if uid != 0:
        try:
            pwd.getpwuid(uid)
        except KeyError:  # docker run --user
            raise NotReadyError(
                f"PostgreSQL does not run as user id {uid}, which has no name",
                hint=f"add a line for {uid} to /etc/passwd",
            ) from None
        return None
    for name in _ACCOUNTS_FOR_ROOT:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    raise NotReadyError(
        "PostgreSQL does not run as root, and there is no user to run it as:"
        f" none of {', '.join(_ACCOUNTS_FOR_ROOT)}",
        hint="run mas as another user",
    )


def make_private_folder(folder: Path, account: Account | None) -> None:
    """Make a folder that only the servers' user may enter, unless it is there."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def write_private_file(path: Path, text: str, account: Account | None) -> None:
    """Write a file that only the servers' user may read."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:  # noqa: PTH123  (a descriptor, not a path)
        if account is not None:
            os.fchown(fd, account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(fd)


def remove_folder(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def obstacle(folder: Path, account: Account) -> Path | None:
    """The first folder on the way to ``folder`` that ``account`` cannot enter."""
    for step in (*reversed(folder.parents), folder):
        if not is_allowed(step, account, os.X_OK):
            return step
    return None


def is_allowed(path: Path, account: Account, access: int) -> bool:
    """Whether the mode bits of ``path`` give ``account`` all of ``access``."""
    found = path.stat()
    if found.st_uid == account.uid:
        granted = found.st_mode >> 6
    elif found.st_gid == account.gid:
        granted = found.st_mode >> 3
    else:
        granted = found.st_mode
    return granted & access == access
