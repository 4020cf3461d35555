"""Bad input is one clear line, a hint and the right exit code; nothing has started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import Done, Mas


def told(done: Done, code: int, *words: str) -> None:
    first, second, *_ = done.err.splitlines()
    assert done.code == code
    assert first.startswith("mas: ") and second.startswith("hint: ")
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize("task", ["", "  \n "])
def test_an_empty_task(mas: Mas, task: str) -> None:
    told(mas.run("run", task), 2, "the task is empty")


def test_a_task_of_a_megabyte(mas: Mas) -> None:
    done = mas.run_with(b"x" * 2**20, "run", "-")
    told(done, 2, "the limit is 100000", "--input")


def test_a_task_on_stdin_that_is_no_text(mas: Mas) -> None:
    told(mas.run_with(b"\xff\xfe", "run", "-"), 2, "not UTF-8")


def test_no_credentials(mas: Mas) -> None:
    done = mas.run("run", "x", ANTHROPIC_API_KEY="")
    told(done, 3, "no credentials", "ANTHROPIC_API_KEY", "mas demo")


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[claude]\nmodle = 'x'\n", "claude.modle"),
        ("[claude]\nmax_turns = 'x'\n", "claude.max_turns"),
        ("[agents.a]\ncapabilities=['data_analysis']\n[agents.a]\n", "twice"),
        ("[agents.a]\ncapabilities = ['flying']\n", "unknown capability 'flying'"),
        (
            "[limits]\nbudget_usd = 0\n",
            "limits.budget_usd is 0; it must be more than 0",
        ),
        ("[prices.m]\ninput = -1\noutput = 1\n", "input is -1, which is no price"),
        ("[prices.m]\ninptu = 1\n", "unknown key prices.*.inptu"),
    ],
)
def test_a_faulty_configuration(mas: Mas, toml: str, key: str) -> None:
    (mas.folder / "mas.toml").write_text(toml)
    told(mas.run("run", "x"), 3, "mas.toml", key)


def test_a_port_of_the_gateway_that_is_taken(mas: Mas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (mas.folder / "mas.toml").write_text(f"[gateway]\nport = {port}\n")
        done = mas.run("run", "x")
    wrong, hint = done.err.splitlines()[-2:]
    assert done.code == 3
    assert wrong.startswith(f"mas: the gateway cannot listen on port {port}: ")
    assert hint.startswith("hint: choose another [gateway] port")
    assert "Traceback" not in done.err


def test_an_input_that_does_not_exist(mas: Mas) -> None:
    done = mas.run("run", "x", "--input", "nowhere.csv")
    told(done, 2, "nowhere.csv: no such file")


def test_two_inputs_of_one_name(mas: Mas, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("1")
    done = mas.run("run", "x", "--input", "a/x.csv", "--input", "b/x.csv")
    told(done, 2, "have the same name")


def test_a_task_that_is_no_text(mas: Mas) -> None:
    told(mas.run("run", os.fsdecode(b"a\xffb")), 2, "not UTF-8")


def test_an_input_without_a_name(mas: Mas) -> None:
    told(mas.run("run", "x", "--input", "/"), 2, "it has no name")


def test_an_input_that_cannot_be_read(mas: Mas) -> None:
    told(mas.run("run", "x", "--input", "/proc/self/mem"), 2, "cannot be read")


def test_an_input_that_is_no_file(mas: Mas, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told(mas.run("run", "x", "--input", "pipe"), 2, "neither a file nor a folder")


def test_a_shared_folder_that_cannot_be_written(mas: Mas) -> None:
    (mas.folder / "file").write_text("")
    done = mas.run("run", "x", SHARED_FILES_PATH=str(mas.folder / "file" / "below"))
    told(done, 3, "cannot be written", "SHARED_FILES_PATH")


@pytest.mark.parametrize(
    ("variable", "address", "where"),
    [
        ("DATABASE_URL", "postgresql://user:secret@127.0.0.1:9/x", "127.0.0.1"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:9/0", "127.0.0.1:9"),
    ],
)
def test_a_configured_server_that_does_not_answer(
    mas: Mas, variable: str, address: str, where: str
) -> None:
    for command in (
        ("run", "x"),
        ("tasks",) if "DATABASE" in variable else ("agents",),
    ):
        done = mas.run(*command, **{variable: address})
        assert done.code == 3
        assert where in done.err and "hint: " in done.err
        assert "secret" not in done.err


def test_an_unknown_task(mas: Mas) -> None:
    told(mas.run("show", "no-such-task"), 2, "no-such-task")


@pytest.mark.parametrize("arguments", [("rnu", "x"), ("run",), ("run", "x", "--fast")])
def test_a_command_line_that_cannot_be_meant(
    mas: Mas, arguments: tuple[str, ...]
) -> None:
    done = mas.run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_nothing_started_for_agents_alone(mas: Mas, tmp_path: Path) -> None:
    home = tmp_path / "another-home"
    done = mas.run("agents", MAS_HOME=str(home))
    assert done.code == 0
    assert "not running" in done.err
    assert not home.exists()
    assert mas.run("agents", "--json", MAS_HOME=str(home)).document == {"agents": []}


@pytest.mark.parametrize(
    ("closed", "tells"),
    [("<&-", True), ("2>&-", True), (">&-", False), ("<&- >&- 2>&-", False)],
)
def test_a_closed_stream_is_no_reason_to_fail(
    mas: Mas, closed: str, tells: bool
) -> None:
    command = f"exec {sys.executable} -m mas tasks --json {closed}"
    done = subprocess.run(
        ["sh", "-c", command], env=mas.environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b'{"tasks"') == tells


def test_doctor_says_what_is_missing_without_printing_the_key(mas: Mas) -> None:
    done = mas.run("doctor", ANTHROPIC_API_KEY="sk-very-secret")
    assert done.code == 0
    assert "sk-very-secret" not in done.out + done.err
    checks = mas.run("doctor", "--json", ANTHROPIC_API_KEY="").document["checks"]
    states = {check["name"]: check["state"] for check in checks}
    assert states["credentials"] == "wrong"
    assert states["Claude CLI"] == states["PostgreSQL"] == states["Redis"] == "ok"
    assert mas.run("doctor", ANTHROPIC_API_KEY="").code == 3
