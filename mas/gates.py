"""The gate: output/result.json must be right, and what it names must be there."""

import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct

from mas.core.result import MAX_RESULT_BYTES, check_result, inside_output

RESULT_NAME = "result.json"
TASK_NAME = "task.json"

MAX_TASK_BYTES = 64 * 2**20
"""More than any order makes of it: an order fits into a frame of 16 MiB."""


class Verdict(Struct, frozen=True):
    """A checked result, as bytes and as value; or every fault found."""

    raw: bytes | None = None
    result: dict[str, Any] | None = None
    faults: tuple[str, ...] = ()


class _Prepared(Struct):
    """Of context/task.json: the attempt that the workspace was prepared for."""

    attempt: int


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


def left_result(workspace: Path, attempt: int) -> Verdict:
    """Judge what ``attempt`` left in ``workspace`` when it was cut off.

    Nothing counts unless context/task.json says that the workspace was prepared for
    exactly this attempt: what is in output/ may be an earlier one's.
    """
    try:
        prepared = _prepared_attempt(workspace / "context")
    except _UnreadableError as error:
        return Verdict(faults=(str(error),))
    if prepared != attempt:
        return Verdict(
            faults=(
                f"the workspace was prepared for attempt {prepared}, "
                f"not for attempt {attempt}",
            )
        )
    return check_output(workspace / "output")


def _prepared_attempt(context: Path) -> int:
    raw = _read_file(context, TASK_NAME, MAX_TASK_BYTES)
    try:
        return msgspec.json.decode(raw, type=_Prepared).attempt
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise _UnreadableError(
            f"context/{TASK_NAME} does not say which attempt it is for: {error}"
        ) from None


def _read_result(output: Path) -> bytes:
    hint = "; write large data to a file in output/ and name it in files_created"
    raw = _read_file(output, RESULT_NAME, MAX_RESULT_BYTES, too_large_hint=hint)
    if raw.startswith(b"\xef\xbb\xbf") or not _is_utf8(raw):
        # json reads UTF-16 and a byte order mark too; who gets these bytes does not.
        raise _UnreadableError(
            "output/result.json must be plain UTF-8 without a byte order mark"
        )
    return raw


def _read_file(
    folder: Path, name: str, limit_bytes: int, *, too_large_hint: str = ""
) -> bytes:
    """Read a file that may be anything: huge, a FIFO, a link that leads elsewhere."""
    shown = f"{folder.name}/{name}"
    path = folder / name
    _check_place(folder, path)
    try:
        # Not blocking: the name may be a FIFO that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _UnreadableError(f"{shown} cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UnreadableError(f"{shown} must be a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            # One byte more than allowed tells what is too large; the rest of a huge
            # file is not worth its memory.
            raw = file.read(limit_bytes + 1)
    except OSError as error:
        raise _UnreadableError(f"{shown} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(raw) > limit_bytes:
        raise _UnreadableError(
            f"{shown} has {status.st_size} bytes, the limit is {limit_bytes}"
            + too_large_hint
        )
    return raw


def _check_place(folder: Path, path: Path) -> None:
    """The folder and the file must be where their names say, not behind a link."""
    shown = f"{folder.name}/{path.name}"
    try:
        is_link = folder.is_symlink()
    except OSError as error:  # the folder above it was closed
        raise _UnreadableError(f"{shown} cannot be read: {error.strerror}") from None
    if is_link:
        raise _UnreadableError(f"{folder.name}/ must be a folder, not a link")
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
    except FileNotFoundError:
        raise _UnreadableError(f"{shown} does not exist") from None
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before 3.13
        raise _UnreadableError(f"{shown} must be a regular file") from None
    if not inside:
        raise _UnreadableError(f"{shown} is a link that leads outside {folder.name}/")


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
