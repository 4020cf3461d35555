"""``mas demo`` from end to end: real CLI, agents and servers, scripted model."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from mas.demo.source import BUNDLED
from tests.cli.command import Done, Mas
from tests.demo.workshop import Workshop

NO_KEY = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": ""}
DEAD_PROXY = dict.fromkeys(
    ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
)


def report_path(done: Done) -> Path:
    """The report, found as a person finds it: by what the command prints."""
    (path,) = (
        path
        for path in done.events[-1]["result"]["files"]
        if path.endswith("report.md")
    )
    return Path(path)


def report(done: Done) -> str:
    return report_path(done).read_text(encoding="utf-8")


def data(done: Done, key: str) -> dict[str, Any]:
    found: dict[str, Any] = done.events[-1]["result"]["subtasks"][key]["result"]["data"]
    return found


def test_the_bundled_table_is_analysed_without_a_key_or_a_network(mas: Mas) -> None:
    done = mas.run("demo", "--json", **NO_KEY, **DEAD_PROXY)
    assert done.code == 0, done.err
    events = done.events
    assert events[-1]["status"] == "completed"
    assert [event["type"] for event in events].count("attempt_finished") == 8
    agents = {
        event["agent_id"] for event in events if event["type"] == "attempt_started"
    }
    assert len(agents) >= 4
    (mass,) = (
        each
        for each in data(done, "statistics")["columns"]
        if each["column"] == "body_mass_g"
    )
    assert mass["mean"] == pytest.approx(4201.7544, abs=1e-4)
    assert "| body_mass_g | 4,201.8 |" in report(done)
    assert "was scripted" in report(done)
    assert "the model is scripted" in done.err
    assert "The model was scripted" in done.err.splitlines()[-1]


def test_a_file_of_ones_own_gets_its_own_figures(mas: Mas) -> None:
    path = mas.folder / "Meine Läden; neu.csv"
    rows = "".join(f"{'Bern' if at % 2 else 'Rom'};{at},5\n" for at in range(2_000))
    path.write_text(f"Ort;Umsatz\n{rows}", encoding="latin-1")
    (mas.folder / "mas.toml").write_text(
        '[agents.solo]\ncapabilities = ["web_scraping"]\n'
        "[limits]\nmax_subtasks = 1\n[claude]\nmax_turns = 1\n"
    )
    done = mas.run("demo", path.name, "--plain", **NO_KEY)
    assert done.code == 0, done.err
    assert "8 of 8 subtasks" in done.out
    folder = re.search(r"^files\s+(/.*)$", done.out, re.MULTILINE)
    assert folder is not None
    result = Path(folder[1], "statistics/output/result.json").read_bytes()
    (sales,) = json.loads(result)["data"]["columns"]
    assert (sales["column"], sales["filled"], sales["mean"]) == (
        "umsatz",
        2_000,
        1000.0,
    )
    text = Path(folder[1], "report/output/report.md").read_text(encoding="utf-8")
    assert "| Umsatz | 1,000 |" in text
    assert "| Bern | 1,000 | 1,000.5 |" in text


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(mas: Mas) -> None:
    done = mas.interrupted("demo", after="attempt_started")
    assert done.code == 130, done.err
    assert done.events[-1]["type"] == "task_suspended"


def test_killed_in_the_midst_and_resumed_it_ends_in_the_same_report(
    mas: Mas, workshop: Workshop
) -> None:
    cut = mas.stopped(
        signal.SIGKILL,
        "demo",
        when=lambda event: (
            event["type"] == "attempt_progress"
            and event["subtask_id"] == "load"
            and "INSERT" in event["activity"]
        ),
    )
    finished = {
        event["subtask_id"]
        for event in cut.events
        if event["type"] == "subtask_finished"
    }
    done = mas.run("resume", "-", "--json", **NO_KEY, **DEAD_PROXY)
    assert done.code == 0, done.err
    started = [
        (event["subtask_id"], event["attempt"])
        for event in done.events
        if event["type"] == "attempt_started"
    ]
    assert ("load", 2) in started
    assert not finished & {key for key, _ in started}
    quiet = workshop.analyse(BUNDLED.name, BUNDLED.read_bytes()).root / "report/output"
    made = report_path(done).parent
    names = sorted(path.name for path in quiet.iterdir())
    assert sorted(path.name for path in made.iterdir()) == names
    for name in names:
        assert (made / name).read_bytes() == (quiet / name).read_bytes(), name


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "is empty"), (b"a,b\n", "no rows")],
)
def test_what_is_no_table_is_refused_before_anything_starts(
    mas: Mas, content: bytes | None, words: str
) -> None:
    if content is not None:
        (mas.folder / "t.csv").write_bytes(content)
    done = mas.run("demo", "t.csv", MAS_HOME=str(mas.folder / "home"))
    assert done.code == 2
    error, hint = done.err.splitlines()
    assert words in error
    assert hint.startswith("hint: ")
    assert not (mas.folder / "home").exists()
