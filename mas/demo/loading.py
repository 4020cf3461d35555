"""The dialogues at the beginning: which file it is, and its rows into PostgreSQL."""

import json
from pathlib import PurePath

from mas.demo import dialogue, sql
from mas.demo.dialogue import Dialogue, Step
from mas.demo.programs.type_columns import sql_name
from mas.testing import Request, tool_use


def inspect(request: Request) -> Dialogue:
    """Say which file it is, so that a reader of the report can tell."""
    facts = yield from dialogue.run(
        request, "I take the file's fingerprint with a small program.", "fingerprint"
    )
    summary = (
        f"{facts['file']} has {facts['bytes']:,} bytes in {facts['lines']:,} lines; "
        f"its SHA-256 begins with {facts['sha256'][:12]}."
    )
    yield from dialogue.hand_in(request, data=facts, summary=summary)
    return summary


def load(request: Request) -> Dialogue:
    """Read the CSV, type its columns and put its rows into a table."""
    read = yield from dialogue.run(
        request,
        "First I find out how the file is written: encoding, delimiter, header.",
        "read_csv",
    )
    typed = yield from dialogue.run(
        request,
        f"{read['rows']:,} rows of {read['columns']} columns. Now their types.",
        "type_columns",
        read["delimiter"],
    )
    columns = typed["columns"]
    table = sql_name(PurePath(read["file"]).stem) or "rows"
    yield from dialogue.query("I make the table anew.", sql.drop(table))
    yield from dialogue.query("Its columns.", sql.create(table, columns))
    yield from dialogue.query(
        "The rows come in parts; what is in is noted.", sql.create_parts(table)
    )
    yield from _insert(sql.insert(table, columns), typed["chunks"])
    [counted] = yield from dialogue.query(
        "All is sent. PostgreSQL must count the same.", sql.count(table)
    )
    data = {
        "table": table,
        "file": read["file"],
        "encoding": read["encoding"],
        "delimiter": read["delimiter"],
        "rows_in_file": read["rows"],
        "rows_taken": typed["rows_taken"],
        "rows_in_table": counted["rows"],
        "every_nth_row": typed["every_nth_row"],
        "columns_in_file": read["columns"],
        "ragged_rows": read["ragged_rows"],
        "cells_cut": typed["cells_cut"],
        "columns": columns,
    }
    summary = (
        f"{counted['rows']:,} of the {read['rows']:,} rows in {read['file']} are in "
        f"the table {table}, in {len(columns)} typed columns."
    )
    complete = counted["rows"] == typed["rows_taken"]
    yield from dialogue.hand_in(
        request, data=data, summary=summary, files=["rows.csv"], success=complete
    )
    return summary


def _insert(statement: str, chunks: int) -> Step[None]:
    """Insert chunk after chunk; while one goes into the table the next is read."""
    rows = yield from dialogue.bash("The first rows.", _show(1))
    for number in range(2, chunks + 1):
        _, rows = yield from dialogue.calls(
            f"Part {number - 1} of {chunks} goes into the table.",
            dialogue.query_block(statement, _checked(rows), number - 1),
            tool_use("Bash", command=_show(number)),
        )
    words = "The last rows go into the table."
    yield from dialogue.query(words, statement, _checked(rows), chunks)


def _show(number: int) -> str:
    return f"cat temp/chunk-{number}.json"


def _checked(rows: str) -> str:
    """The JSON alone, so that nothing else that a shell prints gets into the table."""
    return json.dumps(dialogue.parsed(rows), ensure_ascii=False)
