"""Recording: everything passes as it is, and is kept without what must not be kept."""

import errno
import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from anyio import CancelScope, lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.cassettes.cassette import CassetteWriter, Exchange
from mas.gateway.cassettes.recording import Recorder
from mas.gateway.exchange import CutError, Request, UpstreamError
from tests.gateway.cassettes.taping import (
    JSON,
    OTHER_TASK,
    SESSION,
    STREAM,
    TASK,
    Answer,
    FakeUpstream,
    ask,
    call,
    caller,
    cut,
    failed,
    header,
    message,
    of,
    recorded,
    request,
    result,
    said,
    silent,
    text,
    wire,
)


class Memory:
    """Keeps exchanges; ``room``: how many before the disk is full."""

    def __init__(self, room: int = 1_000) -> None:
        self.exchanges: list[Exchange] = []
        self.statuses: list[str] = []
        self.is_abandoned = False
        self._room = room

    def write(self, exchange: Exchange) -> None:
        if len(self.exchanges) == self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.exchanges.append(exchange)

    def close(self, status: str) -> None:
        self.statuses.append(status)

    def abandon(self) -> None:
        self.is_abandoned = True


def recording(
    *answers: Answer | Exception, memory: Memory, reports: list[str] | None = None
) -> Recorder:
    noted: list[str] = [] if reports is None else reports
    return Recorder(FakeUpstream(answers), memory, report=noted.append)


async def kept(answer: Answer | Exception, asked: Request | None = None) -> Exchange:
    """The one exchange that is kept of this answer."""
    memory = Memory()
    with suppress(UpstreamError):
        await ask(recording(answer, memory=memory), asked or request("count"))
    (exchange,) = memory.exchanges
    return exchange


async def test_everything_passes_as_it_is() -> None:
    pieces = [b"event: x\n", b"", b"\xff\0", b"rest"]
    headers = ((b"x-odd", b"\xe9"), *STREAM, (b"x-odd", b"2"))
    upstream = FakeUpstream([Answer(206, headers, pieces)])
    recorder = Recorder(upstream, Memory(), report=print)
    sent = request("count")

    got = await ask(recorder, sent)

    assert upstream.requests == [sent]
    assert recorder.is_first_party
    assert recorder.is_paid
    assert (got.status, got.headers, got.pieces) == (206, headers, pieces)


async def test_each_chunk_passes_before_the_next_comes() -> None:
    waiting: list[int] = []

    class Paced(Answer):
        async def chunks(self) -> Any:
            for at in range(3):
                waiting.append(at)
                yield b"x"

    recorder = recording(Paced(headers=STREAM), memory=Memory())
    async with recorder.open(request("count")) as response:
        chunks = response.chunks()
        for at in range(3):
            assert await anext(chunks) == b"x"
            assert waiting == list(range(at + 1))


async def test_what_is_kept_of_an_exchange() -> None:
    answer = said(text("I look."), call("Bash", "toolu_01abc", command="ls"))
    exchange = await kept(answer, request("count", system=[text("You work.")]))

    assert (exchange.subtask, exchange.attempt, exchange.thread) == ("load", 1, "main")
    assert (exchange.ordinal, exchange.call) == (1, "")
    assert exchange.asked is not None
    assert exchange.asked.model == "claude-x"
    assert exchange.asked.stream
    assert exchange.asked.system_text == "You work."
    assert exchange.asked.tools == ("Agent", "Bash", "Write")
    assert exchange.asked.news == ("user: count",)
    assert exchange.answer.end == "complete"
    assert exchange.answer.headers == {
        "content-type": "text/event-stream; charset=utf-8"
    }
    assert exchange.answer.message == {
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [
            text("I look."),
            {
                "type": "tool_use",
                "id": "toolu_0",
                "name": "Bash",
                "input": {"command": "ls"},
            },
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 20},
    }


