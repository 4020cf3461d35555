"""The dialogues in the middle: what is in the columns, by SQL and by Python."""

from typing import Any

from mas.demo import dialogue, roles, sql
from mas.demo.dialogue import Dialogue
from mas.testing import Request

ROLES_KEY = "column_roles"
PAIRS_KEY = "strongest_pairs"
PAIRS_SHARED = 10


def profile(request: Request) -> Dialogue:
    """Count what each column holds, decide what it is good for, and share that."""
    table, columns, step = yield from _loaded()
    rows = yield from dialogue.query(
        "What is in the columns? One statement tells.", sql.profile(table, columns)
    )
    by_name = {row["column"]: row for row in rows}
    profiles: dict[str, dict[str, Any]] = {}
    for column in columns:
        found = by_name[column["name"]]
        role = roles.role(column, found, step=step)
        profiles[column["name"]] = {**found, "role": role}
    shared = {
        "group": roles.best_group(columns, profiles),
        "measures": roles.measures(columns, profiles),
    }
    words = "I share which columns to group by and which to measure."
    yield from dialogue.share(words, ROLES_KEY, shared)
    summary = _of_roles([found["role"] for found in profiles.values()])
    data = {"columns": list(profiles.values()), **shared}
    yield from dialogue.hand_in(request, data=data, summary=summary)
    return summary


def statistics(request: Request) -> Dialogue:
    """Means, quartiles and extremes by SQL, and the means of each group."""
    results = yield from dialogue.previous_results()
    loaded = results["load"]
    chosen = yield from dialogue.shared(
        "Which columns did the profile choose?", ROLES_KEY, otherwise=results["profile"]
    )
    group, measures = chosen["group"], chosen["measures"]
    numeric = _numeric(loaded["columns"])
    figures, groups = [], []
    if numeric:
        figures = yield from dialogue.query(
            "The figures of every numeric column.",
            sql.statistics(loaded["table"], numeric),
        )
        figures = _in_order(figures, numeric)
    if group and measures:
        rows = yield from dialogue.query(
            f"And the means by {group}.",
            sql.means_by_group(loaded["table"], group, measures, most=roles.MAX_GROUPS),
        )
        groups = [
            {
                "group": row["group"],
                "rows": row["rows"],
                "means": {name: row[f"mean_{at}"] for at, name in enumerate(measures)},
            }
            for row in rows
        ]
    data = {"columns": figures, "group": group, "measures": measures, "groups": groups}
    summary = _of_statistics(figures, group, len(groups))
    yield from dialogue.hand_in(request, data=data, summary=summary)
    return summary


def outliers(request: Request) -> Dialogue:
    """Count by SQL what lies far outside the quartiles."""
    table, columns, _ = yield from _loaded()
    numeric = _numeric(columns)
    rows = []
    if numeric:
        rows = yield from dialogue.query(
            "What lies outside Tukey's fences?", sql.outliers(table, numeric)
        )
    outside = sum(row["outliers"] for row in rows)
    summary = f"{outside:,} outliers in {_count(len(numeric), 'numeric column')}."
    data = {"columns": _in_order(rows, numeric)}
    yield from dialogue.hand_in(request, data=data, summary=summary)
    return summary


def correlation(request: Request) -> Dialogue:
    """Correlate all pairs in Python, and share the strongest."""
    found = yield from dialogue.run(
        request, "I correlate the numeric columns with a program.", "correlate"
    )
    pairs = found["pairs"]
    words = "I share the strongest pairs, for the chart."
    yield from dialogue.share(words, PAIRS_KEY, pairs[:PAIRS_SHARED])
    summary = "No two numeric columns can be compared."
    if pairs:
        first = pairs[0]
        summary = (
            f"{_count(found['columns_compared'], 'numeric column')} compared; the "
            f"strongest correlation is that of {first['a']} and {first['b']}: "
            f"r = {first['r']:.3f}."
        )
    yield from dialogue.hand_in(request, data=found, summary=summary)
    return summary


def _loaded() -> dialogue.Step[tuple[str, list[dict[str, Any]], int]]:
    """The table that was loaded, its columns, and one row in how many was taken."""
    results = yield from dialogue.previous_results()
    loaded = results["load"]
    return loaded["table"], loaded["columns"], loaded["every_nth_row"]


def _numeric(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [column for column in columns if column["type"] in sql.NUMERIC]


def _in_order(
    rows: list[dict[str, Any]], columns: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as the columns stand in the file: UNION ALL promises no order."""
    by_name = {row["column"]: row for row in rows}
    return [by_name[column["name"]] for column in columns]


def _of_roles(found: list[str]) -> str:
    counts = {role: found.count(role) for role in dict.fromkeys(found)}
    told = ", ".join(f"{count} {role}" for role, count in counts.items())
    return f"{_count(len(found), 'column')} by their role: {told}."


def _of_statistics(
    figures: list[dict[str, Any]], group: str | None, groups: int
) -> str:
    told = [
        f"{row['column']} {row['mean']:.6g}"
        for row in figures
        if row["mean"] is not None
    ]
    if not told:
        return "No column is numeric, so there are no statistics."
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    by = f" Means by {group} for {_count(groups, 'group')}." if group and groups else ""
    return f"Means: {', '.join(told[:3])}{more}.{by}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
