"""Whole attempts: the agent as a process, the real CLI, scripted Claude."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import pytest
from msgspec import Struct

from mas.agent.options import STOP_HOOK_BLOCK_CAP
from mas.model import FailureKind, Subtask
from mas.testing import (
    Conversation,
    Fault,
    Request,
    ScriptedClaude,
    Turn,
    TurnLike,
    text,
    tool_use,
)
from mas.wire.messages import (
    AttemptDone,
    Configure,
    Log,
    PreviousAttempt,
    Progress,
)
from tests.agent.harness import IMPATIENT, agent
from tests.agent.orders import a_configuration, an_order, result_json

pytestmark = pytest.mark.usefixtures("leaves_no_process")


def write_result(**changes: Any) -> dict[str, Any]:
    """The tool call that writes a result.json."""
    return bash(f"cat > output/result.json <<'END'\n{result_json(**changes)}\nEND")


def bash(command: str, **more: Any) -> dict[str, Any]:
    return tool_use("Bash", command=command, **more)


def configured(claude: ScriptedClaude, folder: Path, **changes: Any) -> Configure:
    return a_configuration(folder / "config", base_url=claude.url, **changes)


Step: TypeAlias = TurnLike | Fault


class Case(Struct):
    """A course that an attempt takes, and how it must end."""

    name: str
    turns: list[Step]
    failure: FailureKind | None = None
    words: str = ""
    changes: dict[str, Any] = {}
    """How its configuration differs."""


async def run_cases(folder: Path, cases: list[Case]) -> list[AttemptDone]:
    """Run the cases one after the other on one agent; every end must be as told."""
    script = [Conversation(f"Do {case.name}.", case.turns) for case in cases]
    ends = []
    with ScriptedClaude(script) as claude:
        async with agent(environment=IMPATIENT) as it:
            for case in cases:
                await it.send(configured(claude, folder, **case.changes))
                subtask = Subtask(id=case.name, description=f"Do {case.name}.")
                ends.append(await it.run(an_order(folder / case.name, subtask=subtask)))
                assert it.children() == [], case.name
    assert claude.errors == []
    for case, done in zip(cases, ends, strict=True):
        assert (done.subtask_id, done.failure) == (case.name, case.failure), done.error
        assert case.words in (done.error or ""), case.name
    return ends


async def attempted(folder: Path, turns: list[Step], **changes: Any) -> AttemptDone:
    """How an attempt ends for which Claude takes these turns."""
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        async with agent(configured(claude, folder, **changes), IMPATIENT) as it:
            done = await it.run(an_order(folder / "count"))
            assert it.children() == []
    assert claude.errors == []
    return done


async def test_a_subtask_is_done(tmp_path: Path) -> None:
    turns: list[Step] = [
        [
            text("I count."),
            tool_use("Write", file_path="output/count.txt", content="3"),
        ],
        [write_result(data={"n": 3}, files_created=["count.txt"])],
        "It is done.",
    ]
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        async with agent(configured(claude, tmp_path), IMPATIENT) as it:
            done = await it.run(an_order(tmp_path / "count"))
    assert claude.errors == []
    assert (done.failure, done.error) == (None, None)
    assert done.result == (tmp_path / "count/output/result.json").read_bytes()
    assert json.loads(done.result)["data"] == {"n": 3}
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0
    assert done.usage.cost_usd > 0
    assert it.said(Progress)
    assert it.stderr == b""
    logged = it.said(Log)
    assert {(log.level, log.subtask_id) for log in logged} == {("info", "count")}
    begins, first, second, ends = [log.message for log in logged]
    assert (begins, ends) == ("attempt 1 begins", "attempt 1 ends, completed")
    assert first == "Write output/count.txt"
    assert second.startswith("Bash cat > output/result.json")


def _sent_back(words: str) -> Step:
    """A turn that mends the result, if it was told what is wrong with it."""

    def mend(request: Request) -> list[dict[str, Any]]:
        assert words in request.last_user_text, request.last_user_text
        return [write_result()]

    return mend


async def test_the_gate_decides_what_is_done(tmp_path: Path) -> None:
    missing, gone = "output/result.json does not exist", "'gone', which does not exist"
    faulty = write_result(files_created=["gone"])
    failing = write_result(success=False, summary="the page is away")
    stubborn: list[Step] = ["I am done."] * (STOP_HOOK_BLOCK_CAP + 1)
    cases = [
        Case("nothing", ["I am done.", _sent_back(missing), "Now I am."]),
        Case("faulty", [[faulty], "Done.", _sent_back(gone), "Done."]),
        Case(
            "never",
            stubborn,
            FailureKind.NO_RESULT,
            missing,
        ),
        Case(
            "failing",
            [[failing], "Done."],
            FailureKind.REPORTED_FAILURE,
            "the page is away",
        ),
        Case(
            "huge",
            [[bash("truncate -s 100M output/result.json")], *stubborn],
            FailureKind.NO_RESULT,
            "104857600 bytes, the limit is",
        ),
        Case(
            "removed",
            [[write_result()], [bash('rm -rf "$PWD"')], *stubborn],
            FailureKind.NO_RESULT,
            missing,
        ),
    ]
    ends = await run_cases(tmp_path, cases)
    assert all(done.usage.tokens > 0 for done in ends)


async def test_an_end_by_force_is_told_by_its_kind(tmp_path: Path) -> None:
    def failing(status: int) -> Fault:
        return Fault.status(status, times=None)

    refusal = Turn([text("I won't.")], stop_reason="refusal")
    busy: list[Step] = [[bash(f"echo {n}")] for n in range(4)]
    # Longer than the limit of silence, but never silent for long.
    steady: list[Step] = [
        *([bash(f"python3 -c 'import time; time.sleep(1)'; echo {n}")] for n in "1234"),
        [write_result()],
        "Done.",
    ]
    late: list[Step] = [[write_result()], failing(400)]
    cases = [
        Case("401", [failing(401)], FailureKind.AUTHENTICATION, "HTTP 401"),
        Case("403", [failing(403)], FailureKind.AUTHENTICATION, "HTTP 403"),
        Case("500", [failing(500)], FailureKind.API_ERROR, "HTTP 500"),
        Case("late", late, FailureKind.API_ERROR, "HTTP 400"),
        Case("refused", [refusal, refusal], FailureKind.REFUSAL),
        Case("retried", [Fault.status(529), [write_result()], "Done."]),
        Case(
            "endless", busy, FailureKind.MAX_TURNS, "does not exist", {"max_turns": 2}
        ),
        Case("ready", [[write_result()], *busy], changes={"max_turns": 2}),
        Case(
            "silent",
            [Fault.hang(after_events=2), "Never said."],
            FailureKind.INACTIVITY,
            "nothing was heard from Claude for 3 s",
            {"inactivity_timeout_s": 3.0},
        ),
        Case("steady", steady, changes={"inactivity_timeout_s": 3.0}),
    ]
    ends = await run_cases(tmp_path, cases)
    assert ends[3].usage.tokens > 0


async def test_in_the_strictest_mode_a_result_can_be_written_but_nothing_elsewhere(
    tmp_path: Path,
) -> None:
    def refused(request: Request) -> list[dict[str, Any]]:
        assert "denied" in request.last_tool_result
        path = str(tmp_path / "count/output/result.json")
        return [tool_use("Write", file_path=path, content=result_json())]

    outside = tmp_path / "elsewhere.txt"
    write = tool_use("Write", file_path=str(outside), content="x")
    done = await attempted(
        tmp_path, [[write], refused, "Done."], permission_mode="dontAsk"
    )
    assert (done.failure, done.error) == (None, None)
    assert not outside.exists()


async def test_one_agent_does_one_attempt_after_the_other(tmp_path: Path) -> None:
    script = [
        Conversation("This is attempt 2", [[write_result()], "Done."]),
        Conversation("Count the things", [[write_result(success=False)], "No."]),
        Conversation("Sum the things", [[write_result()], "Done."]),
    ]
    error = PreviousAttempt(attempt=1, agent_id="agent_1", error="it failed")
    summing = Subtask(
        id="sum", description="Sum the things", required_capabilities=("web_scraping",)
    )
    orders = [
        an_order(tmp_path / "count"),
        an_order(tmp_path / "count", attempt=2, previous_attempts=(error,)),
        an_order(tmp_path / "sum", subtask=summing),
    ]
    with ScriptedClaude(script) as claude:
        async with agent(configured(claude, tmp_path), IMPATIENT) as it:
            ends = [await it.run(order) for order in orders]
    assert claude.errors == []
    assert [(done.subtask_id, done.attempt, done.failure) for done in ends] == [
        ("count", 1, FailureKind.REPORTED_FAILURE),
        ("count", 2, None),
        ("sum", 1, None),
    ]
    assert (tmp_path / "count/attempts/1/result.json").exists()
    assert len({request.system for request in claude.requests}) == 1
    tools = [set(request.tools) for request in claude.requests]
    assert tools[-1] - tools[0] == {"WebSearch", "WebFetch"}
    assert {"Bash", "mcp__mas__query_database"} <= tools[0]


async def test_a_workspace_in_the_way_is_told_before_claude_is_asked(
    tmp_path: Path,
) -> None:
    (tmp_path / "count").touch()
    done = await attempted(tmp_path, [])
    assert done.failure is FailureKind.WORKSPACE
    assert str(tmp_path / "count") in (done.error or "")


async def test_what_a_session_leaves_running_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    orphan = f"setsid sh -c 'echo $$ > {pid}; exec sleep 300' >/dev/null 2>&1 &"
    wait = f"until test -s {pid}; do :; done"
    turns: list[Step] = [[bash(orphan)], [bash(wait)], [write_result()], "Done."]
    assert (await attempted(tmp_path, turns)).failure is None
    assert not psutil.pid_exists(int(pid.read_text()))


async def test_a_cli_that_dies_is_told_with_its_exit_code(tmp_path: Path) -> None:
    turns: list[Step] = [[bash("kill -9 $PPID")], "Never said."]
    killed = await attempted(tmp_path, turns)
    assert killed.failure is FailureKind.INTERNAL
    assert killed.error == "the Claude CLI broke off: it ended with exit code -9"
    assert killed.usage.tokens > 0


async def test_a_cli_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    done = await attempted(tmp_path, [], permission_mode="nonsense")
    assert done.failure is FailureKind.INTERNAL
    first, *stderr = (done.error or "").splitlines()
    assert first == "the Claude CLI did not start: it ended with exit code 1"
    assert "nonsense" in "\n".join(stderr)
    assert done.usage.tokens == 0