async def test_only_news_are_kept_of_a_history() -> None:
    calls = [call("Bash", "toolu_1"), call("Agent", "toolu_2")]
    after = request(
        "count",
        calls,
        [
            result("toolu_2", [text("four")]),  # a subagent that ended first
            result("toolu_1", "no", is_error=True, cache_control={}),
            text("<system-reminder>\nnote\n</system-reminder>"),
            text("go on"),
            {"type": "image", "source": {"data": "AA=="}},
        ],
    )

    asked = (await kept(said(text("done")), after)).asked

    assert asked is not None
    assert asked.news[:3] == (
        "error of Bash: no",
        "result of Agent: four",
        "user: go on",
    )
    assert asked.news[3].startswith("user: (image ")


async def test_a_long_result_is_kept_by_its_beginning_and_a_digest() -> None:
    async def news(words: str) -> str:
        history = request(
            "count", [call("Bash", "toolu_1")], [result("toolu_1", words)]
        )
        asked = (await kept(said(text("done")), history)).asked
        assert asked is not None
        return asked.news[0]

    first, second = await news("x" * 100_000), await news("x" * 99_999 + "y")

    assert len(first) < 9_000
    assert first != second


async def test_a_system_prompt_is_kept_once() -> None:
    answers = [said(text(str(at))) for at in range(3)]
    cassette = await recorded(
        answers, [request("a"), request("b"), request("c", system="Another.")]
    )

    texts = [each.asked and each.asked.system_text for each in cassette.exchanges]
    assert texts == ["You work.", "", "Another."]


async def test_names_of_the_run_are_placeholders() -> None:
    folder = f"/shared/{TASK}"
    answer = said(
        call("Write", file_path=f"{folder}/load/a", content="{workspace}"),
        text(f"see {folder}/clean, session {SESSION}"),
    )
    exchange = await kept(answer, request(f"work in {folder}/load"))

    assert exchange.answer.message is not None
    first, second = exchange.answer.message["content"]
    assert first["input"] == {"file_path": "{workspace}/a", "content": "{=workspace}"}
    assert second["text"] == "see {folder}/clean, session {session}"
    assert exchange.asked is not None
    assert exchange.asked.news == ("user: work in {workspace}",)
    assert OTHER_TASK not in str(exchange)
    assert TASK not in str(exchange)


async def test_a_refusal_is_kept_with_what_tells_the_client_what_to_do() -> None:
    body = {
        "type": "error",
        "error": {"type": "rate_limit_error"},
        "request_id": "req_1",
    }
    answer = failed(
        429,
        (b"retry-after", b"3"),
        (b"x-should-retry", b"true"),
        (b"request-id", b"req_1"),
        (b"anthropic-ratelimit-requests-limit", b"50"),
        body=json.dumps(body).encode(),
    )

    kept_answer = (await kept(answer)).answer

    assert kept_answer.status == 429
    assert kept_answer.headers == {
        "content-type": "application/json",
        "retry-after": "3",
        "x-should-retry": "true",
    }
    assert kept_answer.body == {"type": "error", "error": {"type": "rate_limit_error"}}


async def test_a_body_that_is_no_json_is_kept_as_text() -> None:
    html = Answer(502, ((b"content-type", b"text/html"),), [b"<h1>\xff Bad"])

    answer = (await kept(html)).answer

    assert (answer.status, answer.text, answer.end) == (502, "<h1>� Bad", "complete")


async def test_a_whole_message_is_kept_like_a_streamed_one() -> None:
    blocks = [text("hi"), call("Bash", command="ls")]
    plain = Answer(200, JSON, [json.dumps(message(*blocks)).encode()])

    first = (await kept(plain, request("count", stream=False))).answer.message
    second = (await kept(said(*blocks))).answer.message

    assert first == second


BLOCKS = [text("words that come in more than one piece"), call("Bash", command="ls")]


