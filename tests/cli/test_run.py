"""``mas run`` from end to end: real CLI, real agents, real servers, scripted Claude."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mas.keeper import Servers
from mas.model import Status
from mas.testing import Conversation, Fault, Request, Script, ScriptedClaude, tool_use
from tests.cli.command import Done, Mas
from tests.scripts import SIX, describes, diligent, result_json, scripted, six

ONE: tuple[dict[str, Any], ...] = ({"key": "only"},)
ONE_TRY = "[limits]\nmax_attempts = 1\n[claude]\nmax_turns = 3\n"


def play(mas: Mas, script: Script, *arguments: str, **environment: str) -> Done:
    with ScriptedClaude(script) as claude:
        done = mas.run(*arguments, ANTHROPIC_BASE_URL=claude.url, **environment)
        assert claude.errors == []
    return done


def spans(events: list[dict[str, Any]]) -> dict[str, tuple[datetime, datetime, str]]:
    """When each subtask's attempt ran, and on which agent."""
    started: dict[str, datetime] = {}
    found = {}
    for event in events:
        if event["type"] == "attempt_started":
            started[event["subtask_id"]] = datetime.fromisoformat(event["at"])
        elif event["type"] == "attempt_finished":
            key = event["subtask_id"]
            end = datetime.fromisoformat(event["at"])
            found[key] = (started[key], end, event["agent_id"])
    return found


def test_six_subtasks_run_to_completed_side_by_side(mas: Mas) -> None:
    done = play(mas, six(), "run", "make a report", "--json")
    assert done.code == 0
    events = done.events
    assert events[-1]["type"] == "task_finished"
    assert events[-1]["status"] == "completed"
    durable = [event["seq"] for event in events if "seq" in event]
    assert durable == list(range(1, len(durable) + 1))
    ran = spans(events)
    assert set(ran) == {task["key"] for task in SIX}
    for one, other in (("left", "right"), ("fetch", "aside")):
        assert ran[one][0] < ran[other][1] and ran[other][0] < ran[one][1]
        assert ran[one][2] != ran[other][2]
    files = events[-1]["result"]["files"]
    assert {Path(path).read_text() for path in files} == {
        f"{task['key']}\n" for task in SIX
    }
    shown = mas.run("show", "-", "--json").document
    assert shown["task"]["status"] == "completed"
    assert [task["status"] for task in shown["task"]["subtasks"]] == ["completed"] * 6
    by_id = {row["subtask_id"]: row for row in shown["subtask_results"]}
    folder = mas.folder / "shared_files" / events[0]["task_id"]
    for key, row in by_id.items():
        written = json.loads((folder / key / "output/result.json").read_text())
        assert row["output"] == written
        assert row["execution_time"] > 0
    left = {agent["pid"] for agent in mas.run("agents", "--json").document["agents"]}
    assert not left & {it["pid"] for it in events if it["type"] == "agent_ready"}


def test_five_agents_are_seen_from_another_shell(mas: Mas) -> None:
    with ScriptedClaude(six()) as claude:
        environment = {"ANTHROPIC_BASE_URL": claude.url}
        with mas.start("run", "x", "--json", **environment) as process:
            assert process.stdout is not None
            ready: set[int] = set()
            for line in process.stdout:
                event = json.loads(line)
                if event["type"] == "agent_ready":
                    ready.add(event["pid"])
                if len(ready) == 5:
                    break
            listed = mas.run("agents", "--json").document["agents"]
            [task, *_] = mas.run("tasks", "--json").document["tasks"]
            process.communicate(timeout=60)
            assert process.returncode == 0
    # What tests before this one killed is listed for a while.
    agents = [agent for agent in listed if agent["pid"] in ready]
    assert [agent["agent_id"] for agent in agents] == [
        f"agent_{n}" for n in range(1, 6)
    ]
    assert {"pid", "cpu_usage", "memory_usage", "last_heartbeat"} <= set(agents[0])
    assert (task["status"], task["owner_alive"]) == ("in_progress", True)


def test_results_and_files_are_handed_over(mas: Mas) -> None:
    (mas.folder / "sales.csv").write_text("region,sum\nnorth,3\n")
    first = diligent("first", command="cp context/inputs/sales.csv output/copy.csv")

    def look(request: Request) -> list[dict[str, Any]]:
        command = "cat context/files/first/first.txt context/files/first/copy.csv; "
        command += "cat context/previous_results.json context/inputs/sales.csv"
        return [tool_use("Bash", command=command)]

    def report(request: Request) -> list[dict[str, Any]]:
        path = f"{request.cwd}/output/result.json"
        seen = result_json(data={"seen": request.last_tool_result})
        return [tool_use("Write", file_path=path, content=seen)]

    second = Conversation(describes("second"), [look, report, "done"])
    plan = ({"key": "first"}, {"key": "second", "dependencies": ["first"]})
    script = scripted(plan, {"first": first, "second": second})
    done = play(mas, script, "run", "x", "--input", "sales.csv", "--json")
    assert done.code == 0
    results = done.events[-1]["result"]["subtasks"]
    seen = results["second"]["result"]["data"]["seen"]
    assert seen.startswith("first\n")
    assert seen.count("north,3") == 2
    assert "first is done" in seen


def test_a_folder_of_any_making_can_be_an_input(mas: Mas) -> None:
    folder = mas.folder / "given"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a.txt").write_text("A")
    (folder / "up").symlink_to(".")
    (folder / "nowhere").symlink_to("missing")
    os.mkfifo(folder / "pipe")
    look = diligent(
        "only", command="cd context/inputs/given && find . | sort; cd ../../.."
    )
    mas.folder = folder
    with ScriptedClaude(scripted(ONE, {"only": look})) as claude:
        done = mas.run("run", "x", "--input", ".", ANTHROPIC_BASE_URL=claude.url)
        said = {request.last_tool_result or "" for request in claude.requests}
    assert done.code == 0
    assert any(text.split() == [".", "./below", "./below/a.txt"] for text in said)


