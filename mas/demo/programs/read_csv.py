"""Read a CSV of unknown making: find its encoding and its delimiter.

Run in a workspace it takes the one file in context/inputs/, writes its cells to
temp/cells.json as text, and prints what it found.
"""

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 10 * 2**20

_DELIMITERS = ",;\t|"
_LOOKED_AT = 200
"""Records that decide about the delimiter."""
_AGREEMENT = 0.8

_COMMA_NUMBER = re.compile(r"[+-]?[0-9]+(,[0-9]+)?")
_CONTROLS = re.compile(r"[\x01-\x08\x0e-\x1f\x7f]")
_OTHER_FORMATS = ("{", "[{", "<!", "<?", "<html", "<svg", "%PDF")


class NotATableError(Exception):
    """The file is no table: the message says why, ``hint`` what would be one."""

    def __init__(
        self, message: str, hint: str = "a CSV has a header line and rows"
    ) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Records:
    """The cells of a file, as text, each row as long as the header."""

    delimiter: str
    header: list[str]
    rows: list[list[str]]
    ragged_rows: int
    """Rows that had too many cells, or too few."""


def read_file(path: Path) -> tuple[str, str]:
    """Return the text of a file and its encoding; NotATableError where it has none."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise NotATableError(
            f"has {size / 2**20:.1f} MiB; the demo reads up to {MAX_BYTES >> 20} MiB",
            "try a part of it: head -n 10000 FILE > part.csv",
        )
    return decode(path.read_bytes())


def decode(raw: bytes) -> tuple[str, str]:
    """Return the text of ``raw`` and its encoding; NotATableError where it has none."""
    text, encoding = _decoded(raw)
    if not text.strip():
        raise NotATableError("is empty")
    if "\0" in text or len(_CONTROLS.findall(text)) > len(text) / 20:
        raise NotATableError("is a binary file, not a CSV")
    if text.lstrip().startswith(_OTHER_FORMATS):
        raise NotATableError("is JSON, HTML or the like, not a CSV")
    return text, encoding


def _decoded(raw: bytes) -> tuple[str, str]:
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "cp1252"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text, "utf-8" if encoding == "utf-8-sig" else encoding
    return raw.decode("latin-1"), "latin-1"


def read_records(text: str) -> Records:
    """Return the header and the rows; NotATableError where they make no table."""
    try:
        delimiter = _delimiter(text)
        header, *rows = _cells(text, delimiter)
    except csv.Error as error:
        raise NotATableError(
            f"cannot be read as a CSV: {error}", "look for a quote that is not closed"
        ) from None
    if not rows:
        raise NotATableError("has a header line and no rows")
    width = len(header)
    while not header[width - 1] and not any(
        cell for row in rows for cell in row[width - 1 : width]
    ):
        width -= 1  # each line ends with a delimiter
    kept = [(row + [""] * width)[:width] for row in rows]
    ragged = sum(len(row) < width or any(row[width:]) for row in rows)
    return Records(delimiter, header[:width], kept, ragged)


def _cells(text: str, delimiter: str) -> Iterator[list[str]]:
    for record in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        cells = [cell.strip() for cell in record]
        if any(cells):
            yield cells


def _delimiter(text: str) -> str:
    """The delimiter that cuts most lines into as many cells as the header has."""
    looked_at = {
        delimiter: list(itertools.islice(_cells(text, delimiter), _LOOKED_AT))
        for delimiter in _DELIMITERS
    }
    if not all(looked_at.values()):
        raise NotATableError("holds nothing but delimiters")
    scores = {delimiter: _score(records) for delimiter, records in looked_at.items()}
    usable = {
        delimiter: (agreement, width)
        for delimiter, (agreement, width) in scores.items()
        if agreement >= _AGREEMENT and width > 1
    }
    if usable:
        return max(usable, key=lambda delimiter: usable[delimiter])
    if scores[","] == (1.0, 1):
        return ","
    if all(_COMMA_NUMBER.fullmatch(record[0]) for record in looked_at[";"][1:]):
        return ";"
    raise NotATableError(
        "is not a CSV: its lines have different numbers of cells, whether cut at "
        "commas, semicolons, tabs or bars"
    )


def _score(records: list[list[str]]) -> tuple[float, int]:
    """How many of the records are as wide as the first, and how wide that is."""
    width = len(records[0])
    alike = sum(len(record) >= width and not any(record[width:]) for record in records)
    return alike / len(records), width


def main() -> None:
    (path,) = Path("context/inputs").iterdir()
    text, encoding = read_file(path)
    records = read_records(text)
    cells = json.dumps([records.header, *records.rows])
    Path("temp/cells.json").write_text(cells, encoding="utf-8")
    found = {
        "file": path.name,
        "encoding": encoding,
        "delimiter": records.delimiter,
        "rows": len(records.rows),
        "columns": len(records.header),
        "ragged_rows": records.ragged_rows,
    }
    sys.stdout.buffer.write(json.dumps(found, ensure_ascii=False).encode())


if __name__ == "__main__":
    main()
