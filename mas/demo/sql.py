"""The statements that the demo's agents send to PostgreSQL. Pure.

Names of columns come from a file: they are quoted, always.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NUMERIC = ("bigint", "double precision")

Column = Mapping[str, Any]
"""A column as ``type_columns`` describes it: label, name and type."""


def quoted(name: str) -> str:
    """A name as an identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a value."""
    return "'" + text.replace("'", "''") + "'"


def drop(table: str) -> str:
    return f"DROP TABLE IF EXISTS {quoted(table)}, {_parts(table)}"


def create(table: str, columns: Iterable[Column]) -> str:
    fields = ",\n".join(
        f"  {quoted(column['name'])} {column['type']}" for column in columns
    )
    return f"CREATE TABLE IF NOT EXISTS {quoted(table)} (\n{fields}\n)"


def create_parts(table: str) -> str:
    """A table of the parts whose rows are in ``table``."""
    return f"CREATE TABLE IF NOT EXISTS {_parts(table)} (number integer PRIMARY KEY)"


def insert(table: str, columns: Iterable[Column]) -> str:
    """Two parameters: the rows as JSON, an array of arrays; and which part they are.

    A part that is there already is not inserted again. As json, not jsonb: that one
    turns numbers into numeric on the way.
    """
    fields = ",\n".join(
        f"  (row->>{at})::{column['type']}" for at, column in enumerate(columns)
    )
    return (
        f"WITH fresh AS (\n  INSERT INTO {_parts(table)} VALUES ($2)\n"
        "  ON CONFLICT DO NOTHING RETURNING number\n)\n"
        f"INSERT INTO {quoted(table)}\nSELECT\n{fields}\n"
        "FROM fresh, json_array_elements($1::text::json) AS row"
    )


def _parts(table: str) -> str:
    # No table of a file has a blank in its name.
    return quoted(f"parts of {table}")


def count(table: str) -> str:
    return f"SELECT count(*) AS rows FROM {quoted(table)}"


def profile(table: str, columns: Iterable[Column]) -> str:
    """A row a column: what is filled, how many values differ, and the commonest.

    For whole numbers, also how many there are from the lowest to the highest.
    """
    extent = "(max({0})::numeric - min({0}) + 1)::double precision"
    return "\nUNION ALL\n".join(
        _figures(
            table,
            column,
            "count({0}) AS filled, count(DISTINCT {0}) AS distinct, "
            "left((mode() WITHIN GROUP (ORDER BY {0}))::text, 40) AS most_common, "
            + (extent if column["type"] == "bigint" else "NULL::double precision")
            + " AS extent",
        )
        for column in columns
    )


def statistics(table: str, columns: Iterable[Column]) -> str:
    """A row a numeric column: mean, spread, quartiles and extremes."""
    quartiles = ", ".join(
        f"percentile_cont({fraction}) WITHIN GROUP (ORDER BY {{0}}) AS {name}"
        for fraction, name in ((0.25, "q1"), (0.5, "median"), (0.75, "q3"))
    )
    figures = (
        "count({0}) AS filled, avg({0})::double precision AS mean, "
        "stddev_samp({0})::double precision AS stddev, "
        "min({0})::double precision AS lowest, " + quartiles + ", "
        "max({0})::double precision AS highest"
    )
    return "\nUNION ALL\n".join(_figures(table, column, figures) for column in columns)


def outliers(table: str, columns: Iterable[Column]) -> str:
    """A row a numeric column: Tukey's fences, and how many values lie outside."""
    return "\nUNION ALL\n".join(
        f"SELECT {literal(column['name'])} AS column, low, high,\n"
        f"  (SELECT count(*) FROM {quoted(table)} "
        f"WHERE {name} < low OR {name} > high) AS outliers\n"
        "FROM (SELECT q[1] - 1.5 * (q[2] - q[1]) AS low, "
        "q[2] + 1.5 * (q[2] - q[1]) AS high\n"
        "  FROM (SELECT percentile_cont(ARRAY[0.25, 0.75]) "
        f"WITHIN GROUP (ORDER BY {name}) AS q\n  FROM {quoted(table)}))"
        for column in columns
        if (name := quoted(column["name"]))
    )


def means_by_group(
    table: str, group: str, measures: Sequence[str], *, most: int
) -> str:
    """A row a group, the largest first: its rows and the mean of each measure."""
    means = "".join(
        f",\n  avg({quoted(name)})::double precision AS mean_{at}"
        for at, name in enumerate(measures)
    )
    return (
        f"SELECT {quoted(group)}::text AS group, count(*) AS rows{means}\n"
        f"FROM {quoted(table)}\nWHERE {quoted(group)} IS NOT NULL\n"
        f"GROUP BY 1\nORDER BY 2 DESC, 1\nLIMIT {most}"
    )


def _figures(table: str, column: Column, figures: str) -> str:
    """One row: the column's name, and ``figures`` with {0} for the column itself."""
    return (
        f"SELECT {literal(column['name'])} AS column,\n  "
        f"{figures.replace('{0}', quoted(column['name']))}\nFROM {quoted(table)}"
    )
