"""A recorded run as a file: gzip-compressed JSON lines, for zcat and for replay.

The first line says what was recorded, then comes a line for each exchange, and the last
one says that nothing is missing. While a run is recorded the file is called FILE.part;
it gets its name when it is whole.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from mas.errors import UsageError
from mas.gateway.cassettes.conversation import Asked
from mas.gateway.cassettes.inputs import Input
from mas.gateway.cassettes.normal import SECRET

FORMAT = "mas cassette"
VERSION = 1

_GZIP = 31
"""zlib's ``wbits`` for a gzip header and trailer."""
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 64 * 2**10
_FOOTER = re.compile(rb'\s*\{\s*"end"\s*:')
_SHOWN_CHARS = 60
_RECORD_AGAIN = "record it again: mas run --record FILE"

T = TypeVar("T")

End = Literal["complete", "cut", "short", "error", "garbage", "left", "unanswered"]
"""How an answer ended. ``cut``: the connection broke; ``short``: it ended well, but not
its message; ``error``: by an event; ``garbage``: by what is no event; ``left``: whoever
asked went away; ``unanswered``: no answer came. All but the first may hold a part."""


class CassetteError(UsageError):
    """A recording that cannot be used or written."""


class Header(Struct, frozen=True, kw_only=True):
    """The first line."""

    format: str = FORMAT
    version: int = VERSION
    recorded_at: datetime
    mas_version: str
    task: str
    """What the user asked for."""
    inputs: tuple[Input, ...] = ()
    models: tuple[str, ...] = ()


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came back, whole. Names of the run are placeholders in all of it."""

    end: End = "complete"
    status: int | None = None
    headers: dict[str, str] = {}
    message: dict[str, Any] | None = None
    """A message, of a stream or not; its ids are numbers in it."""
    has_open_block: bool = False
    """The message's last block had not ended."""
    body: Any = None
    """Any other answer that is JSON: an error, a count."""
    text: str | None = None
    """An answer that is not."""
    error: Any = None
    """The event that ended the stream, or why nobody answered."""
    not_recorded: str = ""
    """Why the answer is not here."""


class Exchange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request and its answer: one line."""

    subtask: str | None = None
    """None: the planner's."""
    attempt: int | None = None
    thread: str
    call: str = ""
    """Method and path of what is no request for a message."""
    ordinal: int
    asked: Asked | None = None
    answer: Answer


class Footer(Struct, frozen=True, kw_only=True):
    """The last line."""

    end: Literal[True] = True
    exchanges: int
    status: str
    """How the run ended: completed, failed, interrupted."""


class Cassette(Struct, frozen=True, kw_only=True):
    """A recording, read and checked."""

    header: Header
    exchanges: tuple[Exchange, ...]
    status: str

    def check_task(self, description: str) -> None:
        """Raise CassetteError where the recording is of another task than this."""
        recorded = self.header.task
        pattern = ".*".join(map(re.escape, recorded.split(SECRET)))
        if not re.fullmatch(pattern, description, re.DOTALL):
            raise CassetteError(
                f"this is a recording of another task: {_shown(recorded)}",
                hint=f"the task to run is {_shown(description)}; "
                "give the recorded one, or record this one with --record",
            )

    def restore_inputs(self, folder: Path, given: tuple[Path, ...] = ()) -> list[Path]:
        """Write the recorded inputs below ``folder`` and return them, for the run.

        Those that have the name of one in ``given`` are left out. CassetteError where
        one was too large to be kept, or its name leads out of the folder.
        """
        names = {path.name for path in given}
        wanted = [each for each in self.header.inputs if each.top not in names]
        try:
            for each in wanted:
                each.restore(folder)
        except OSError as error:
            raise CassetteError(
                f"the recorded inputs cannot be written: {error}",
                hint=f"check the space and the permissions in {folder}",
            ) from error
        return [folder / name for name in dict.fromkeys(each.top for each in wanted)]


