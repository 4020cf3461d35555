"""The script on tables of all makings: real programs, real PostgreSQL, no CLI."""

import csv
import io
import json
import statistics
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mas.demo.programs.type_columns import MAX_COLUMNS, MAX_ROWS
from mas.demo.source import BUNDLED
from tests.demo.workshop import Workshop


def lines(*rows: str) -> bytes:
    return "\n".join(rows).encode() + b"\n"


def test_the_figures_of_the_bundled_table_are_those_of_the_paper(
    workshop: Workshop,
) -> None:
    found = workshop.analyse("penguins.csv", BUNDLED.read_bytes())
    assert found.data("load")["rows_in_table"] == 344
    assert found.column("profile", "sex")["filled"] == 333
    mass = found.column("statistics", "body_mass_g")
    assert round(mass["mean"], 2) == 4201.75
    assert (mass["lowest"], mass["median"], mass["highest"]) == (2700, 4050, 6300)
    groups = {it["group"]: it for it in found.data("statistics")["groups"]}
    assert {name: it["rows"] for name, it in groups.items()} == {
        "Adelie": 152,
        "Gentoo": 124,
        "Chinstrap": 68,
    }
    assert round(groups["Gentoo"]["means"]["body_mass_g"]) == 5076
    strongest = found.data("correlation")["pairs"][0]
    assert (strongest["a"], strongest["b"]) == ("flipper_length_mm", "body_mass_g")
    assert round(strongest["r"], 4) == 0.8712
    assert found.data("chart")["files"] == ["chart.svg", "scatter.svg"]
    assert "| body_mass_g | 4,201.8 | 801.95 | 2,700 |" in found.report
    assert "was scripted" in found.report
    assert found.result("report")["data"]["checks_passed"] is True
    for name in ("report.md", "report.html", "chart.svg", "scatter.svg"):
        assert (found.root / "report/output" / name).is_file()


def test_sessions_killed_in_every_turn_come_to_the_same_report(
    workshop: Workshop,
) -> None:
    rows = [f"{number},{number % 7}.5,{'ab'[number % 2]}" for number in range(2_000)]
    content = lines("id,x,kind", *rows)
    quiet = workshop.analyse("t.csv", content)
    disturbed = workshop.analyse("t.csv", content, disturbed=True)
    files = sorted(path.name for path in (quiet.root / "report/output").iterdir())
    assert "report.md" in files
    for name in files:
        made = (disturbed.root / "report/output" / name).read_bytes()
        assert made == (quiet.root / "report/output" / name).read_bytes(), name


def test_other_figures_come_from_another_file(workshop: Workshop) -> None:
    found = workshop.analyse(
        "shops.csv", lines("city,turnover", "Bern,10.5", "Bern,20", "Rome,31.25")
    )
    assert found.column("statistics", "turnover")["mean"] == pytest.approx(61.75 / 3)
    groups = found.data("statistics")["groups"]
    assert [(it["group"], it["means"]["turnover"]) for it in groups] == [
        ("Bern", 15.25),
        ("Rome", 31.25),
    ]
    assert "20.58" in found.report and "15.25" in found.report
    assert "penguin" not in found.report


@pytest.mark.parametrize(
    ("content", "means"),
    [
        pytest.param(lines("a;b", "1,5;x", "2,25;y"), {"a": 1.875}, id="semicolons"),
        pytest.param(lines("a\tb", "1\t2", "3\t5"), {"a": 2, "b": 3.5}, id="tabs"),
        pytest.param(lines("a|b", "1|x", "2|y"), {"a": 1.5}, id="bars"),
        pytest.param(
            lines('select,"select","a ""q"" b",Größe in cm', "1,2,3,4", "3,2,1,0"),
            {"select": 2, "select_2": 2, "a_q_b": 2, "grösse_in_cm": 2},
            id="awkward names",
        ),
        pytest.param(
            lines("xmin,CTID,column,rows,group", "1,2,3,4,5", "2,3,4,5,6"),
            {"xmin_2": 1.5, "ctid_2": 2.5, "column": 3.5, "rows": 4.5, "group": 5.5},
            id="names that SQL has itself",
        ),
        pytest.param(lines("name,town", "Ann,Bern", "Bob,Rome"), {}, id="no number"),
        pytest.param(lines("x", "1", "2", "6"), {"x": 3}, id="one column"),
        pytest.param(
            lines("a,b,c", "1,,", "2,NA,null"), {"a": 1.5}, id="empty columns"
        ),
        pytest.param(lines("a,b", ",", "NA,null"), {}, id="nothing at all"),
        pytest.param(lines("a,b", "7,x"), {"a": 7}, id="one row"),
        pytest.param(
            lines("a,b", '1,"two\nlines"', '2,"a, ""b"""'),
            {"a": 1.5},
            id="line breaks in quotes",
        ),
        pytest.param(
            "\ufeffä,b\r\n1,é\r\n2,ü\r\n".encode(), {"ä": 1.5}, id="byte order mark"
        ),
        pytest.param("ä,b\n1,é\n2,ü\n".encode("latin-1"), {"ä": 1.5}, id="latin-1"),
        pytest.param("a\tb\n1\tü\n2\té\n".encode("utf-16"), {"a": 1.5}, id="utf-16"),
        pytest.param(
            lines(
                "day,at,zone,ok,big,tiny",
                "2024-02-29,2024-02-29 13:00,2024-02-29T13:00:00+02:00,yes,1e60,5e-324",
                "0001-01-01,9999-12-31T23:59:59.999999,1970-01-01T00:00:00Z,no,-1e60,1e-9",
            ),
            {"big": 0, "tiny": 5e-10},
            id="all types",
        ),
        pytest.param(
            lines("id,zip", "9223372036854775807,007", "-9223372036854775807,08"),
            {"id": 0},
            id="large numbers and leading zeros",
        ),
        pytest.param(
            lines("a,b", "1,<b>&amp;|`*[x](http://y)", "2,\x07\x1b[31m"),
            {"a": 1.5},
            id="markup and control characters",
        ),
    ],
)
def test_a_table_of_this_making_gets_its_figures(
    workshop: Workshop, content: bytes, means: dict[str, float]
) -> None:
    found = workshop.analyse("a table.csv", content)
    by_sql = {it["column"]: it["mean"] for it in found.data("statistics")["columns"]}
    assert by_sql == pytest.approx(means)
    assert found.data("correlation")["means"] == pytest.approx(means)
    assert found.result("report")["data"]["checks_passed"] is True


