"""What the tests of recording and replay share: a fake upstream, and who asks it."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mas.gateway import sse
from mas.gateway.cassettes.cassette import (
    Cassette,
    CassetteWriter,
    Exchange,
    Header,
    read_cassette,
)
from mas.gateway.cassettes.recording import Recorder
from mas.gateway.cassettes.replay import Replay
from mas.gateway.exchange import (
    Caller,
    CutError,
    Headers,
    Request,
    Response,
    Upstream,
    UpstreamError,
)

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_TASK = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
SESSION = "16fd2706-8baf-433b-82eb-8c7fada847da"
OTHER_SESSION = "886313e1-3b8a-5372-9b90-0c9aee199e5d"
TOOLS: list[dict[str, Any]] = [
    {"name": name, "input_schema": {}} for name in ("Bash", "Write", "Agent")
]

Block = dict[str, Any]


@dataclass
class Answer:
    """What the fake upstream answers; ``fault``: what happens behind the chunks."""

    status: int = 200
    headers: Headers = ()
    pieces: Sequence[bytes] = ()
    fault: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.fault is not None:
            raise self.fault


@dataclass
class FakeUpstream:
    """Gives its answers one after the other; an exception is raised instead of one."""

    answers: Sequence[Answer | Exception]
    requests: list[Request] = field(default_factory=list)
    is_first_party: bool = True
    is_paid: bool = True

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        self.requests.append(request)
        answer = self.answers[len(self.requests) - 1]
        if isinstance(answer, Exception):
            raise answer
        yield answer


@dataclass
class Got:
    """What came back to whoever asked."""

    status: int
    headers: Headers
    pieces: list[bytes]
    cut: CutError | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> dict[str, Any]:
        """The message in it, streamed or whole, put together without mas's own code."""
        if not self.body.startswith(b"event:"):
            found: dict[str, Any] = self.json
            return found
        return assembled(data for _, data in streamed_events(self.body))

    @property
    def content(self) -> list[Block]:
        """The blocks without their ids."""
        return [without_id(block) for block in self.message["content"]]

    @property
    def calls(self) -> list[Block]:
        blocks: list[Block] = self.message["content"]
        return [block for block in blocks if block["type"] == "tool_use"]


def without_id(block: Block) -> Block:
    return {key: value for key, value in block.items() if key != "id"}


def streamed_events(body: bytes) -> Iterable[tuple[str, dict[str, Any]]]:
    for event in body.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def assembled(stream: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put a message together again, as a client does."""
    whole: dict[str, Any] = {}
    written: dict[int, str] = {}
    for data in stream:
        match data["type"]:
            case "message_start":
                whole = {**data["message"], "content": []}
            case "content_block_start":
                whole["content"].append(dict(data["content_block"]))
            case "content_block_delta":
                block = whole["content"][data["index"]]
                delta = data["delta"]
                for key in ("text", "thinking", "signature"):
                    if key in delta:
                        block[key] += delta[key]
                if "partial_json" in delta:
                    at = data["index"]
                    written[at] = written.get(at, "") + delta["partial_json"]
            case "message_delta":
                whole |= data["delta"]
                whole["usage"] = {**whole["usage"], **data["usage"]}
    for at, words in written.items():
        whole["content"][at]["input"] = json.loads(words)
    return whole


async def ask(upstream: Upstream, request: Request, most: int | None = None) -> Got:
    """Ask and read to the end, or leave after so many pieces."""
    async with upstream.open(request) as response:
        got = Got(response.status, response.headers, [])
        chunks = response.chunks()
        try:
            while most is None or len(got.pieces) < most:
                got.pieces.append(await anext(chunks))
        except StopAsyncIteration:
            pass
        except CutError as error:
            got.cut = error
    return got


def caller(subtask: str | None = "load", task: str = TASK, **more: Any) -> Caller:
    workspace = "" if subtask is None else f"/shared/{task}/{subtask}"
    given = {"workspace": workspace, "attempt": 1 if subtask else None, **more}
    return Caller(task_id=task, agent_id="agent_1", subtask_id=subtask, **given)


def request(
    *messages: Any,
    who: Caller | None = None,
    agent: str | None = None,
    session: str = SESSION,
    path: str = "/v1/messages",
    method: str = "POST",
    **body: Any,
) -> Request:
    """A request like the CLI's; messages are by turns the user's and the model's."""
    listed = [
        {"role": "assistant" if at % 2 else "user", "content": content}
        for at, content in enumerate(messages)
    ]
    headers = [(b"x-claude-code-session-id", session.encode())]
    if agent is not None:
        headers.append((b"x-claude-code-agent-id", agent.encode()))
    fields = {
        "model": "claude-x",
        "stream": True,
        "tools": TOOLS,
        "system": "You work.",
    }
    return Request(
        caller=who or caller(),
        method=method,
        target=f"{path}?beta=true".encode(),
        headers=tuple(headers),
        body=json.dumps({**fields, "messages": listed, **body}).encode(),
    )


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def call(name: str, id_: str = "toolu_01abc", /, **arguments: Any) -> Block:
    return {"type": "tool_use", "id": id_, "name": name, "input": arguments}


def result(id_: str, content: Any, **more: Any) -> Block:
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **more}


def message(*blocks: Block, **more: Any) -> dict[str, Any]:
    calls = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": "msg_01xyz",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": list(blocks),
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 20},
        **more,
    }


STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"),)
JSON = ((b"content-type", b"application/json"),)


def wire(*blocks: Block, **more: Any) -> bytes:
    """The stream that carries these blocks."""
    return b"".join(map(sse.encode, sse.events(message(*blocks, **more))))


def said(*blocks: Block, **more: Any) -> Answer:
    return Answer(headers=STREAM, pieces=[wire(*blocks, **more)])


def failed(status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> Answer:
    content = body or json.dumps(sse.error(status, "no")).encode()
    return Answer(status, (*JSON, *headers), [content])


def cut(*blocks: Block, events: int, error: bool = True) -> Answer:
    """The stream broke off after so many events, or just ended there."""
    first = [sse.encode(event) for event in sse.events(message(*blocks))][:events]
    return Answer(200, STREAM, first, CutError("gone") if error else None)


def silent(reason: str = "no connection") -> UpstreamError:
    return UpstreamError(reason)


def header(task: str = "count", **more: Any) -> Header:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    return Header(recorded_at=now, mas_version="0.1.0", task=task, **more)


async def recorded(
    answers: Sequence[Answer | Exception],
    requests: Sequence[Request],
    *,
    secrets: Sequence[str] = (),
    left: Mapping[int, int] | None = None,
    read: Callable[[Path], Cassette] = read_cassette,
) -> Cassette:
    """Ask for all of these while recording, and return the recording, read again.

    ``left``: after how many pieces the client leaves an answer, by its index.
    """
    reports: list[str] = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.cassette"
        recorder = Recorder(
            FakeUpstream(answers),
            CassetteWriter(path, header()),
            report=reports.append,
            secrets=secrets,
        )
        for at, each in enumerate(requests):
            try:
                await ask(recorder, each, (left or {}).get(at))
            except UpstreamError:
                continue
        assert recorder.close("completed")
        assert reports == []
        return read(path)


async def replayed(
    cassette: Cassette, requests: Sequence[Request]
) -> tuple[list[Got], Replay]:
    replay = Replay(cassette)
    return [await ask(replay, each) for each in requests], replay


def of(cassette: Cassette, at: int = 0) -> Exchange:
    return cassette.exchanges[at]
