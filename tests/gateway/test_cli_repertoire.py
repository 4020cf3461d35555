"""The real CLI's whole repertoire: what reaches the gateway is what leaves it.

A recording proxy stands on either side of it, between the CLI and the gateway and
between the gateway and scripted Claude.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anthropic import Anthropic
from anyio import to_thread
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    StreamEvent,
)

from mas.model import CallState
from mas.testing import Conversation, Fault, ScriptedClaude, TurnLike, text, tool_use
from tests.gateway.harness import KEY, Scene, gateway
from tests.gateway.wire import Message, Tape, read_message

pytestmark = pytest.mark.usefixtures("leaves_no_process")

DEADLINE_S = 90.0
OF_THE_CONNECTION = (
    *(b"host", b"x-api-key", b"authorization", b"connection", b"keep-alive"),
    b"transfer-encoding",
)
LONG = "a longer answer that takes more than one piece, so that it can be cut"


@dataclass
class Dialogue:
    """What went over one connection."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


@dataclass
class Recorder:
    """A proxy in front of a port, which records both directions."""

    port: int
    tapes: list[Dialogue] = field(default_factory=list)
    url: str = ""

    async def serve(self, near: SocketStream) -> None:
        tape = Dialogue()
        self.tapes.append(tape)
        async with (
            near,
            await anyio.connect_tcp("127.0.0.1", self.port) as far,
            anyio.create_task_group() as tasks,
        ):

            async def pump(
                source: SocketStream, sink: SocketStream, kept: bytearray
            ) -> None:
                try:
                    async for data in source:
                        kept += data
                        await sink.send(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(pump, near, far, tape.up)
            tasks.start_soon(pump, far, near, tape.down)

    async def exchanges(self) -> list[tuple[Any, ...]]:
        """All that was asked and answered, but for what differs by intent; sorted."""
        found = []
        for tape in self.tapes:
            asked = BufferedByteReceiveStream(Tape(bytes(tape.up)))
            answered = BufferedByteReceiveStream(Tape(bytes(tape.down)))
            while (request := await read_message(asked)) is not None:
                answer = await read_message(answered, answers=request.method)
                assert answer is not None
                found.append((*_kept(request), answer.status, *_kept(answer)[1:]))
        return sorted(found)


def _kept(message: Message) -> tuple[Any, ...]:
    return (
        message.start,
        message.without(*OF_THE_CONNECTION),
        message.body,
        message.is_whole,
    )


@asynccontextmanager
async def recorder(port: int) -> AsyncIterator[Recorder]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        found = Recorder(port)
        found.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.start_soon(listener.serve, found.serve)
        yield found
        tasks.cancel_scope.cancel()


@dataclass
class Stage:
    """Scripted Claude, gateway and CLI in a row, with recorders in between."""

    claude: ScriptedClaude
    scene: Scene
    near: Recorder
    far: Recorder
    folder: Path

    @property
    def options(self) -> ClaudeAgentOptions:
        workspace = self.folder / "workspace"
        workspace.mkdir(exist_ok=True)
        return ClaudeAgentOptions(
            cwd=workspace,
            env={
                "ANTHROPIC_BASE_URL": self.near.url,
                "ANTHROPIC_API_KEY": self.scene.token,
                "CLAUDE_CONFIG_DIR": str(self.folder / "config"),
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

    async def run(self, prompt: str, **changes: Any) -> ResultMessage:
        async with ClaudeSDKClient(replace(self.options, **changes)) as client:
            await client.query(prompt)
            messages = [each async for each in client.receive_response()]
        assert isinstance(messages[-1], ResultMessage)
        return messages[-1]

    async def check(self, *, least: int) -> None:
        """Both sides saw the same, and nothing of the other side's secret."""
        near, far = await self.near.exchanges(), await self.far.exchanges()
        assert near == far
        assert len(near) >= least
        assert len(near) == len(self.scene.calls)
        for tape in self.near.tapes:
            assert KEY.encode() not in tape.up + tape.down
        for tape in self.far.tapes:
            assert self.scene.token.encode() not in tape.up + tape.down


@asynccontextmanager
async def stage(folder: Path, *script: Conversation) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        claude = stack.enter_context(ScriptedClaude(script, require_key=KEY))
        far = await stack.enter_async_context(recorder(_port(claude.url)))
        scene = await stack.enter_async_context(gateway(far.url, deadline_s=DEADLINE_S))
        near = await stack.enter_async_context(recorder(scene.port))
        yield Stage(claude, scene, near, far, folder)
        assert claude.errors == []


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def delegate(prompt: str) -> dict[str, Any]:
    return tool_use(
        "Agent", description="part", prompt=prompt, subagent_type="general-purpose"
    )


async def test_streams_tools_subagents_and_a_resumed_session(tmp_path: Path) -> None:
    script = [
        Conversation(
            "count the lines",
            [
                [text("I count é€😀."), tool_use("Bash", command="seq 3 | wc -l")],
                lambda request: [
                    tool_use(
                        "Write",
                        file_path=f"{request.cwd}/big.txt",
                        content="0123456789 é\n" * 2000,
                    )
                ],
                [delegate("half one"), delegate("half two")],
                "Counted.",
                "Once more.",
            ],
        ),
        Conversation("half one", [[tool_use("Bash", command="echo 1")], "one"]),
        Conversation("half two", [[tool_use("Bash", command="echo 2")], "two"]),
    ]
    session = str(uuid.uuid4())
    async with stage(tmp_path, *script) as on:
        first = await on.run("count the lines", session_id=session)
        second = await on.run("and again", resume=session)
        await on.scene.ended(9)

        assert (first.result, second.result) == ("Counted.", "Once more.")
        await on.check(least=9)
        calls = on.scene.calls
        assert {call.state for call in calls} == {CallState.COMPLETE}
        assert len({call.subagent for call in calls} - {None}) == 2
        assert (tmp_path / "workspace" / "big.txt").read_text().count("é") == 2000


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.cut(after_events=5), CallState.CUT),
        (Fault.early_end(after_events=3), CallState.CUT),
        (Fault.garbage(after_events=4), CallState.COMPLETE),
        (Fault.stream_error(after_events=9), CallState.CUT),
        (Fault.status(500), CallState.REFUSED),
        (Fault.status(400), CallState.REFUSED),
        (Fault.status(404), CallState.REFUSED),
        (Fault.status(408, body="<html>late</html>"), CallState.REFUSED),
    ],
    ids=lambda it: f"{it.ending} {it.code}" if isinstance(it, Fault) else "",
)
async def test_whatever_goes_wrong_goes_wrong_for_the_cli_as_it_did(
    tmp_path: Path, fault: Fault, state: CallState
) -> None:
    call = tool_use("Bash", command="echo x")
    turns: list[TurnLike | Fault] = [fault, [text(LONG), call], "Counted."]
    async with stage(tmp_path, Conversation("count the lines", turns)) as on:
        result = await on.run("count the lines")
        await on.scene.until(lambda: not on.scene.ledger.open_calls)

        await on.check(least=2)
        assert on.scene.calls[0].state is state
        assert result.result == "Counted."


