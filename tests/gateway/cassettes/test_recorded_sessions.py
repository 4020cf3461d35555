"""The real Claude CLI: a replayed session is the one that was recorded."""

import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    UserMessage,
)

from mas.config import Credentials
from mas.gateway.cassettes.cassette import Cassette, CassetteWriter, read_cassette
from mas.gateway.cassettes.recording import Recorder
from mas.gateway.cassettes.replay import Replay
from mas.gateway.client import Client
from mas.gateway.exchange import Caller, CutError, Request, Upstream, UpstreamError
from mas.gateway.forward import Forward
from mas.gateway.server import LoopbackServer, listen
from mas.testing import Conversation, Fault, ScriptedClaude, TurnLike, text, tool_use
from tests.gateway.cassettes.taping import OTHER_TASK, TASK, header

pytestmark = pytest.mark.usefixtures("leaves_no_process")

KEY = "sk-not-one-of-anthropic"


def server_of(upstream: Upstream, caller: Caller, listener: socket.socket) -> Any:
    """A server that hands each request to the upstream, and its answer back."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        client = Client(scope, receive, send)
        request = Request(
            caller=caller,
            method=client.method,
            target=client.target,
            headers=client.headers,
            body=await client.body(),
        )
        async with create_task_group() as group:
            group.start_soon(client.cancel_when_gone, group.cancel_scope)
            try:
                await answer(request, client)
            except CutError:
                pass  # the server cuts the connection
            except UpstreamError as error:
                await client.refuse(502, error.message)
            group.cancel_scope.cancel()

    async def answer(request: Request, client: Client) -> None:
        async with upstream.open(request) as response:
            await client.begin(response.status, response.headers)
            async for chunk in response.chunks():
                await client.send(chunk)
            await client.end()

    return LoopbackServer(app, listener)


@asynccontextmanager
async def served(upstream: Upstream, caller: Caller) -> AsyncIterator[str]:
    """The URL at which the upstream answers."""
    async with create_task_group() as group:
        server = server_of(upstream, caller, listen())
        group.start_soon(server.serve_until_stopped)
        await server.ready.wait()
        yield server.url
        server.stop()


@dataclass
class Outcome:
    """What came of a session."""

    result: str | None
    is_error: bool
    turns: int
    files: dict[str, str]


Drive = Callable[[ClaudeAgentOptions, str], Awaitable[ResultMessage]]


async def to_the_end(options: ClaudeAgentOptions, prompt: str) -> ResultMessage:
    """Give the prompt to a session and wait for its end."""
    async with ClaudeSDKClient(options) as client:
        await client.query(prompt)
        messages = [each async for each in client.receive_response()]
    assert isinstance(messages[-1], ResultMessage)
    return messages[-1]


async def broken_off_and_resumed(
    options: ClaudeAgentOptions, prompt: str
) -> ResultMessage:
    """Stop the session when its first call has a result, and go on in another one."""
    session_id = str(uuid.uuid4())
    first = replace(options, session_id=session_id, include_partial_messages=True)
    async with ClaudeSDKClient(first) as client:
        await client.query(prompt)
        async for message in client.receive_messages():
            if isinstance(message, UserMessage):
                break
        await client.interrupt()
        async for _ in client.receive_response():
            pass
    return await to_the_end(replace(options, resume=session_id), "go on")


async def session(
    upstream: Upstream, folder: Path, task: str, drive: Drive = to_the_end
) -> Outcome:
    """Give the prompt to a CLI of its own, in a workspace of its own."""
    workspace = folder / task / "load"
    workspace.mkdir(parents=True)
    caller = Caller(
        task_id=task,
        agent_id="agent_1",
        subtask_id="load",
        attempt=1,
        workspace=str(workspace),
    )
    async with served(upstream, caller) as url:
        options = ClaudeAgentOptions(
            cwd=workspace,
            env={
                "ANTHROPIC_BASE_URL": url,
                "ANTHROPIC_API_KEY": KEY,
                "CLAUDE_CONFIG_DIR": str(folder / "config"),
                "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_MAX_RETRIES": "2",
            },
            model="claude-sonnet-5-5",
            system_prompt="You work.",
            setting_sources=[],
            tools=["Bash", "Read", "Write", "Agent"],
            allowed_tools=["Bash", "Read", "Agent"],
            permission_mode="acceptEdits",
        )
        with fail_after(60):
            found = await drive(options, f"count the lines in {workspace}")
    files = {
        path.name: path.read_text().replace(str(workspace), "WORKSPACE")
        for path in sorted(workspace.iterdir())
        if path.is_file()
    }
    return Outcome(found.result, found.is_error, found.num_turns, files)


async def recorded(
    script: Sequence[Conversation], folder: Path, drive: Drive = to_the_end
) -> tuple[Outcome, Cassette]:
    """Run the session against a script, and record it."""
    reports: list[str] = []
    path = folder / "run.cassette"
    with ScriptedClaude(script, require_key=KEY) as claude:
        forward = Forward(Credentials(api_key=KEY, base_url=claude.url))
        recorder = Recorder(
            forward,
            CassetteWriter(path, header()),
            report=reports.append,
            secrets=[KEY],
        )
        outcome = await session(recorder, folder / "recorded", TASK, drive)
        await forward.aclose()
        recorder.close("completed")
        assert claude.errors == []
    assert reports == []
    return outcome, read_cassette(path)


async def replayed(cassette: Cassette, folder: Path) -> tuple[Outcome, Replay]:
    replay = Replay(cassette)
    outcome = await session(replay, folder / "elsewhere" / "replayed", OTHER_TASK)
    replay.finish()
    return outcome, replay


def counting(*turns: TurnLike | Fault) -> list[Conversation]:
    return [Conversation("count the lines", turns)]


def delegate(prompt: str) -> dict[str, Any]:
    return tool_use(
        "Agent", description="part", prompt=prompt, subagent_type="general-purpose"
    )


WRITES: TurnLike = lambda request: [  # noqa: E731
    text("I write it down."),
    tool_use(
        "Write",
        file_path=f"{request.cwd}/count.txt",
        content=f"{request.last_tool_result} in {request.cwd}, {{workspace}}",
    ),
    tool_use("Bash", command=f"pwd > {request.cwd}/where; echo é 'a b' >> where"),
]


async def test_a_replayed_session_is_the_recorded_one_in_another_folder(
    tmp_path: Path,
) -> None:
    script = [
        Conversation(
            "count the lines",
            [
                [text("I count."), tool_use("Bash", command="seq 3 | wc -l; date")],
                WRITES,
                [delegate("half one"), delegate("half two")],
                "All is counted.",
            ],
        ),
        Conversation("half one", [[tool_use("Bash", command="echo 1 > one")], "one"]),
        Conversation("half two", [[tool_use("Bash", command="echo 2 > two")], "two"]),
    ]

    first, cassette = await recorded(script, tmp_path)
    second, replay = await replayed(cassette, tmp_path)

    assert first == second
    assert first.result == "All is counted."
    assert first.files["one"] == "1\n"
    assert first.files["where"] == "WORKSPACE\né a b\n"
    assert first.files["count.txt"].endswith(" in WORKSPACE, {workspace}")
    assert (replay.errors, replay.warnings) == ([], [])
    assert {each.thread.partition(" ")[0] for each in cassette.exchanges} == {
        "main",
        "subagent",
    }
    kept = str(cassette)
    assert str(tmp_path) not in kept
    assert TASK not in kept
    assert KEY not in kept


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(529, times=2),
        Fault.cut(after_events=5),
        Fault.early_end(after_events=3),
        Fault.stream_error(after_events=9),
        Fault.garbage(after_events=4),
    ],
    ids=["529", "cut", "early end", "stream error", "garbage"],
)
async def test_what_went_wrong_goes_wrong_again(tmp_path: Path, fault: Fault) -> None:
    long = "a longer answer that takes more than one piece, so that it can be cut"
    call = tool_use("Bash", command="echo ran >> log")

    first, cassette = await recorded(
        counting(fault, [text(long), call], "counted"), tmp_path
    )
    second, replay = await replayed(cassette, tmp_path)

    assert first == second
    assert first.result == "counted"
    assert first.files == {"log": "ran\n"}
    assert len(cassette.exchanges) > 2
    assert (replay.errors, replay.warnings) == ([], [])


async def test_a_session_that_was_broken_off_and_resumed_is_replayed_in_one(
    tmp_path: Path,
) -> None:
    call = [text("I count."), tool_use("Bash", command="echo ran >> log")]
    script = counting(
        Fault.hang(after_events=9), call, call, "counted"
    )  # behind its call, which the CLI makes before the answer has ended

    first, cassette = await recorded(script, tmp_path, broken_off_and_resumed)
    second, replay = await replayed(cassette, tmp_path)

    ends = [each.answer.end for each in cassette.exchanges]
    assert ends == ["left", "complete", "complete"]
    assert first.files == second.files == {"log": "ran\nran\n"}
    assert first.result == second.result == "counted"
    assert replay.errors == []
    (warning,) = replay.warnings
    assert "Request interrupted by user" in warning


async def test_a_result_that_is_too_long_is_read_again_where_it_is_now(
    tmp_path: Path,
) -> None:
    def reads(request: Any) -> list[dict[str, Any]]:
        path = request.last_tool_result.partition("saved to: ")[2].partition("\n")[0]
        return [tool_use("Bash", command=f"tail -n 1 {path} > last")]

    first, cassette = await recorded(
        counting([tool_use("Bash", command="seq 200000")], reads, "counted"), tmp_path
    )
    second, replay = await replayed(cassette, tmp_path)

    assert first == second
    assert first.files == {"last": "200000\n"}
    assert (replay.errors, replay.warnings) == ([], [])


async def test_tools_that_answer_otherwise_are_a_warning_that_shows_it(
    tmp_path: Path,
) -> None:
    script = counting([tool_use("Bash", command="cat ../../mark 2>&1")], "counted")
    marks = tmp_path / "recorded", tmp_path / "elsewhere" / "replayed"
    for folder, mark in zip(marks, ("old", "new"), strict=True):
        folder.mkdir(parents=True)
        (folder / "mark").write_text(mark)

    _, cassette = await recorded(script, tmp_path)
    outcome, replay = await replayed(cassette, tmp_path)

    assert outcome.result == "counted"
    assert replay.errors == []
    assert replay.warnings == [
        "subtask load, main thread, request 2: result of Bash: "
        "recorded 'result of Bash: old', now 'result of Bash: new'"
    ]


async def test_a_turn_that_is_missing_ends_the_session_with_what_is_missing(
    tmp_path: Path,
) -> None:
    script = counting([tool_use("Bash", command="echo seven")], "counted")
    _, cassette = await recorded(script, tmp_path)
    cassette = Cassette(
        header=cassette.header, exchanges=cassette.exchanges[:-1], status="completed"
    )

    outcome, replay = await replayed(cassette, tmp_path)

    assert outcome.is_error
    assert "after the 1st recorded answer of subtask load" in str(outcome.result)
    (error,) = replay.errors
    assert "result of Bash: seven" in error