@pytest.mark.parametrize(
    ("answer", "end", "content", "is_open"),
    [
        (cut(*BLOCKS, events=5), "cut", [text(BLOCKS[0]["text"][:48])], True),
        (cut(*BLOCKS, events=7), "cut", BLOCKS[:1], True),
        (cut(*BLOCKS, events=6, error=False), "short", BLOCKS[:1], False),
        (cut(*BLOCKS, events=1), "cut", [], False),
    ],
)
async def test_an_answer_that_broke_off_is_kept_as_far_as_it_came(
    answer: Answer, end: str, content: list[Any], is_open: bool
) -> None:
    exchange = await kept(answer)

    got = exchange.answer
    assert got.message is not None
    assert got.end == end
    words = [block.get("text") for block in got.message["content"]][: len(content)]
    assert words == [block["text"] for block in content]
    assert got.has_open_block is (is_open or len(got.message["content"]) > len(content))


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        (
            [*cut(text("a"), events=3).pieces, b'data: {"type": "error"}\n\n'],
            "error",
        ),
        ([b"data: {\n\n", wire(text("a"))], "garbage"),
        ([], "short"),
    ],
)
async def test_other_ends_of_a_stream_are_told_apart(
    pieces: list[bytes], end: str
) -> None:
    assert (await kept(Answer(200, STREAM, pieces))).answer.end == end


async def test_no_answer_is_kept_as_none() -> None:
    exchange = await kept(silent("no route"))

    assert (exchange.answer.end, exchange.answer.error) == ("unanswered", "no route")


@pytest.mark.parametrize(("seen", "end"), [(0, "left"), (3, "left"), (12, "complete")])
async def test_an_answer_whose_client_left_is_told_from_one_that_ended(
    seen: int, end: str
) -> None:
    memory = Memory()
    pieces = [wire(*BLOCKS)[at : at + 128] for at in range(0, len(wire(*BLOCKS)), 128)]
    stop = len(pieces) if end == "complete" else seen
    recorder = recording(Answer(200, STREAM, pieces), memory=memory)
    with CancelScope() as scope:
        async with recorder.open(request("count")) as response:
            chunks = response.chunks()
            for _ in range(stop):
                await anext(chunks)
            scope.cancel()
            await lowlevel.checkpoint()

    assert memory.exchanges[0].answer.end == end


async def test_compressed_answers_are_read() -> None:
    data = gzip.compress(wire(*BLOCKS))
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    headers = (*STREAM, (b"content-encoding", b"gzip"))

    answer = (await kept(Answer(200, headers, pieces))).answer

    assert answer.message is not None
    assert len(answer.message["content"]) == 2


@pytest.mark.parametrize(
    ("encoding", "pieces"),
    [(b"snappy", [b"x"]), (b"gzip", [b"no gzip"])],
)
async def test_what_cannot_be_read_passes_and_is_noted(
    encoding: bytes, pieces: list[bytes]
) -> None:
    memory = Memory()
    headers = (*STREAM, (b"content-encoding", encoding))
    recorder = recording(Answer(200, headers, pieces), memory=memory)

    got = await ask(recorder, request("count"))

    assert got.pieces == pieces
    assert memory.exchanges[0].answer.not_recorded
    assert memory.exchanges[0].answer.message is None


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"[" * 100_000])
async def test_a_body_that_is_no_object_passes(body: bytes) -> None:
    memory = Memory()
    sent = Request(
        caller=caller(),
        method="POST",
        target=b"/v1/messages",
        headers=(),
        body=body,
    )

    await ask(recording(failed(400), memory=memory), sent)

    assert memory.exchanges[0].asked is None
    assert memory.exchanges[0].answer.status == 400


async def test_what_is_nested_too_deeply_passes_and_is_noted() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    body = json.dumps({"deep": deep}).encode()
    memory = Memory()

    got = await ask(recording(Answer(200, JSON, [body]), memory=memory), request("a"))

    assert got.body == body
    kept_answer = memory.exchanges[0].answer
    assert kept_answer.not_recorded == "it is nested too deeply" or kept_answer.body


