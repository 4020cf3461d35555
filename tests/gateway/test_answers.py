"""What the gateway gives back of an answer: all of it, at once, and metered."""

import gzip
import zlib
from collections.abc import Callable

import anyio
import brotli
import pytest
import zstandard

from mas.model import CallState
from tests.gateway.harness import gateway
from tests.gateway.wire import (
    END,
    MESSAGE,
    PING,
    START,
    STREAM_HEAD,
    Line,
    Message,
    chunked,
    delta,
    gives,
    response,
    upstream,
)


async def test_an_answer_comes_as_it_was_given() -> None:
    headers = [
        (b"content-type", b"application/json; charset=weird"),
        (b"request-id", b"req_1"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"anthropic-ratelimit-requests-remaining", b"5"),
        (b"x-odd", b"\xe9\xff"),
        (b"date", b"yesterday"),
        (b"server", b"cloudflare"),
    ]
    async with (
        upstream(gives(response(MESSAGE, 200, headers))) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()

    assert answer.headers == (*headers, (b"content-length", b"%d" % len(MESSAGE)))
    assert answer.body == MESSAGE


async def test_an_answer_whose_coding_overrules_its_length_comes_whole() -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"
    async with (
        upstream(gives(raw + chunked(MESSAGE))) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()

    assert answer.body == MESSAGE
    assert answer.all(b"content-length") == []


async def test_an_answer_that_ends_with_its_connection_comes_whole() -> None:
    raw = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + MESSAGE
    async with (
        upstream(gives(raw, close=True)) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert (answer.body, answer.is_whole) == (MESSAGE, True)
    assert (call.state, call.usage.output_tokens) == (CallState.COMPLETE, 7)


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_one(status: int) -> None:
    raw = b"HTTP/1.1 %d No\r\nx-a: b\r\n\r\n" % status
    async with upstream(gives(raw)) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        first = await line.ask(scene.request())
        second = await line.ask(scene.request())

    assert first == second
    assert (first.status, first.headers) == (status, ((b"x-a", b"b"),))


async def test_interim_answers_do_not_disturb_the_final_one() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with (
        upstream(gives(go_on + early + response())) as claude,
        gateway(claude.url) as scene,
    ):
        assert (await scene.ask()).body == MESSAGE


async def test_each_event_and_each_ping_passes_at_once() -> None:
    parts = [START, PING, delta("one"), PING, delta("two"), END]
    passed = [anyio.Event() for _ in parts]

    async def answer(line: Line, _: Message) -> None:
        await line.send(STREAM_HEAD)
        for part, seen in zip(parts, passed, strict=True):
            await line.send(chunked(part, end=False))
            await seen.wait()  # nothing more comes before this was passed on
        await line.send(b"0\r\n\r\n")

    async with upstream(answer) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post())
        await line.head()
        for part, seen in zip(parts, passed, strict=True):
            assert await line.chunk() == part
            seen.set()
        await line.receive(b"0\r\n\r\n")
        (call,) = await scene.ended()

    assert call.state is CallState.COMPLETE
    assert (call.usage.input_tokens, call.usage.output_tokens) == (1000, 42)
    assert call.usage.estimated_tokens == 0


def packed_deflate(data: bytes) -> bytes:
    return zlib.compress(data)


def packed_zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"br", brotli.compress),
        (b"zstd", packed_zstd),
        (b"deflate", packed_deflate),
    ],
)
@pytest.mark.parametrize("step", [1, 100_000])
async def test_an_encoded_answer_passes_as_it_is_and_is_metered(
    coding: bytes, pack: Callable[[bytes], bytes], step: int
) -> None:
    packed = pack(START + delta("é" * 50) + END)
    head = STREAM_HEAD.replace(
        b"\r\n\r\n", b"\r\ncontent-encoding: %b\r\n\r\n" % coding
    )
    parts = [packed[at : at + step] for at in range(0, len(packed), step)]
    async with (
        upstream(gives(head + chunked(*parts))) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert answer.body == packed
    assert answer.header(b"content-encoding") == coding
    assert call.state is CallState.COMPLETE
    assert (call.usage.input_tokens, call.usage.output_tokens) == (1000, 42)
    assert call.error is None
