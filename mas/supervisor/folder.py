"""The task's folder below SHARED_FILES_PATH, and what is asked before it is made."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mas.config import Config
from mas.errors import NotReadyError, UsageError

MAX_TASK_BYTES = 100_000
INPUTS_FOLDER = ".inputs"
"""In the task's folder; no subtask's folder starts with a dot."""


def check_request(description: str, inputs: Sequence[Path]) -> None:
    """Raise for a task that cannot be meant."""
    size = len(description.encode(errors="replace"))
    if not description.strip():
        raise UsageError("the task is empty", hint='say what to do: mas run "…"')
    if size > MAX_TASK_BYTES:
        raise UsageError(
            f"the task has {size} bytes, the limit is {MAX_TASK_BYTES}",
            hint="put long material into a file and hand it over with --input",
        )
    if not is_text(description):
        raise UsageError("the task is not UTF-8 text", hint="check what was typed")
    if "\0" in description:
        raise UsageError("the task holds a NUL character", hint="take it out")
    _check_inputs(inputs)


def check_ready(config: Config, *, asks_claude: bool) -> None:
    """Raise where no agent could work: without credentials, or a place for files.

    ``asks_claude``: Claude itself answers, not a script or a recording.
    """
    if asks_claude and not config.credentials.found:
        raise NotReadyError(
            "no credentials for Claude were found",
            hint="set ANTHROPIC_API_KEY, or see mas work without one: mas demo",
        )
    _check_writable(config.files.path)


def is_text(text: str) -> bool:
    """Whether it came as UTF-8: what did not is kept as lone surrogates."""
    return text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text)


def copy_inputs(inputs: Sequence[Path], folder: Path) -> None:
    """Copy the user's files below the task's folder, so that they stay as they are."""
    try:
        target = folder / INPUTS_FOLDER
        (target if inputs else folder).mkdir(parents=True)
        for path in inputs:
            if path.is_dir():
                shutil.copytree(path, target / path.name, ignore=_unfit(folder.parent))
            else:
                shutil.copy2(path, target / path.name)
    except (OSError, shutil.Error) as error:
        remove_folder(folder)
        first = error.args[0][0] if isinstance(error, shutil.Error) else (error,)
        raise NotReadyError(
            f"the inputs could not be copied: {first[-1]}",
            hint=f"check the space in {folder.parent} and that they can be read",
        ) from error


def remove_folder(folder: Path) -> None:
    """Remove the folder of a task that was not recorded."""
    shutil.rmtree(folder, ignore_errors=True)


def _unfit(shared: Path) -> Callable[[str, list[str]], list[str]]:
    """What is left out of a folder: what would not end, and what is no file.

    That is the shared folder itself, links that go up, links that go nowhere, and
    pipes, sockets and devices.
    """

    def is_unfit(path: Path) -> bool:
        if path == shared or not (path.is_file() or path.is_dir()):
            return True
        return path.is_symlink() and path.parent.is_relative_to(path.resolve())

    def ignore(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if is_unfit(Path(folder, name))]

    return ignore


def _check_inputs(inputs: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for path in inputs:
        if not path.exists():
            raise UsageError(f"--input {path}: no such file", hint="check the path")
        if not (path.is_file() or path.is_dir()):
            raise UsageError(
                f"--input {path}: neither a file nor a folder", hint="check the path"
            )
        if not is_text(path.name):
            raise UsageError("--input: a name is not UTF-8 text", hint="rename it")
        if not path.name:
            raise UsageError(f"--input {path}: it has no name", hint="give its parts")
        try:
            if path.is_dir():
                next(path.iterdir(), None)
            else:
                with path.open("rb") as file:
                    file.read(1)
        except OSError as error:
            raise UsageError(
                f"--input {path} cannot be read: {error.strerror}",
                hint="check its permissions",
            ) from error
        if path.name in names:
            raise UsageError(
                f"--input {path} and {names[path.name]} have the same name",
                hint="rename one of them",
            )
        names[path.name] = path


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NotReadyError(
            f"the shared folder {folder} cannot be written: {error.strerror or error}",
            hint="choose another one with SHARED_FILES_PATH or files.path in mas.toml",
        ) from error
