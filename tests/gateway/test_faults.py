"""What an upstream may do wrong, and what the client and the ledger then have."""

import socket

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

from mas.config import Credentials
from mas.errors import ConfigError
from mas.gateway import forward
from mas.gateway.forward import Forward
from mas.model import CallState, ModelCall
from tests.gateway.harness import Scene, gateway
from tests.gateway.wire import (
    END,
    MESSAGE,
    START,
    STREAM_HEAD,
    Line,
    Message,
    by_turns,
    chunked,
    delta,
    gives,
    hangs,
    response,
    streams,
    upstream,
)

WAITING = (429, 529)
SOON = (b"retry-after-ms", b"1")


def is_502(answer: Message, *words: str) -> None:
    """It is an error of ours, in Anthropic's form, that may be tried again."""
    assert answer.status == 502
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"x-should-retry") == b"true"
    assert answer.json["error"]["type"] == "api_error"
    assert answer.error.startswith("mas: Claude cannot be reached at http")
    for each in words:
        assert each in answer.error


async def unanswered(scene: Scene, *words: str) -> ModelCall:
    """Ask; there is no answer, for this reason, and the ledger says so."""
    is_502(await scene.ask(), *words)
    (call,) = await scene.ended()
    assert call.state is CallState.UNANSWERED
    assert call.usage.tokens == 0
    assert call.http_status is None
    assert all(each in (call.error or "") for each in words)
    return call


@pytest.mark.parametrize("status", range(400, 530))
async def test_each_status_passes_or_waits(status: int) -> None:
    body = b'{"type": "error", "error": {"type": "x", "message": "no \xc3\xa9"}}\n'
    headers = [(b"content-type", b"application/json"), SOON, (b"request-id", b"r")]
    refusal = response(body, status, headers)
    async with (
        upstream(by_turns(gives(refusal), gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()
        calls = await scene.ended(1 + (status in WAITING))

    first = calls[0]
    assert (first.state, first.http_status) == (CallState.REFUSED, status)
    assert first.error == "x: no é"
    assert first.usage.tokens == 0
    if status in WAITING:
        assert (answer.status, answer.body) == (200, MESSAGE)
        assert calls[1].state is CallState.COMPLETE
        assert claude.heard[0] == claude.heard[1]
        assert claude.connections == 1
    else:
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers == (*headers, (b"content-length", b"%d" % len(body)))


@pytest.mark.parametrize("body", [b"<html>502 Bad Gateway</html>", b"", b"\xff\x00"])
async def test_an_error_that_is_no_json_passes_as_it_is(body: bytes) -> None:
    raw = response(body, 400, [(b"content-type", b"text/html")])
    async with upstream(gives(raw)) as claude, gateway(claude.url) as scene:
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert (answer.status, answer.body) == (400, body)
    assert call.state is CallState.REFUSED


@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_that_is_none_is_no_answer(status: int) -> None:
    async with (
        upstream(gives(response(status=status))) as claude,
        gateway(claude.url) as scene,
    ):
        await unanswered(scene, f"HTTP {status}")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "without sending a response"),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", "disconnected"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "without sending a response"),
        (b"220 smtp.example ESMTP\r\n\r\n", "illegal status line"),
        (b"\x00\xff\x16\x03" * 100 + b"\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "illegal header line"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "Content-Length"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
            "conflicting Content-Length",
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, ""),
    ],
)
async def test_what_is_no_answer_is_an_error_of_ours(raw: bytes, words: str) -> None:
    async with upstream(gives(raw, close=True)) as claude, gateway(claude.url) as scene:
        call = await unanswered(scene, words)

    assert len(call.error or "") < 300


@pytest.mark.parametrize(
    "raw",
    [
        streams(START, delta("hello"), end=False),
        STREAM_HEAD + chunked(START, delta("hello"), end=False) + b"20\r\nhalf a chu",
        STREAM_HEAD + chunked(START, delta("hello"), end=False) + b"no size\r\n",
    ],
    ids=["between chunks", "in a chunk", "no chunk"],
)
async def test_a_stream_that_is_cut_is_cut_for_the_client_too(raw: bytes) -> None:
    async with upstream(gives(raw, close=True)) as claude, gateway(claude.url) as scene:
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert not answer.is_whole
    assert answer.body.startswith(START + delta("hello"))
    assert (call.state, call.http_status) == (CallState.CUT, 200)
    assert call.usage.input_tokens == 1000
    assert call.usage.output_tokens == call.usage.estimated_tokens > 0
    assert "broke off" in (call.error or "")


