"""The real Claude CLI, driven by the Agent SDK, against scripted Claude."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from anyio import fail_after, to_thread
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ProcessError,
    ResultMessage,
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
    assert ("cut off" in claude.requests[1].last_user_text) is is_nudged
    assert (tmp_path / "workspace" / "log").read_text() == "ran\n"


async def test_a_session_resumed_after_a_kill_goes_on_in_the_script(
    tmp_path: Path,
) -> None:
    session_id = str(uuid.uuid4())

    with pytest.raises(ProcessError), counting(COUNT, Fault.hang()) as claude:
        async with session(
            claude, tmp_path, "count the lines", session_id=session_id
        ) as client:
            await to_thread.run_sync(
                claude.wait_until, lambda: len(claude.requests) == 2
            )
            kill_own_cli()
            await result_of(client)

    with counting(COUNT, "counted") as claude:
        async with session(claude, tmp_path, "go on", resume=session_id) as client:
            result = await result_of(client)

    assert claude.errors == []
    assert result.result == "counted"
    assert claude.requests[-1].turn == 1


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
