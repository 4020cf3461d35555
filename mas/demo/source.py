"""Which table the demo works on: the bundled one, or a file that is looked at first."""

from pathlib import Path

from mas.demo.programs.read_csv import NotATableError, read_file, read_records
from mas.errors import UsageError

BUNDLED = Path(__file__).parent / "data" / "penguins.csv"
"""See SOURCE.md beside it."""


def check_table(path: Path) -> None:
    """Raise UsageError where ``path`` is no CSV that the demo can work on."""
    try:
        _check_path(path)
        text, _ = read_file(path)
        read_records(text)
    except NotATableError as error:
        raise UsageError(f"{_shown(path)} {error}", hint=error.hint) from None
    except OSError as error:
        raise UsageError(
            f"{_shown(path)} cannot be read: {error.strerror or error}",
            hint="check the path and its permissions",
        ) from error


def _check_path(path: Path) -> None:
    hint = "give a CSV file, or none for the bundled table"
    if not path.exists():
        raise UsageError(f"{_shown(path)}: no such file", hint=hint)
    if path.is_dir():
        raise UsageError(f"{_shown(path)} is a folder", hint=hint)
    if not path.is_file():
        raise UsageError(f"{_shown(path)} is not a regular file", hint=hint)
    if _shown(path) != str(path):
        # It goes into the plan, which is JSON, and into PostgreSQL.
        raise UsageError(
            f"the name {_shown(path)} is not UTF-8", hint="rename the file"
        )


def _shown(path: Path) -> str:
    return str(path).encode(errors="replace").decode()