def test_labels_in_the_report_are_those_of_the_file(workshop: Workshop) -> None:
    found = workshop.analyse("t.csv", lines("Größe (cm),Größe (cm)", "1,3", "2,4"))
    assert "| Größe (cm) | 1.50 |" in found.report
    assert "| Größe (cm) | 3.50 |" in found.report


def test_a_file_cannot_write_markup_into_the_report(workshop: Workshop) -> None:
    found = workshop.analyse(
        "t.csv", lines("<script>x</script>,[a](b)|c", "1,x", "2,x", "3,y")
    )
    page = (found.root / "report/output/report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "[a](b)" not in found.report
    for name in ("chart.svg",):
        ElementTree.parse(found.root / "report/output" / name)


def test_of_a_long_table_every_nth_row_is_taken_and_the_report_says_so(
    workshop: Workshop,
) -> None:
    rows = [f"{number},{number % 7},{'ab'[number % 2]}" for number in range(50_000)]
    found = workshop.analyse("long.csv", lines("id,x,kind", *rows))
    loaded = found.data("load")
    assert loaded["rows_in_file"] == 50_000
    assert loaded["every_nth_row"] == 10
    assert loaded["rows_taken"] == loaded["rows_in_table"] == MAX_ROWS
    assert found.column("profile", "id")["role"] == "identifier"
    assert "one row in 10: 5,000 of 50,000" in found.report


def test_of_a_wide_table_the_first_columns_are_taken_and_long_texts_are_cut(
    workshop: Workshop,
) -> None:
    width = MAX_COLUMNS + 20
    header = ",".join(f"column with a long name {number}" for number in range(width))
    row = ",".join(f"{number} \N{SNOWMAN}\\" * 300 for number in range(width))
    found = workshop.analyse("wide.csv", lines(header, *[row] * 60))
    assert found.data("load")["columns_in_file"] == width
    assert len(found.data("load")["columns"]) == MAX_COLUMNS
    assert "Only the first 40 of 60 columns" in found.report
    assert "cells are long texts" in found.report


def test_rows_of_other_lengths_are_counted(workshop: Workshop) -> None:
    rows = ["1,2"] * 20
    found = workshop.analyse("t.csv", lines("a,b", *rows, "3", "4,5,6"))
    assert found.data("load")["ragged_rows"] == 2
    assert found.column("statistics", "a")["mean"] == pytest.approx(27 / 22)
    assert "2 rows have more cells" in found.report


def test_results_that_contradict_each_other_fail_the_report(workshop: Workshop) -> None:
    found = workshop.analyse("t.csv", lines("a", "1", "2"))
    path = found.root / "report/context/previous_results.json"
    results = json.loads(path.read_bytes())
    results["correlation"]["result"]["data"]["means"]["a"] = 1.25
    path.write_text(json.dumps(results), encoding="utf-8")
    workshop.play(found.root, "report", "t.csv", {})
    result = json.loads((found.root / "report/output/result.json").read_bytes())
    assert result["success"] is False
    assert "differ for a" in result["summary"]


def test_a_program_that_fails_becomes_a_result_that_says_why(
    workshop: Workshop,
) -> None:
    found = workshop.analyse("t.csv", lines("a", "1", "2"))
    (found.root / "correlation/context/files/load/rows.csv").unlink()
    last = workshop.play(found.root, "correlation", "t.csv", {})
    result = json.loads((found.root / "correlation/output/result.json").read_bytes())
    assert result["success"] is False
    assert "FileNotFoundError" in result["summary"]
    assert last == result["summary"]


cells = st.one_of(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["", "NA", "yes", "no", "1,5", "-0", ".", "e5", "1e9", "'", '"', "$1"]
    ),
)
tables = st.integers(2, 5).flatmap(
    lambda width: st.lists(
        st.lists(cells, min_size=width, max_size=width), min_size=2, max_size=8
    )
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables)
def test_whatever_the_cells_hold_the_report_agrees_with_itself(
    workshop: Workshop, table: list[list[str]]
) -> None:
    header, *rows = table
    # A name and a value in each line, so that it is a table whatever else is drawn.
    rows = [["name", *header], *(["row", *row] for row in rows)]
    content = io.StringIO(newline="")
    csv.writer(content).writerows(rows)
    found = workshop.analyse("t.csv", content.getvalue().encode())
    assert found.data("load")["rows_in_table"] == len(rows) - 1
    expected = _means(rows[1:], found.data("load")["columns"])
    assert found.data("correlation")["means"] == pytest.approx(expected)
    for picture in found.data("chart")["files"]:
        ElementTree.parse(found.root / "chart/output" / picture)


def _means(rows: list[list[str]], columns: list[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for at, column in enumerate(columns):
        if column["type"] in ("bigint", "double precision"):
            texts = [row[at].strip() for row in rows]
            filled = [float(text) for text in texts if text not in ("", "NA", "nan")]
            means[column["name"]] = statistics.fmean(filled)
    return means
