"""The folder that an attempt works in: context/ filled anew, output/ empty, temp/.

An attempt that goes on in a session finds output/ and temp/ as they were left.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from mas.errors import AgentError
from mas.gates import RESULT_NAME, TASK_NAME
from mas.wire.messages import RunAttempt


class WorkspaceError(AgentError):
    """The workspace could not be prepared: disk full, no permission."""


class ContextFile(Struct, frozen=True):
    """A file that Claude finds in the workspace; ``path`` is relative to it."""

    path: str
    size: int


class Workspace(Struct, frozen=True):
    """A prepared workspace."""

    root: Path
    files: tuple[ContextFile, ...]
    """What dependencies and the user handed over, by path."""
    left_out: tuple[str, ...]
    """What was not copied: links that lead outside, and what is no regular file."""

    @property
    def output(self) -> Path:
        return self.root / "output"


def prepare(
    order: RunAttempt, check_stopped: Callable[[], object] = lambda: None
) -> Workspace:
    """Make the workspace of ``order`` ready; WorkspaceError says what is in the way.

    ``check_stopped`` is called before each copy and may raise to end it there.
    """
    root = Path(order.workspace)
    context = root / "context"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not order.resumes or not _is_folder(root / "output"):
            _keep_old_output(root, order)
        _remove(context)
        _write_documents(context, order)
        left_out = list(_copy_files(context, order, check_stopped))
        for name in ("output", "temp"):
            _make_folder(root / name)
        files = tuple(_listed(root))
        # Last, and at once: from here on what is in output/ counts as this attempt's.
        _write_task(context, order)
    except OSError as error:
        place = error.filename2 or error.filename or root
        raise WorkspaceError(
            f"the workspace cannot be prepared: {place}: {error.strerror or error}",
            hint="Check the free space and the permissions there.",
        ) from error
    return Workspace(root, files, tuple(left_out))


def _keep_old_output(root: Path, order: RunAttempt) -> None:
    """Move what an earlier attempt made out of the way: no stale result may count."""
    output = root / "output"
    if not os.path.lexists(output) or (
        _is_folder(output) and not any(output.iterdir())
    ):
        return
    earlier = [attempt.attempt for attempt in order.previous_attempts]
    number = max(earlier, default=order.attempt - 1)
    kept = root / "attempts" / str(number)
    kept.parent.mkdir(exist_ok=True)
    again = 1
    while os.path.lexists(kept):
        again += 1
        kept = kept.with_name(f"{number}.{again}")
    output.rename(kept)


def _is_folder(path: Path) -> bool:
    """Whether a folder is really there, and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _make_folder(path: Path) -> None:
    """Leave a folder there, with what is in it; what only looks like one goes."""
    if os.path.lexists(path) and not _is_folder(path):
        path.unlink()
    path.mkdir(exist_ok=True)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _write_documents(context: Path, order: RunAttempt) -> None:
    (context / "files").mkdir(parents=True)
    results = {
        dependency.subtask_id: {
            "description": dependency.description,
            "result": dependency.output,
        }
        for dependency in order.dependencies
    }
    _write_json(context / "previous_results.json", results)
    if order.previous_attempts:
        _write_json(context / "previous_attempts.json", order.previous_attempts)


def _write_task(context: Path, order: RunAttempt) -> None:
    task = {"id": order.task_id, "description": order.task_description}
    document = {"task": task, "subtask": order.subtask, "attempt": order.attempt}
    unfinished = context / f"{TASK_NAME}.new"
    _write_json(unfinished, document)
    unfinished.rename(context / TASK_NAME)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _copy_files(
    context: Path, order: RunAttempt, check_stopped: Callable[[], object]
) -> Iterator[str]:
    """Copy what is handed over; yield what was left out."""
    for dependency in order.dependencies:
        target = context / "files" / dependency.subtask_id
        source = Path(dependency.output_dir)
        for path in copy_tree(source, target, check_stopped):
            yield str(path)
        (target / RESULT_NAME).unlink(missing_ok=True)  # in previous_results.json
    if order.inputs_dir is not None:
        source = Path(order.inputs_dir)
        for path in copy_tree(source, context / "inputs", check_stopped):
            yield str(path)


def copy_tree(
    source: Path,
    target: Path,
    check_stopped: Callable[[], object] = lambda: None,
) -> Iterator[Path]:
    """Copy a folder of unknown making; yield each path that is left out.

    Links that stay inside are kept as links; those that lead outside are left out, and
    so are FIFOs, sockets and devices, which would block or never end.
    """
    inside = source.resolve()
    for folder, names, file_names in os.walk(inside, onerror=_raise):
        here = Path(folder)
        copied_here = target / here.relative_to(inside)
        copied_here.mkdir(parents=True, exist_ok=True)
        for name in sorted([*names, *file_names]):
            check_stopped()
            path = here / name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if stat.S_ISREG(mode):
                shutil.copy(path, copied_here / name)
            elif not (stat.S_ISLNK(mode) and _copy_link(path, copied_here, inside)):
                yield source / path.relative_to(inside)


def _copy_link(link: Path, folder: Path, inside: Path) -> bool:
    try:
        aim = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, before 3.13
        return False
    if not aim.is_relative_to(inside):
        return False
    (folder / link.name).symlink_to(os.path.relpath(aim, link.parent))
    return True


def _raise(error: OSError) -> None:
    raise error


def _listed(root: Path) -> Iterator[ContextFile]:
    for name in ("files", "inputs"):
        for path in sorted((root / "context" / name).rglob("*")):
            if path.is_file():
                relative = path.relative_to(root).as_posix()
                yield ContextFile(relative, path.stat().st_size)