async def test_a_session_that_is_interrupted_ends_its_call(tmp_path: Path) -> None:
    turns: list[TurnLike | Fault] = [Fault.hang(after_events=5), LONG]
    async with stage(tmp_path, Conversation("count the lines", turns)) as on:
        options = replace(on.options, include_partial_messages=True)
        async with ClaudeSDKClient(options) as client:
            await client.query("count the lines")
            async for message in client.receive_messages():
                if isinstance(message, StreamEvent):
                    break
            await client.interrupt()
            (call,) = await on.scene.ended()
            async for _ in client.receive_response():
                pass
        (request,) = on.claude.requests
        await to_thread.run_sync(on.claude.wait_until, lambda: not request.is_open)

        assert call.state is CallState.CUT
        assert call.usage.input_tokens > 0
        assert call.usage.output_tokens == call.usage.estimated_tokens


async def test_without_a_stream_and_what_the_planner_may_ask(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "messages": [{"role": "user", "content": "count the lines"}],
    }

    def ask(url: str, token: str) -> list[Any]:
        with Anthropic(base_url=url, api_key=token, max_retries=0) as client:
            tokens = client.messages.count_tokens(**asked).input_tokens
            whole = client.messages.create(**asked, max_tokens=100)
            with client.messages.stream(**asked, max_tokens=100) as stream:
                streamed = stream.get_final_message()
        return [tokens > 0, whole.content[0], streamed.content[0]]

    async with stage(tmp_path, Conversation("count the lines", ["Three."])) as on:
        url, token = on.near.url, on.scene.token
        is_counted, whole, streamed = await to_thread.run_sync(ask, url, token)
        await on.scene.ended(3)

        assert (is_counted, whole.text, streamed.text) == (True, "Three.", "Three.")
        await on.check(least=3)