class CassetteWriter:
    """Writes a recording, exchange by exchange; all but ``__init__`` raise OSError.

    What was written is in the file, and zcat shows it, even where mas is killed. The
    file gets its name in ``close``; until then an older one of that name stays.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._part = part_of(path)
        self._count = 0
        try:
            self._file = self._part.open("xb", buffering=0)
        except FileExistsError as error:
            raise CassetteError(
                f"there is an unfinished recording: {self._part}",
                hint="a run writes it now, or was killed: remove it, or choose a name",
            ) from error
        except OSError as error:
            raise _not_writable(path, error) from error
        self._zip = zlib.compressobj(wbits=_GZIP)
        try:
            self._write(header)
        except OSError as error:
            self.abandon()
            raise _not_writable(path, error) from error

    def write(self, exchange: Exchange) -> None:
        """Add an exchange."""
        self._write(exchange)
        self._count += 1

    def close(self, status: str) -> None:
        """End the file with how the run ended, and give it its name."""
        with self._file:
            self._write(Footer(exchanges=self._count, status=status))
            self._put(self._zip.flush())
            os.fsync(self._file.fileno())
        self._part.replace(self.path)

    def discard(self) -> None:
        """Nothing was worth keeping: leave no file."""
        self._file.close()
        self._part.unlink()

    def abandon(self) -> None:
        """Write no more; what is there stays, as an unfinished recording."""
        self._file.close()

    def _write(self, line: Header | Exchange | Footer) -> None:
        data = self._zip.compress(_encoded(line) + b"\n")
        # All of it, now: what is still in here when mas is killed would be lost.
        self._put(data + self._zip.flush(zlib.Z_SYNC_FLUSH))

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def part_of(path: Path) -> Path:
    """What the file is called while it is written."""
    return path.with_name(path.name + ".part")


def read_cassette(path: Path) -> Cassette:
    """Read a recording; CassetteError where it is none, not whole, or too new."""
    if not path.exists() and part_of(path).exists():
        raise CassetteError(
            f"the recording {path} was not finished: there is only {part_of(path)}",
            hint=f"zcat shows what is in it; {_RECORD_AGAIN}",
        )
    lines = _lines(path)
    header = _header(path, next(lines, b""))
    exchanges: list[Exchange] = []
    footer: Footer | None = None
    for number, line in enumerate(lines, 2):
        if footer is not None:
            raise _damaged(path, number, "it comes after the end")
        if _FOOTER.match(line):
            footer = _converted(path, number, line, Footer)
        else:
            exchanges.append(_converted(path, number, line, Exchange))
    if footer is None:
        raise _truncated(path, len(exchanges))
    if footer.exchanges != len(exchanges):
        raise CassetteError(
            f"{path} has {len(exchanges)} exchanges and says {footer.exchanges}",
            hint=_RECORD_AGAIN,
        )
    return Cassette(header=header, exchanges=tuple(exchanges), status=footer.status)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of the file; CassetteError where it is cut off, behind the last one."""
    unzip = zlib.decompressobj(wbits=_GZIP)
    count = 0
    rest = bytearray()
    try:
        for chunk in _chunks(path):
            first, *others = unzip.decompress(chunk).split(b"\n")
            rest += first
            for following in others:
                count += 1
                yield bytes(rest)
                rest = bytearray(following)
    except zlib.error as error:
        raise CassetteError(
            f"the recording {path} is damaged: {error}", hint=_RECORD_AGAIN
        ) from error
    if rest or not unzip.eof:
        raise _truncated(path, max(0, count - 1))


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            start = file.read(_CHUNK_BYTES)
            if not start.startswith(_GZIP_MAGIC):
                raise _no_cassette(path)
            yield start
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise CassetteError(
            f"there is no recording {path}", hint="check the path"
        ) from error
    except OSError as error:
        raise CassetteError(
            f"the recording {path} cannot be read: {error.strerror or error}",
            hint="check the path and its permissions",
        ) from error


def _header(path: Path, line: bytes) -> Header:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _no_cassette(path)
    version = found.get("version")
    if isinstance(version, int) and version > VERSION:
        raise CassetteError(
            f"{path} was written by a newer mas, {found.get('mas_version', '')}: "
            f"version {version} of the format, this mas reads {VERSION}",
            hint="update mas, or record it again",
        )
    if version != VERSION:
        raise CassetteError(
            f"{path} has version {version!r} of the format, which mas does not know",
            hint=_RECORD_AGAIN,
        )
    return _converted(path, 1, line, Header)


def _converted(path: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        return msgspec.convert(json.loads(line), kind)
    except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise _damaged(path, number, str(error)) from error


def _encoded(line: Struct) -> bytes:
    found = msgspec.to_builtins(line)
    compact = (",", ":")
    try:
        return json.dumps(found, ensure_ascii=False, separators=compact).encode()
    except UnicodeEncodeError:  # half a surrogate pair is no UTF-8
        return json.dumps(found, separators=compact).encode()


def _no_cassette(path: Path) -> CassetteError:
    return CassetteError(
        f"{path} is not a recording of mas",
        hint="such a file is made with: mas run --record FILE",
    )


def _truncated(path: Path, count: int) -> CassetteError:
    return CassetteError(
        f"the recording {path} is cut off after {count} exchanges",
        hint=f"zcat shows what is in it; {_RECORD_AGAIN}",
    )


def _damaged(path: Path, number: int, reason: str) -> CassetteError:
    return CassetteError(
        f"line {number} of the recording {path} is damaged: {reason[:200]}",
        hint=_RECORD_AGAIN,
    )


def _not_writable(path: Path, error: OSError) -> CassetteError:
    return CassetteError(
        f"the recording {path} cannot be written: {error.strerror or error}",
        hint="choose another place for --record",
    )


def _shown(task: str) -> str:
    flat = " ".join(task.split())
    return repr(flat if len(flat) <= _SHOWN_CHARS else f"{flat[:_SHOWN_CHARS]}…")
