"""Correlate each numeric column of a table with each other one.

Run in a workspace it takes output/rows.csv and the columns of the subtask "load" from
context/ and prints the means and the pairs, the strongest first.
"""

import csv
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_COLUMNS = 12
MAX_PAIRS = 20
MIN_ROWS = 3

NUMERIC = ("bigint", "double precision")


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    r: float
    """Pearson's coefficient, -1 to 1."""
    rows: int
    """Rows that have both values."""


def means(columns: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Return the mean of each column that has a value."""
    filled = {
        name: [value for value in values if value is not None]
        for name, values in columns.items()
    }
    return {name: statistics.fmean(values) for name, values in filled.items() if values}


def pairs(columns: Mapping[str, Sequence[float | None]]) -> list[Pair]:
    """Return every pair that has a coefficient, the strongest first."""
    found = []
    for a, b in itertools.combinations(columns, 2):
        both = [
            (x, y)
            for x, y in zip(columns[a], columns[b], strict=True)
            if x is not None and y is not None
        ]
        if len(both) < MIN_ROWS:
            continue
        try:
            r = statistics.correlation(*zip(*both, strict=True))
        except statistics.StatisticsError:
            continue  # one of them is constant
        found.append(Pair(a, b, r, len(both)))
    return sorted(found, key=lambda pair: (-abs(pair.r), pair.a, pair.b))


def main() -> None:
    results = json.loads(Path("context/previous_results.json").read_bytes())
    described = results["load"]["result"]["data"]["columns"]
    numeric = [each["name"] for each in described if each["type"] in NUMERIC]
    columns: dict[str, list[float | None]] = {name: [] for name in numeric}
    with Path("context/files/load/rows.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name in numeric:
                columns[name].append(float(row[name]) if row[name] else None)
    compared = {name: columns[name] for name in numeric[:MAX_COLUMNS]}
    found = {
        "means": means(columns),
        "pairs": [asdict(pair) for pair in pairs(compared)[:MAX_PAIRS]],
        "columns_compared": len(compared),
    }
    sys.stdout.buffer.write(json.dumps(found).encode())


if __name__ == "__main__":
    main()
