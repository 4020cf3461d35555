"""``--record`` and ``--replay``: what was recorded gives the same results, offline."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mas.testing import ScriptedClaude
from tests.cli.command import Done, Mas
from tests.scripts import diligent, scripted

KEY = "sk-ant-never-to-be-kept"
PAIR: tuple[dict[str, Any], ...] = (
    {"key": "first"},
    {"key": "second", "dependencies": ["first"]},
)


def recorded(mas: Mas, *arguments: str) -> Done:
    """A run of two subtasks, recorded in x.cassette; the first one prints the key."""
    command = f"echo {KEY}"
    conversations = {"first": diligent("first", command=command)}
    with ScriptedClaude(scripted(PAIR, conversations)) as claude:
        return mas.run(
            *("run", "a task", "--record", "x.cassette", "--json", *arguments),
            ANTHROPIC_BASE_URL=claude.url,
            ANTHROPIC_API_KEY=KEY,
        )


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def rewritten(
    path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    changed = change(lines(path))
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in changed)


def subtasks(done: Done) -> Any:
    """What each came to, but for where its files are."""
    found = done.events[-1]["result"]["subtasks"]
    return {key: value["result"] for key, value in found.items()}


def refused(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done.err
    for word in words:
        assert word in done.err


def test_a_recorded_run_gives_the_same_results_without_key_and_network(
    mas: Mas,
) -> None:
    (mas.folder / "table.csv").write_text("a,b\n1,2\n")
    done = recorded(mas, "--input", "table.csv")
    assert done.code == 0, done.err
    cassette = mas.folder / "x.cassette"
    assert KEY.encode() not in gzip.decompress(cassette.read_bytes())
    assert str(mas.folder).encode() not in gzip.decompress(cassette.read_bytes())
    (mas.folder / "table.csv").unlink()

    again = mas.run(
        *("run", "--replay", "x.cassette", "--json"),
        ANTHROPIC_API_KEY="",
        ANTHROPIC_BASE_URL="http://127.0.0.1:1",
    )
    assert again.code == 0, again.err
    assert subtasks(again) == subtasks(done)
    assert "warning" not in again.err
    assert again.events[-1]["result"]["usage"]["cost_usd"] == 0
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert (task["description"], task["status"]) == ("a task", "completed")


def test_a_run_that_is_not_the_recorded_one_says_where(mas: Mas) -> None:
    recorded(mas)
    cassette = mas.folder / "x.cassette"
    whole = cassette.read_bytes()

    def without_the_last_answer(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        *kept, _, end = found
        return [*kept, end | {"exchanges": len(kept) - 1}]

    rewritten(cassette, without_the_last_answer)
    done = mas.run("run", "--replay", "x.cassette")
    refused(done, 1, "not the one that was recorded", "second", "--record")

    cassette.write_bytes(whole)
    done = mas.run("run", "another task", "--replay", "x.cassette")
    refused(done, 2, "recording of another task: 'a task'", "hint: ")

    cassette.write_bytes(whole[: len(whole) // 2])
    refused(mas.run("run", "--replay", "x.cassette"), 2, "is cut off", "hint: ")

    refused(mas.run("run", "--replay", "y.cassette"), 2, "no recording y.cassette")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--replay", "x.cassette", "--record", "y.cassette"),
        ("--resume", "-", "--record", "y.cassette"),
        ("--resume", "-", "--replay", "x.cassette"),
    ],
)
def test_what_does_not_go_together(mas: Mas, arguments: tuple[str, ...]) -> None:
    refused(mas.run("run", *arguments), 2, f"with {arguments[0]} goes no", "hint: ")


def test_a_recording_that_cannot_be_written_starts_nothing(mas: Mas) -> None:
    done = mas.run("run", "a task", "--record", "nowhere/x.cassette")
    refused(done, 2, "nowhere/x.cassette cannot be written", "hint: ")
    done = mas.run("run", "a task", "--record", "x.cassette", ANTHROPIC_API_KEY="")
    refused(done, 3, "no credentials")
    assert list(mas.folder.glob("x.cassette*")) == []


def test_the_demo_is_recorded_and_replayed(mas: Mas) -> None:
    done = mas.run("demo", "--record", "demo.cassette", "--json")
    assert done.code == 0, done.err
    again = mas.run("run", "--replay", "demo.cassette", "--json")
    assert again.code == 0, again.err
    assert subtasks(again) == subtasks(done)
    reports = [
        (Path(each.events[-1]["result"]["files"][0])).parents[2]
        for each in (done, again)
    ]
    for name in ("report.md", "report.html", "chart.svg"):
        first, second = (folder / "report/output" / name for folder in reports)
        assert first.read_bytes() == second.read_bytes()
