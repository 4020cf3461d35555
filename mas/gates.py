"""The gate: output/result.json must be right, and what it names must be there."""

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from mas.core.result import MAX_RESULT_BYTES, check_result, inside_output

RESULT_NAME = "result.json"


class Verdict(Struct, frozen=True):
    """A checked result, as bytes and as value; or every fault found."""

    raw: bytes | None = None
    result: dict[str, Any] | None = None
    faults: tuple[str, ...] = ()


class _UnreadableError(Exception):
    """Says what is wrong with the file, as a fault."""


def check_output(output: Path) -> Verdict:
    """Judge ``output``/result.json and the files that it names.

    A fault is a sentence that tells Claude what to change.
    """
    try:
        raw = _read_result(output)
    except _UnreadableError as error:
        return Verdict(faults=(str(error),))
    result, faults = check_result(raw, PurePosixPath(output))
    if result is None:
        return Verdict(faults=tuple(f"output/result.json: {it}" for it in faults))
    missing = [
        fault
        for path in result["files_created"]
        if (fault := _file_fault(output, path))
    ]
    if missing:
        return Verdict(faults=tuple(missing))
    return Verdict(raw=raw, result=result)


def _read_result(output: Path) -> bytes:
    path = output / RESULT_NAME
    _check_place(output, path)
    try:
        # Not blocking: the name may be a FIFO that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _UnreadableError(
            f"output/result.json cannot be read: {error.strerror}"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UnreadableError("output/result.json must be a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # One byte more than allowed tells what is too large; the rest of a huge
            # file is not worth its memory.
            raw = file.read(MAX_RESULT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_RESULT_BYTES:
        raise _UnreadableError(
            f"output/result.json has {status.st_size} bytes, the limit is "
            f"{MAX_RESULT_BYTES}; write large data to a file in output/ and name it in "
            "files_created"
        )
    if raw.startswith(b"\xef\xbb\xbf") or not _is_utf8(raw):
        # json reads UTF-16 and a byte order mark too; who gets these bytes does not.
        raise _UnreadableError(
            "output/result.json must be plain UTF-8 without a byte order mark"
        )
    return raw


def _check_place(output: Path, path: Path) -> None:
    """The folder and the file must be where their names say, not behind a link."""
    if output.is_symlink():
        raise _UnreadableError("output/ must be a folder, not a link")
    try:
        inside = path.resolve(strict=True).is_relative_to(output.resolve())
    except FileNotFoundError:
        raise _UnreadableError("output/result.json does not exist") from None
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before 3.13
        raise _UnreadableError("output/result.json must be a regular file") from None
    if not inside:
        raise _UnreadableError(
            "output/result.json is a link that leads outside output/"
        )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _file_fault(output: Path, path: str) -> str | None:
    relative = inside_output(path, PurePosixPath(output))
    try:
        target = (output / (relative or "")).resolve(strict=True)
    except FileNotFoundError:
        return f"files_created names {path!r}, which does not exist in output/"
    except (OSError, RuntimeError):
        return f"files_created names {path!r}, which cannot be read"
    if not target.is_relative_to(output.resolve()):
        return f"files_created names {path!r}, which leads outside output/"
    return None
