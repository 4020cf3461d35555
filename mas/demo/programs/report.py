"""Put the report together: what the other subtasks found, in sentences and tables.

Run in a workspace it takes their results from context/, writes the report, block by
block, to temp/blocks.json, and prints what strikes first and whether all agrees.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_PAIRS = 10
TOLERANCE = 1e-9
"""How far two ways to the same mean may be apart, of the largest value."""

SCRIPTED = (
    "The model behind this report was scripted: no language model was asked, no token "
    "was used, and these sentences were written beforehand. Every figure was computed "
    "from {file} during this run, by the subtasks named below."
)
MEANS = {
    "inspect": "Python",
    "load": "Python, then SQL on PostgreSQL",
    "profile": "SQL on PostgreSQL; shares the columns' roles through Redis",
    "statistics": "SQL on PostgreSQL, with the shared roles",
    "outliers": "SQL on PostgreSQL",
    "correlation": "Python; shares its pairs through Redis",
    "chart": "Python, with the shared roles and pairs",
}
"""How each subtask comes to its figures."""

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_MEASURED = ("measure", "constant")
_FIGURES = ("mean", "stddev", "lowest", "q1", "median", "q3", "highest")

Data = dict[str, Any]
Block = tuple[str, Any]
"""What it is (heading, paragraph, points, table, picture), and what it says."""


def number(value: float | None) -> str:
    """A figure to read: no more digits than say something."""
    if value is None:
        return "-"
    size = abs(value)
    if value == int(value) and size < 1e15:
        return f"{int(value):,}"
    if size >= 1e15 or size < 1e-4:
        return f"{value:.4g}"
    return f"{value:,.{1 if size >= 1000 else 2 if size >= 1 else 4}f}"


class Report:
    """The report on ``results``, which are those of all other subtasks, by id."""

    def __init__(self, results: dict[str, Data]) -> None:
        found = {key: each["result"]["data"] for key, each in results.items()}
        self.summaries = {key: results[key]["result"]["summary"] for key in results}
        self.inspected: Data = found["inspect"]
        self.loaded: Data = found["load"]
        self.profile: Data = found["profile"]
        self.statistics: Data = found["statistics"]
        self.outliers: Data = {it["column"]: it for it in found["outliers"]["columns"]}
        self.correlation: Data = found["correlation"]
        self.chart: Data = found["chart"]
        self.columns: dict[str, Data] = {
            it["name"]: it for it in self.loaded["columns"]
        }
        self.measures = [
            each["column"]
            for each in self.profile["columns"]
            if each["role"] in _MEASURED and each["column"] in self.outliers
        ]
        """The numeric columns whose numbers are more than names."""

    def label(self, name: str) -> str:
        """What the file calls a column."""
        return str(self.columns[name]["label"])

    def blocks(self) -> Iterator[Block]:
        """The whole report, from top to bottom."""
        yield "heading", f"What {self.loaded['file']} holds"
        yield "paragraph", SCRIPTED.format(file=self.loaded["file"])
        yield "points", list(self.findings())
        yield from self._file()
        yield from self._columns()
        yield from self._statistics()
        yield from self._groups()
        yield from self._relations()
        yield "heading", "Pictures"
        for file in self.chart["files"]:
            yield "picture", file
        yield "heading", "Who found what"
        rows = [(key, MEANS[key], self.summaries[key]) for key in MEANS]
        yield "table", [("subtask", "by means of", "result"), *rows]
        yield "heading", "Checked twice"
        yield "points", [words for _, words in self.checks()]

    def findings(self) -> Iterator[str]:
        """What strikes first, in a sentence each."""
        rows, width = self.loaded["rows_in_table"], len(self.columns)
        missing = sum(rows - column["filled"] for column in self.profile["columns"])
        yield (
            f"{number(rows)} rows and {number(width)} columns; {number(missing)} of "
            f"{number(rows * width)} cells are missing."
        )
        if difference := self._largest_difference():
            measure, low, high = difference
            yield (
                f"Between the groups of {self.label(self.statistics['group'])}, "
                f"{self.label(measure)} differs most: its mean is "
                f"{number(low['means'][measure])} for {low['group']} and "
                f"{number(high['means'][measure])} for {high['group']}."
            )
        for pair in self.correlation["pairs"]:
            if [pair["a"], pair["b"]] == self.chart["pair"]:
                yield (
                    "The strongest correlation of two measures is that of "
                    f"{self.label(pair['a'])} and {self.label(pair['b'])}: "
                    f"r = {pair['r']:.3f} over {number(pair['rows'])} rows."
                )
        outside = sum(self.outliers[name]["outliers"] for name in self.measures)
        if outside:
            yield f"{number(outside)} outliers lie far from the rest of their columns."
        elif self.measures:
            yield "No outlier lies far from the rest of its column."

    def _largest_difference(self) -> tuple[str, Data, Data] | None:
        """The measure in which groups differ most, with the two groups that do."""
        deviations = {it["column"]: it["stddev"] for it in self.statistics["columns"]}
        found: list[tuple[float, str, Data, Data]] = []
        for measure in self.statistics["measures"]:
            groups = [
                group
                for group in self.statistics["groups"]
                if group["means"][measure] is not None
            ]
            if len(groups) > 1 and deviations[measure]:
                groups.sort(key=lambda group: group["means"][measure])
                low, high = groups[0], groups[-1]
                distance = high["means"][measure] - low["means"][measure]
                found.append((distance / deviations[measure], measure, low, high))
        if not found:
            return None
        return max(found, key=lambda it: it[0])[1:]

    def _file(self) -> Iterator[Block]:
        yield "heading", "The file"
        facts = {
            "file": self.loaded["file"],
            "size": f"{number(self.inspected['bytes'])} bytes",
            "SHA-256": self.inspected["sha256"],
            "encoding": self.loaded["encoding"],
            "delimiter": _DELIMITERS[self.loaded["delimiter"]],
            "rows in the file": number(self.loaded["rows_in_file"]),
            "rows in PostgreSQL": number(self.loaded["rows_in_table"]),
        }
        yield "table", [("what", "is"), *facts.items()]
        yield (
            "paragraph",
            "The first line is taken for the header. What is empty, NA, N/A, #N/A, "
            "NaN, null or None counts as missing.",
        )
        if notes := list(self._notes()):
            yield "points", notes

    def _notes(self) -> Iterator[str]:
        """What of the file is not in the figures."""
        loaded, used = self.loaded, len(self.columns)
        if loaded["every_nth_row"] > 1:
            yield (
                "Rows reach PostgreSQL through the model, so of a large file the demo "
                f"takes one row in {loaded['every_nth_row']}: "
                f"{number(loaded['rows_taken'])} of {number(loaded['rows_in_file'])}. "
                "All figures here are about those."
            )
        if loaded["columns_in_file"] > used:
            yield (
                f"Only the first {used} of {number(loaded['columns_in_file'])} columns "
                "are taken."
            )
        if loaded["ragged_rows"]:
            yield (
                f"{number(loaded['ragged_rows'])} rows have more cells than the header "
                "or fewer. What is too much is left out, what is short is missing."
            )
        if loaded["cells_cut"]:
            yield f"{number(loaded['cells_cut'])} cells are long texts, and are cut."

    def _columns(self) -> Iterator[Block]:
        rows = self.loaded["rows_in_table"]
        yield "heading", "The columns"
        header = ("column", "type", "role", "filled", "missing", "distinct")
        lines = [
            (
                self.label(each["column"]),
                self.columns[each["column"]]["type"],
                each["role"],
                number(each["filled"]),
                number(rows - each["filled"]),
                number(each["distinct"]),
                each["most_common"] or "-",
            )
            for each in self.profile["columns"]
        ]
        yield "table", [(*header, "most frequent"), *lines]

    def _statistics(self) -> Iterator[Block]:
        yield "heading", "Statistics"
        if not self.measures:
            yield "paragraph", "No column holds measures."
            return
        lines = [
            (
                self.label(each["column"]),
                *(number(each[name]) for name in _FIGURES),
                number(self.outliers[each["column"]]["outliers"]),
            )
            for each in self.statistics["columns"]
            if each["column"] in self.measures
        ]
        yield "table", [("column", *_FIGURES, "outliers"), *lines]
        yield (
            "paragraph",
            "Outliers lie further below the first quartile or above the third than 1.5 "
            "times the distance between the two.",
        )

    def _groups(self) -> Iterator[Block]:
        group, measures = self.statistics["group"], self.statistics["measures"]
        if not group or not measures:
            return
        yield "heading", f"Means by {self.label(group)}"
        lines = [
            (
                each["group"],
                number(each["rows"]),
                *(number(each["means"][name]) for name in measures),
            )
            for each in self.statistics["groups"]
        ]
        yield "table", [(self.label(group), "rows", *map(self.label, measures)), *lines]

    def _relations(self) -> Iterator[Block]:
        yield "heading", "Correlations"
        lines = [
            (
                self.label(pair["a"]),
                self.label(pair["b"]),
                f"{pair['r']:.3f}",
                number(pair["rows"]),
            )
            for pair in self.correlation["pairs"]
            if pair["a"] in self.measures and pair["b"] in self.measures
        ]
        if lines:
            yield (
                "table",
                [("column", "column", "Pearson's r", "rows"), *lines[:MAX_PAIRS]],
            )
        else:
            yield "paragraph", "No two columns can be compared."

    def checks(self) -> Iterator[tuple[bool, str]]:
        """What was found in two ways, and whether both say the same."""
        taken, counted = self.loaded["rows_taken"], self.loaded["rows_in_table"]
        yield (
            taken == counted,
            f"Rows handed over by Python: {number(taken)}. "
            f"Rows counted by PostgreSQL: {number(counted)}.",
        )
        by_python = self.correlation["means"]
        if not by_python:
            return
        apart = []
        for each in self.statistics["columns"]:
            if each["mean"] is not None:
                difference = abs(each["mean"] - by_python[each["column"]])
                size = max(abs(each["lowest"]), abs(each["highest"]))
                if difference > TOLERANCE * size:
                    apart.append(self.label(each["column"]))
        words = f"differ for {', '.join(apart)}" if apart else "agree for every column"
        yield not apart, f"The means by PostgreSQL and by Python {words}."


def main() -> None:
    report = Report(json.loads(Path("context/previous_results.json").read_bytes()))
    content = json.dumps(list(report.blocks()))
    Path("temp/blocks.json").write_text(content, encoding="utf-8")
    checks = list(report.checks())
    told = {
        "findings": list(report.findings()),
        "checks": [words for _, words in checks],
        "checks_passed": all(passed for passed, _ in checks),
    }
    sys.stdout.buffer.write(json.dumps(told).encode())


if __name__ == "__main__":
    main()