@pytest.mark.parametrize("length", [len(MESSAGE) + 1, 10**12])
async def test_an_answer_shorter_than_its_length_is_cut(length: int) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    raw = head + b"%d\r\n\r\n" % length + MESSAGE
    async with upstream(gives(raw, close=True)) as claude, gateway(claude.url) as scene:
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert (answer.body, answer.is_whole) == (MESSAGE, False)
    assert call.state is CallState.CUT


@pytest.mark.parametrize("surplus", [b"xx", response(b"somebody else's")])
async def test_what_comes_beyond_the_length_is_in_no_answer(surplus: bytes) -> None:
    async with (
        upstream(by_turns(gives(response() + surplus), gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        line = await scene.line()
        first = await line.ask(scene.post())
        second = await line.ask(scene.post())

    assert (first.status, first.body) == (200, MESSAGE)
    assert (second.status, second.body) == (200, MESSAGE)
    assert claude.connections == 2


async def test_a_stream_that_ends_early_passes_and_counts_as_cut() -> None:
    async with (
        upstream(gives(streams(START, delta("hello")))) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()
        (call,) = await scene.ended()

    assert answer.is_whole
    assert call.state is CallState.CUT
    assert call.usage.estimated_tokens > 0


async def test_an_answer_may_take_its_time() -> None:
    go_on = anyio.Event()

    async def answer(line: Line, _: Message) -> None:
        await go_on.wait()
        for at in range(0, len(whole), 3):  # as slowly as it may come
            await line.send(whole[at : at + 3])
            await checkpoint()

    whole = streams(START, delta("a"), END)
    async with upstream(answer) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post())
        await scene.until(lambda: scene.calls)
        assert scene.ledger.open_calls
        go_on.set()
        assert (await line.answer()).body == START + delta("a") + END
        (call,) = await scene.ended()

    assert call.state is CallState.COMPLETE


SILENCE_S = 0.2


async def test_silence_before_the_first_byte_ends() -> None:
    async with (
        upstream(hangs()) as claude,
        gateway(claude.url, silence_timeout_s=SILENCE_S) as scene,
    ):
        await unanswered(scene, "nothing came for 0.2 s")
        await claude.left.wait()


async def test_silence_in_a_stream_ends() -> None:
    said = STREAM_HEAD + chunked(START, end=False)
    async with (
        upstream(hangs(said)) as claude,
        gateway(claude.url, silence_timeout_s=SILENCE_S) as scene,
    ):
        answer = await scene.ask()
        (call,) = await scene.ended()
        await claude.left.wait()

    assert (answer.body, answer.is_whole) == (START, False)
    assert call.state is CallState.CUT
    assert "nothing came for 0.2 s" in (call.error or "")


async def test_an_upstream_that_takes_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "_SEND_TIMEOUT_S", SILENCE_S)

    with socket.create_server(("127.0.0.1", 0)) as deaf:  # whom nobody lets in
        async with gateway(f"http://127.0.0.1:{deaf.getsockname()[1]}") as scene:
            is_502(await scene.ask(scene.post(bytes(32 * 2**20))), "took nothing for")


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with gateway(f"http://127.0.0.1:{port}") as scene:
        await unanswered(scene, f"http://127.0.0.1:{port}", "Connection refused")


async def test_nobody_listens_on_any_address_of_a_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with gateway(f"http://localhost:{port}") as scene:
        await unanswered(scene, f"http://localhost:{port}", "refused")


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "a" * 70 + ".invalid", "a..b"]
)
async def test_a_name_that_is_not_known(host: str) -> None:
    async with gateway(f"http://{host}") as scene:
        await unanswered(scene, host)


async def test_tls_where_there_is_none() -> None:
    async def no_tls(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, no_tls)
        port = listener.extra(SocketAttribute.local_port)
        async with gateway(f"https://127.0.0.1:{port}") as scene:
            await unanswered(scene, f"https://127.0.0.1:{port}", "TLS: ")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["http://h:0", "http://h:99999", "ftp://h", "x"])
def test_an_address_that_is_none_is_said_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_BASE_URL is no address") as error:
        Forward(Credentials(base_url=address))
    assert "https://api.anthropic.com" in (error.value.hint or "")
