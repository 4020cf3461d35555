"""The user's files in a recording: small ones whole, large ones by their hash."""

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from hashlib import file_digest, sha256
from pathlib import Path, PurePosixPath

from msgspec import Struct

from mas.errors import UsageError
from mas.gateway.cassettes.normal import Secrets

MAX_EMBEDDED_BYTES = 10 * 2**20
"""Of all embedded inputs together."""


class Input(Struct, frozen=True, kw_only=True):
    """One file of the user's; an empty folder's ``path`` ends with a slash."""

    path: str
    """Relative, from the name that was given with --input."""
    sha256: str
    size: int
    content: str | None = None
    """Base64; None where it was too large, or holds a secret."""
    is_executable: bool = False

    @property
    def top(self) -> str:
        """The name of the file or folder that was given."""
        return self.path.partition("/")[0]

    def restore(self, folder: Path) -> None:
        """Write it below the folder; UsageError where that cannot be, or OSError."""
        parts = PurePosixPath(self.path).parts
        bad = self.path.startswith("/") or "\0" in self.path
        if bad or not parts or {"..", "."} & {*parts, self.top}:
            raise UsageError(
                f"the recording holds an input with a bad name: {self.path!r}",
                hint="do not use a recording that you do not trust",
            )
        target = folder.joinpath(*parts)
        if self.path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
            return
        data = self._data()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if self.is_executable:
            target.chmod(target.stat().st_mode | 0o111)

    def _data(self) -> bytes:
        if self.content is None:
            raise UsageError(
                f"the input {self.path} ({self.size:,} bytes) is not in the recording",
                hint=f"hand it over again: --input {self.top}",
            )
        try:
            data = base64.b64decode(self.content, validate=True)
        except binascii.Error:
            data = b""
        if sha256(data).hexdigest() != self.sha256:
            raise UsageError(
                f"the input {self.path} is damaged in the recording",
                hint=f"hand it over again: --input {self.top}",
            )
        return data


def read_inputs(paths: Sequence[Path], secrets: Secrets) -> tuple[Input, ...]:
    """Return the files for a recording, folders as the files in them; OSError."""
    found: list[Input] = []
    room = MAX_EMBEDDED_BYTES
    for path in paths:
        for file, name in _files(path, path.name, frozenset()):
            each = _read(file, name, room, secrets)
            room -= each.size if each.content is not None else 0
            found.append(each)
    return tuple(found)


def check_inputs(paths: Sequence[Path], recorded: Sequence[Input]) -> list[str]:
    """Say where given files are not the recorded ones; OSError."""
    old = {each.path: each for each in recorded}
    tops = {path.name for path in paths}
    warnings = []
    for path in paths:
        for file, name in _files(path, path.name, frozenset()):
            before = old.pop(name, None)
            if before is None:
                warnings.append(f"the input {name} was not there in the recording")
            elif not name.endswith("/") and _hash(file) != before.sha256:
                warnings.append(f"the input {name} is not the one of the recording")
    gone = [each.path for each in old.values() if each.top in tops]
    return warnings + [f"the input {path} of the recording is missing" for path in gone]


def _read(file: Path, name: str, room: int, secrets: Secrets) -> Input:
    if name.endswith("/"):
        return Input(path=name, sha256="", size=0, content="")
    size = file.stat().st_size
    executable = os.access(file, os.X_OK)
    if size > room:
        return Input(path=name, sha256=_hash(file), size=size, is_executable=executable)
    data = file.read_bytes()
    embedded = None if secrets.are_in(data) else base64.b64encode(data).decode()
    return Input(
        path=name,
        sha256=sha256(data).hexdigest(),
        size=len(data),
        content=embedded,
        is_executable=executable,
    )


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _files(path: Path, name: str, above: frozenset[Path]) -> Iterator[tuple[Path, str]]:
    """The regular files below, with the names that they have in a recording."""
    if path.is_file():
        yield path, name
    elif path.is_dir() and path.resolve() not in above:
        inner = above | {path.resolve()}
        entries = sorted(path.iterdir())
        if not entries:
            yield path, f"{name}/"
        for entry in entries:
            yield from _files(entry, f"{name}/{entry.name}", inner)
