"""Find the types of a table's columns, and cut the table into handy chunks.

Run in a workspace, with the delimiter of the file as argument, it takes the cells from
temp/cells.json, writes output/rows.csv and temp/chunk-N.json (rows as JSON, small
enough to look at), and prints the columns.
"""

import csv
import itertools
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

MAX_COLUMNS = 40
MAX_ROWS = 5_000
"""Of a longer table every n-th row is taken."""
CHUNK_CHARS = 24_000
"""A shell's output is cut after 30,000 characters."""
MAX_CHUNKS = 12
MAX_CELL_CHARS = 400
"""As JSON. With MAX_COLUMNS of them a row still fits into a chunk."""

MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none"))
"""What counts as no value, in any case."""

Cell = str | int | float | bool | None

_MAX_LABEL_CHARS = 80
_MAX_NAME_BYTES = 60  # PostgreSQL cuts names at 63
_SYSTEM_COLUMNS = frozenset(("tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"))

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?")
_COMMA_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(,[0-9]+)?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_LARGEST_INTEGER = 2**63 - 1
_LARGEST_NUMBER = 1e60  # the square of a sum of squares is still a float


@dataclass(frozen=True)
class Column:
    label: str
    """What the file calls it."""
    name: str
    """What it is called in SQL: lower-case letters, digits and _, unique."""
    type: str
    """Its type in PostgreSQL."""


def columns_and_cells(
    header: list[str], rows: list[list[str]], *, delimiter: str
) -> tuple[list[Column], list[list[Cell]]]:
    """Return the typed columns and, column by column, the cells in these types."""
    columns, cells = [], []
    for index, (label, name) in enumerate(zip(header, _names(header), strict=True)):
        kind, values = _typed([row[index] for row in rows], delimiter)
        label = " ".join(label.split())[:_MAX_LABEL_CHARS] or name
        columns.append(Column(label, name, kind))
        cells.append(values)
    return columns, cells


def _names(header: Iterable[str]) -> list[str]:
    names: list[str] = []
    for number, label in enumerate(header, start=1):
        base = name = sql_name(label) or f"column_{number}"
        for again in itertools.count(2):
            if name not in names and name not in _SYSTEM_COLUMNS:
                break
            name = f"{base}_{again}"
        names.append(name)
    return names


def sql_name(label: str) -> str:
    """A name that reads well in SQL, to be quoted; empty where the label has none."""
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", label).casefold())
    return name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore").strip("_")


def _typed(texts: list[str], delimiter: str) -> tuple[str, list[Cell]]:
    present = [text for text in texts if text.casefold() not in MISSING]
    readers = dict(_READERS)
    if delimiter != "," and _has_decimal_commas(present):
        readers["double precision"] = _comma_number
    for kind, read in readers.items() if present else ():
        try:
            values = {text: read(text) for text in present}
        except (ValueError, OverflowError):
            continue
        return kind, [values.get(text) for text in texts]
    return "text", [None if text.casefold() in MISSING else text for text in texts]


def _has_decimal_commas(texts: Iterable[str]) -> bool:
    # With three digits behind each comma they may as well stand between thousands.
    fractions = {text.partition(",")[2] for text in texts}
    return any(fraction and len(fraction) != 3 for fraction in fractions)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or abs(int(text)) > _LARGEST_INTEGER:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    # A whole number that is too large for one is a name, as 007 is.
    value = _integer(text) if _INTEGER.fullmatch(text) else float(text)
    if abs(value) > _LARGEST_NUMBER:
        raise ValueError(text)
    return float(value)


def _comma_number(text: str) -> float:
    if not _COMMA_NUMBER.fullmatch(text):
        raise ValueError(text)
    return _number(text.replace(",", "."))


def _boolean(text: str) -> bool:
    word = text.casefold()
    if word not in ("true", "yes", "false", "no"):
        raise ValueError(text)
    return word in ("true", "yes")


def _date(text: str) -> str:
    return date.fromisoformat(_moment_text(text)).isoformat()


def _timestamp(text: str) -> str:
    moment = datetime.fromisoformat(_moment_text(text))
    if moment.tzinfo:
        raise ValueError(text)
    return moment.isoformat(" ")


def _timestamptz(text: str) -> str:
    moment = datetime.fromisoformat(_moment_text(text))
    if not moment.tzinfo:
        raise ValueError(text)
    return moment.astimezone(UTC).isoformat(" ")


def _moment_text(text: str) -> str:
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    return text


_READERS: dict[str, Callable[[str], Cell]] = {
    "bigint": _integer,
    "double precision": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}
"""The first that reads every value of a column is its type; else it is text."""


def chunks(rows: list[list[Cell]]) -> tuple[list[str], int, int]:
    """Return rows as JSON arrays in chunks, every how many-th row, and cells cut."""
    step = max(1, math.ceil(len(rows) / MAX_ROWS))
    room = MAX_CHUNKS * CHUNK_CHARS
    while True:
        encoded, cut = _encoded(rows[::step])
        packed = _packed(encoded)
        if len(packed) <= MAX_CHUNKS:
            return packed, step, cut
        size = sum(map(len, encoded))
        step = max(step + 1, math.ceil(step * size / room))


def _encoded(rows: Iterable[list[Cell]]) -> tuple[list[str], int]:
    cut = 0
    encoded = []
    for row in rows:
        cells = [_shortened(cell) for cell in row]
        cut += sum(before != after for before, after in zip(row, cells, strict=True))
        encoded.append(_json(cells))
    return encoded, cut


def _packed(encoded: list[str]) -> list[str]:
    packed: list[list[str]] = [[]]
    size = 0
    for row in encoded:
        size += len(row) + 2
        if size > CHUNK_CHARS and packed[-1]:
            packed.append([])
            size = len(row) + 2
        packed[-1].append(row)
    return ["[" + ",\n".join(rows) + "]" for rows in packed]


def _shortened(cell: Cell) -> Cell:
    if not isinstance(cell, str) or len(_json(cell)) <= MAX_CELL_CHARS:
        return cell
    while len(_json(cell + "…")) > MAX_CELL_CHARS:
        cell = cell[: len(cell) * 3 // 4]
    return cell + "…"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main() -> None:
    header, *texts = json.loads(Path("temp/cells.json").read_text(encoding="utf-8"))
    columns, cells = columns_and_cells(header, texts, delimiter=sys.argv[1])
    used = columns[:MAX_COLUMNS]
    rows = [list(row) for row in zip(*cells[:MAX_COLUMNS], strict=True)]
    packed, step, cut = chunks(rows)
    for number, chunk in enumerate(packed, start=1):
        Path(f"temp/chunk-{number}.json").write_text(chunk, encoding="utf-8")
    kept = [row for chunk in packed for row in json.loads(chunk)]
    with Path("output/rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([[column.name for column in used], *kept])
    found = {
        "rows_taken": len(kept),
        "every_nth_row": step,
        "cells_cut": cut,
        "chunks": len(packed),
        "columns": [asdict(column) for column in used],
    }
    sys.stdout.buffer.write(_json(found).encode())


if __name__ == "__main__":
    main()
