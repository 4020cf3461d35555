"""The real Claude CLI, driven by the Agent SDK, against scripted Claude."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from anyio import fail_after
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ProcessError,
    ResultMessage,
    StreamEvent,
    UserMessage,
)

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
from tests.support import until

LONG = "a longer answer that takes more than one piece, so that it can be cut"
COUNT = [text("I count."), tool_use("Bash", command="printf 'a\\nb\\n' | wc -l")]


def options(claude: ScriptedClaude, folder: Path, **more: Any) -> ClaudeAgentOptions:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    environment = {
        "CLAUDE_CONFIG_DIR": str(folder / "config"),
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
    }
    return ClaudeAgentOptions(
        cwd=workspace,
        env=claude.environment | environment,
        model="claude-sonnet-5-5",
        system_prompt="You work.",
        setting_sources=[],
        tools=["Bash", "Write", "Agent"],
        allowed_tools=["Bash", "Agent"],
        permission_mode="acceptEdits",
        **more,
    )


@asynccontextmanager
async def session(
    claude: ScriptedClaude, folder: Path, prompt: str, **more: Any
) -> AsyncIterator[ClaudeSDKClient]:
    """A session that has been given its prompt."""
    with fail_after(30):
        async with ClaudeSDKClient(options(claude, folder, **more)) as client:
            await client.query(prompt)
            yield client


async def result_of(client: ClaudeSDKClient) -> ResultMessage:
    messages = [message async for message in client.receive_response()]
    result = messages[-1]
    assert isinstance(result, ResultMessage)
    return result


async def run(claude: ScriptedClaude, folder: Path) -> ResultMessage:
    async with session(claude, folder, "count the lines") as client:
        return await result_of(client)


def counting(*turns: TurnLike | Fault) -> ScriptedClaude:
    return ScriptedClaude([Conversation("count the lines", turns)])


async def test_tools_run_and_their_results_come_back_to_the_script(
    tmp_path: Path,
) -> None:
    with counting(
        COUNT,
        lambda request: [
            tool_use(
                "Write",
                file_path=f"{request.cwd}/count.txt",
                content=f"{request.last_tool_result} lines",
            )
        ],
        "counted",
    ) as claude:
        result = await run(claude, tmp_path)

    assert claude.errors == []
    assert (result.result, result.is_error) == ("counted", False)
    assert (tmp_path / "workspace" / "count.txt").read_text().strip() == "2 lines"
    assert [request.turn for request in claude.requests] == [0, 1, 2]
    assert not any(request.is_subagent for request in claude.requests)


async def test_two_subagents_play_their_own_conversations_side_by_side(
    tmp_path: Path,
) -> None:
    def delegate(prompt: str) -> dict[str, Any]:
        return tool_use(
            "Agent",
            description="part",
            prompt=prompt,
            subagent_type="general-purpose",
        )

    def both(claude: ScriptedClaude) -> bool:
        return sum(request.is_subagent for request in claude.requests) >= 2

    def meets_the_other(answer: str) -> TurnLike:
        def turn(_: object) -> str:
            claude.wait_until(lambda: both(claude))
            return answer

        return turn

    def reports(request: Request) -> str:
        first, second = request.tool_results
        return f"{'three' in first} {'four' in second}"

    with ScriptedClaude(
        [
            Conversation(
                "count the lines",
                [
                    [delegate("count the first half"), delegate("count the second")],
                    reports,
                ],
            ),
            Conversation("the first half", [meets_the_other("three")]),
            Conversation("the second", [meets_the_other("four")]),
        ]
    ) as claude:
        result = await run(claude, tmp_path)

    assert claude.errors == []
    assert result.result == "True True"
    assert len({request.session_id for request in claude.requests}) == 1
    assert [request.is_subagent for request in claude.requests] == [
        False,
        True,
        True,
        False,
    ]


async def test_an_overloaded_api_is_asked_again_and_then_works(tmp_path: Path) -> None:
    with counting(Fault.status(529, times=2), "counted") as claude:
        result = await run(claude, tmp_path)

    assert result.result == "counted"
    assert [request.status for request in claude.requests] == [529, 529, 200]
    assert [request.turn for request in claude.requests] == [0, 0, 0]


@pytest.mark.parametrize(
    ("fault", "is_nudged"),
    [
        (Fault.cut(after_events=5), False),
        (Fault.stream_error(after_events=9), True),  # its first block is complete
    ],
)
async def test_a_broken_stream_is_played_again_as_the_same_turn(
    tmp_path: Path, fault: Fault, is_nudged: bool
) -> None:
    call = tool_use("Bash", command="echo ran >> log")
    with counting(fault, [text(LONG), call], "counted") as claude:
        result = await run(claude, tmp_path)

    assert claude.errors == []
    assert result.result == "counted"
    assert [request.turn for request in claude.requests] == [0, 0, 1]
    assert ("cut off" in str(claude.requests[1].messages[-1])) is is_nudged
    assert (tmp_path / "workspace" / "log").read_text() == "ran\n"


async def killed(client: ClaudeSDKClient) -> None:
    kill_own_cli()
    with pytest.raises(ProcessError):
        await result_of(client)


async def interrupted(client: ClaudeSDKClient) -> None:
    await client.interrupt()
    await result_of(client)


@pytest.mark.parametrize("end", [killed, interrupted])
async def test_a_call_that_was_cut_off_is_played_again_in_the_resumed_session(
    tmp_path: Path, end: Callable[[ClaudeSDKClient], Awaitable[None]]
) -> None:
    session_id = str(uuid.uuid4())
    slow = tool_use("Bash", command="echo one; sleep 300")
    after = lambda request: f"counted {request.tool_results}"  # noqa: E731
    with counting(COUNT, [text("And again."), slow]) as claude:
        async with session(
            claude, tmp_path, "count the lines", session_id=session_id
        ) as client:
            # The call is then in the transcript, and all that was before it.
            await until(lambda: recorded(tmp_path, "sleep 300"), "it is recorded")
            await end(client)

    with counting(COUNT, [tool_use("Bash", command="echo two")], after) as claude:
        async with session(claude, tmp_path, "go on", resume=session_id) as client:
            result = await result_of(client)

    assert claude.errors == []
    assert [request.turn for request in claude.requests] == [1, 2]
    assert result.result == "counted ['2', 'two']"


@pytest.mark.parametrize(
    ("events", "turn"),
    [
        (4, 0),  # in the middle of its words
        (10, 1),  # behind its call, which the CLI makes before the answer has ended
    ],
)
async def test_an_answer_that_was_stopped_in_its_stream_is_played_again(
    tmp_path: Path, events: int, turn: int
) -> None:
    session_id = str(uuid.uuid4())
    with counting(Fault.hang(after_events=events), COUNT) as claude:
        async with session(
            claude,
            tmp_path,
            "count the lines",
            session_id=session_id,
            include_partial_messages=True,
        ) as client:
            await streamed(client, events, has_result=turn == 1)
            await interrupted(client)

    with counting(COUNT, "counted") as claude:
        async with session(claude, tmp_path, "go on", resume=session_id) as client:
            result = await result_of(client)

    assert claude.errors == []
    assert claude.requests[0].turn == turn
    assert claude.requests[0].prompt == "count the lines"
    assert result.result == "counted"


async def streamed(client: ClaudeSDKClient, events: int, *, has_result: bool) -> None:
    """Wait until the CLI has seen this many events, and made the call they hold."""
    seen = 1  # the ping is not passed on
    async for message in client.receive_messages():
        seen += isinstance(message, StreamEvent)
        if seen >= events and (not has_result or isinstance(message, UserMessage)):
            return


async def recorded(folder: Path, words: str) -> bool:
    """Whether the session's transcript holds these words."""
    found = (folder / "config" / "projects").glob("*/*.jsonl")
    return any(words in path.read_text(encoding="utf-8") for path in found)


def kill_own_cli() -> None:
    for child in psutil.Process().children():
        if child.name() == "claude":
            child.kill()


async def test_a_script_too_short_ends_the_session_with_what_is_missing(
    tmp_path: Path,
) -> None:
    with counting(COUNT) as claude:
        result = await run(claude, tmp_path)

    assert result.is_error
    assert "turn 2 was asked for" in str(result.result)
    (error,) = claude.errors
    assert "it answers '2'" in error


async def test_a_turn_may_stop_for_want_of_tokens_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    cut_short = Turn([text("count")], stop_reason="max_tokens")
    with counting(cut_short, "ed") as claude:
        result = await run(claude, tmp_path)

    assert claude.errors == []
    assert not result.is_error
    assert [request.turn for request in claude.requests] == [0, 1]