def test_without_a_terminal_each_change_is_a_line_and_the_result_is_on_stdout(
    mas: Mas,
) -> None:
    done = play(mas, scripted(ONE, {}), "run", "x")
    assert done.code == 0
    assert "only  started on agent_" in done.err
    assert "\x1b" not in done.out + done.err
    assert "only/output/only.txt" in done.out
    assert str(mas.folder / "shared_files") in done.out.replace("\n", "")


def test_a_subtask_without_result_fails_the_task_and_says_why(mas: Mas) -> None:
    (mas.folder / "mas.toml").write_text(ONE_TRY)
    lazy = Conversation(describes("only"), ["I am done."] * 9)
    with ScriptedClaude(scripted(ONE, {"only": lazy})) as claude:
        done = mas.run("run", "x", ANTHROPIC_BASE_URL=claude.url)
    assert done.code == 1
    assert "result.json" in done.out
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert task["status"] == Status.FAILED


def test_a_full_disk_never_counts_as_done(mas: Mas) -> None:
    """Writing to /dev/full fails as on a full disk."""
    (mas.folder / "mas.toml").write_text(ONE_TRY)
    path = "output/result.json"
    command = f"ln -s /dev/full {path} && echo '{result_json()}' > {path}"
    full = Conversation(
        describes("only"), [[tool_use("Bash", command=command)], *["done"] * 9]
    )
    with ScriptedClaude(scripted(ONE, {"only": full})) as claude:
        done = mas.run("run", "x", "--json", ANTHROPIC_BASE_URL=claude.url)
        told = [request.last_tool_result for request in claude.requests]
    assert any("No space left on device" in (text or "") for text in told)
    assert done.code == 1
    assert done.events[-1]["status"] == "failed"
    assert "output/result.json" in done.events[-1]["error"]


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_stops_everything_and_keeps_the_task(mas: Mas, times: int) -> None:
    slow = diligent("only", command="sleep 300")
    with ScriptedClaude(scripted(ONE, {"only": slow})) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        done = mas.interrupted("run", "x", after="attempt_progress", times=times)
    assert done.code == 130
    if times == 1:
        assert done.events[-1]["type"] == "task_suspended"
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert (task["status"], task["owner_alive"]) == ("interrupted", False)
    assert "interrupted" in mas.run("tasks").out


def test_a_reader_that_leaves_stops_the_run_and_keeps_the_task(mas: Mas) -> None:
    slow = diligent("only", command="sleep 300")
    with (
        ScriptedClaude(scripted(ONE, {"only": slow})) as claude,
        mas.start("run", "x", "--json", ANTHROPIC_BASE_URL=claude.url) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if json.loads(line)["type"] == "attempt_started":
                break
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(timeout=60) == 4
    assert said == ""
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert (task["status"], task["owner_alive"]) == ("interrupted", False)


def test_a_wrong_key_is_told_and_nothing_is_recorded(mas: Mas) -> None:
    before = mas.run("tasks", "--json").document
    with ScriptedClaude(six(), require_key="another") as claude:
        done = mas.run("run", "x", ANTHROPIC_BASE_URL=claude.url)
    assert done.code == 3
    assert "mas: Claude refused the credentials (401)" in done.err
    assert "hint: check ANTHROPIC_API_KEY" in done.err
    assert "test-key" not in done.out + done.err
    assert mas.run("tasks", "--json").document == before
    assert list((mas.folder / "shared_files").iterdir()) == []


def test_no_network_is_told(mas: Mas) -> None:
    done = mas.run("run", "x", ANTHROPIC_BASE_URL="http://127.0.0.1:9")
    assert done.code == 3
    assert "cannot be reached at http://127.0.0.1:9" in done.err
    assert "hint: check the network and ANTHROPIC_BASE_URL" in done.err


def test_a_bad_plan_twice_runs_as_one_subtask_with_a_warning(mas: Mas) -> None:
    script = Script(
        [
            Conversation(lambda request: request.wants_structured_output, ["?", "?"]),
            diligent("task"),
        ]
    )
    done = play(mas, script, "run", "x")
    assert done.code == 0
    assert "the task is one subtask" in done.err


def test_a_busy_claude_is_waited_for(mas: Mas) -> None:
    busy = diligent("only", before=(Fault.status(529, times=2),))
    assert play(mas, scripted(ONE, {"only": busy}), "run", "x").code == 0


def test_configured_servers_are_used_and_none_is_started(
    mas: Mas, servers: Servers, tmp_path: Path
) -> None:
    count = tool_use("mcp__mas__query_database", query="select count(*) from tasks")

    def report(request: Request) -> list[dict[str, Any]]:
        path = f"{request.cwd}/output/result.json"
        seen = result_json(data={"seen": request.last_tool_result})
        return [tool_use("Write", file_path=path, content=seen)]

    curious = Conversation(describes("only"), [[count], report, "done"])
    home = tmp_path / "home"
    mas.environment |= {
        "DATABASE_URL": servers.postgres_dsn,
        "REDIS_URL": servers.redis_url,
        "MAS_HOME": str(home),
    }
    done = play(mas, scripted(ONE, {"only": curious}), "run", "x", "--json")
    assert done.code == 0
    assert not (home / "servers").exists()
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert task["id"] == done.events[0]["task_id"]
    seen = done.events[-1]["result"]["subtasks"]["only"]["result"]["data"]["seen"]
    assert 'relation "tasks" does not exist' in seen or "permission denied" in seen
