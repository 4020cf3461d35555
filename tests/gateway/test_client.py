"""What a client may do: leave, send too much, or what is no HTTP."""

import json

import anyio
import psutil
import pytest

from mas.gateway.client import MAX_BODY_BYTES
from mas.model import CallState
from tests.gateway.harness import gateway
from tests.gateway.wire import (
    ASKED,
    MESSAGE,
    START,
    STREAM_HEAD,
    Line,
    Message,
    chunked,
    delta,
    gives,
    hangs,
    response,
    upstream,
)


async def test_a_client_that_leaves_before_the_answer_ends_the_call() -> None:
    async with upstream(hangs()) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post())
        await scene.until(lambda: scene.calls)
        await line.stream.aclose()
        await claude.left.wait()
        (call,) = await scene.ended()

    assert call.state is CallState.UNANSWERED
    assert call.usage.tokens == 0


async def test_a_client_that_leaves_in_a_stream_ends_the_call() -> None:
    said = STREAM_HEAD + chunked(START, delta("word " * 40), end=False)
    async with upstream(hangs(said)) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post())
        await line.head()
        await line.chunk()
        await line.stream.aclose()
        await claude.left.wait()
        (call,) = await scene.ended()

    assert (call.state, call.http_status) == (CallState.CUT, 200)
    assert call.usage.input_tokens == 1000
    assert call.usage.output_tokens == call.usage.estimated_tokens >= 40


async def test_a_client_that_reads_nothing_and_leaves_ends_the_call() -> None:
    async def answer(line: Line, _: Message) -> None:
        await line.send(STREAM_HEAD + chunked(START, end=False))
        while True:  # until it is left, as its buffers fill up
            await line.send(chunked(delta("x" * 60_000), end=False))

    async with upstream(answer) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post())
        await line.head()
        await anyio.wait_all_tasks_blocked()
        await line.stream.aclose()
        await claude.left.wait()
        (call,) = await scene.ended()

    assert call.state is CallState.CUT


async def test_a_client_that_leaves_before_its_body_was_sent_costs_nothing() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post()[:-10])
        await line.stream.aclose()
        assert (await scene.ask()).body == MESSAGE
        assert len(await scene.ended()) == 1

    assert len(claude.heard) == 1


@pytest.mark.parametrize(
    "raw",
    [b"EHLO x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\xfc" * 10 + b"\r\n\r\n"],
)
async def test_a_client_that_speaks_no_http_is_told_so(raw: bytes) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        answer = await line.ask(raw)
        assert await line.closed() == b""

    assert answer.status == 400
    assert answer.error == "mas: Invalid HTTP request received."


async def test_garbage_behind_an_early_answer_ends_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        coding = (b"transfer-encoding", b"chunked")
        raw = scene.request(b"POST", b"/v1/messages", [coding], token="x")
        assert (await line.ask(raw)).status == 401
        await line.send(b"no size\r\n")
        assert await line.closed() == b""

    assert caplog.text == ""


async def test_a_body_of_100_mb_is_refused_before_it_is_read() -> None:
    size = 100 * 2**20
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        length = (b"content-length", b"%d" % size)
        await line.send(scene.request(b"POST", b"/v1/messages", [length]))
        refusal = await line.answer()
        before = psutil.Process().memory_info().rss
        for _ in range(100):  # it need not be read, but a client may send it all
            await line.send(bytes(2**20))
        grown = psutil.Process().memory_info().rss - before
        assert (await line.ask(scene.post())).body == MESSAGE

    assert_too_large(refusal, scene.denials)
    assert grown < 20 * 2**20
    assert len(claude.heard) == 1


async def test_chunks_of_100_mb_are_refused_when_there_are_too_many() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        coding = (b"transfer-encoding", b"chunked")
        before = psutil.Process().memory_info().rss
        await line.send(scene.request(b"POST", b"/v1/messages", [coding]))
        for _ in range(100):
            await line.send(chunked(bytes(2**20), end=False))
        await line.send(b"0\r\n\r\n")
        refusal = await line.answer()
        grown = psutil.Process().memory_info().rss - before
        assert (await line.ask(scene.post())).body == MESSAGE

    assert_too_large(refusal, scene.denials)
    assert grown < 2 * MAX_BODY_BYTES
    assert len(claude.heard) == 1


def assert_too_large(refusal: Message, denials: list[str]) -> None:
    assert refusal.status == 413
    assert refusal.json["error"]["type"] == "request_too_large"
    assert refusal.error == "mas: a request of more than 64 MiB does not pass"
    assert refusal.header(b"x-should-retry") == b"false"
    (denial,) = denials
    assert denial.endswith("64 MiB does not pass")


async def test_a_body_of_32_mb_passes() -> None:
    async def answer(line: Line, heard: Message) -> None:
        await line.send(response(b"%d" % len(heard.body)))

    size = 32 * 2**20
    body = json.dumps({"model": "m", "x": "y" * size}).encode()
    async with upstream(answer) as claude, gateway(claude.url) as scene:
        answered = await scene.ask(scene.post(body))
        (call,) = await scene.ended()

    assert answered.body == b"%d" % len(body)
    assert call.model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"[1]",
        b'{"model": 7}',
        b'{"model": "\xff"}',
        b"[" * 100_000,
        json.dumps({"model": "m" * 10_000}).encode(),
        b'{"model": "a\\u0000b"}',
        ASKED[:-1],
    ],
)
async def test_a_body_that_is_no_request_passes_all_the_same(body: bytes) -> None:
    async with upstream(gives(response(b"", 400))) as claude, gateway(claude.url) as s:
        assert (await s.ask(s.post(body))).status == 400
        (call,) = await s.ended()

    assert claude.heard[0].body == body
    assert call.state is CallState.REFUSED
    assert len(call.model) <= 200