async def test_threads_and_ordinals() -> None:
    other = caller("clean")
    search_tools = [{"type": "web_search", "name": "web_search"}]
    requests = [
        request("count"),
        request("half one", agent="a1"),
        request("half two", agent="a2"),
        request("half one", agent="a3"),  # another one with the same prompt
        request("half one", [call("Bash")], [result("x", "1")], agent="a1"),
        request("search for it", tools=search_tools),
        request("count", who=other),
        request("count", path="/v1/messages/count_tokens"),
        request("plan", who=caller(None), tools=[]),
        request("count", [call("Bash")], [result("x", "1")]),
    ]
    cassette = await recorded([said(text("ok"))] * len(requests), requests)

    places = [
        (each.subtask, each.thread, each.call, each.ordinal)
        for each in cassette.exchanges
    ]
    one, two, search = places[1][1], places[2][1], places[5][1]
    assert one.startswith("subagent ")
    assert "half one" in one
    assert search.startswith("side request ")
    assert places == [
        ("load", "main", "", 1),
        ("load", one, "", 1),
        ("load", two, "", 1),
        ("load", f"{one} (2)", "", 1),
        ("load", one, "", 2),
        ("load", search, "", 1),
        ("clean", "main", "", 1),
        ("load", "main", "POST /v1/messages/count_tokens", 1),
        (None, "main", "", 1),
        ("load", "main", "", 2),
    ]


async def test_a_secret_is_nowhere_in_the_file(tmp_path: Path) -> None:
    secret = 'hush "é" hush/'
    twice = json.dumps({"key": secret})
    answers: list[Answer | Exception] = [
        said(
            text(f"the key is {secret}"),
            call("Write", content=twice, **{secret: 1}),
        ),
        failed(401, (b"retry-after", secret.encode("latin-1")), body=twice.encode()),
        Answer(502, ((b"content-type", b"text/html"),), [secret.encode()]),
        silent(f"no route to {secret}"),
        cut(text(secret), events=4),
        said(text("sk-ant-api03-abcdefgh")),
    ]
    requests = [
        request(f"use {secret}", system=twice, model=secret),
        request(f"half {secret}", agent="a1"),
        request(
            "a", [call(secret, "t")], [result("t", twice)], tools=[{"name": secret}]
        ),
        request("b"),
        request("c"),
        request("d", metadata={"user_id": secret}, path=f"/v1/{quote(secret)}"),
    ]
    data = b""

    def read(path: Path) -> Any:
        nonlocal data
        data = gzip.decompress(path.read_bytes())

    await recorded(answers, requests, secrets=[secret], read=read)

    assert b"hush" not in data
    assert b"sk-ant" not in data
    assert data.count(b"{secret}") >= 10


async def test_a_full_disk_ends_the_recording_and_not_the_run() -> None:
    memory = Memory(room=1)
    reports: list[str] = []
    answers = [said(text(str(at))) for at in range(4)]
    recorder = recording(*answers, memory=memory, reports=reports)

    for at in range(4):
        got = await ask(recorder, request(f"count {at}"))
        assert got.content == [text(str(at))]
    assert not recorder.close("completed")

    assert reports == [
        "the recording cannot be written and ends here: No space left on device"
    ]
    assert len(memory.exchanges) == 1
    assert memory.is_abandoned
    assert memory.statuses == []


async def test_a_recording_that_cannot_be_ended_is_said(tmp_path: Path) -> None:
    reports: list[str] = []
    path = tmp_path / "run"
    writer = CassetteWriter(path, header())
    recorder = Recorder(FakeUpstream([]), writer, report=reports.append)
    path.mkdir()  # nothing can get this name now

    assert not recorder.close("completed")

    (report,) = reports
    assert "Is a directory" in report


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    words=st.text(max_size=200),
)
async def test_chunks_of_any_size_make_the_same_recording(
    sizes: list[int], words: str
) -> None:
    data = wire(text(words), call("Bash", command=words))
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]

    exchange = await kept(Answer(200, STREAM, pieces))

    assert exchange == await kept(said(text(words), call("Bash", command=words)))


async def test_the_end_of_the_run_is_in_the_file() -> None:
    cassette = await recorded([said(text("ok"))], [request("count")])

    assert cassette.status == "completed"
    assert of(cassette).answer.status == 200


async def test_an_answer_that_broke_off_breaks_off_for_its_client_too() -> None:
    got = await ask(recording(cut(text("a"), events=2), memory=Memory()), request("a"))

    assert isinstance(got.cut, CutError)
