"""What the gateway sends on and gives back, compared byte for byte with what it got."""

import anyio
import pytest

from mas.model import CallState
from tests.gateway.harness import KEY, gateway
from tests.gateway.wire import (
    ASKED,
    END,
    MESSAGE,
    PING,
    START,
    STREAM_HEAD,
    CloseError,
    Line,
    Message,
    chunked,
    delta,
    gives,
    response,
    streams,
    upstream,
)

CONNECTION = (b"host", b"x-api-key", b"authorization")
"""What differs by intent."""

CLI_HEADERS = [
    (b"accept", b"application/json"),
    (b"anthropic-beta", b"claude-code-20250219,interleaved-thinking-2025-05-14"),
    (b"anthropic-dangerous-direct-browser-access", b"true"),
    (b"anthropic-version", b"2023-06-01"),
    (b"user-agent", b"claude-cli/2.1.330 (external, sdk-py)"),
    (b"x-app", b"cli"),
    (b"x-stainless-retry-count", b"0"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"x-twice", b"one"),
    (b"x-odd", b'\xe9\xff; \t,, "quoted"  kept'),
    (b"x-twice", b"two"),
    (b"x-empty", b""),
    (b"cookie", b"a=b; c=d"),
]


async def test_a_request_arrives_as_it_was_sent() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        body = ASKED + b" \n\xff\x00 not even JSON"
        answer = await scene.ask(scene.post(body, CLI_HEADERS))

    (heard,) = claude.heard
    assert heard.start == b"POST /v1/messages?beta=true HTTP/1.1"
    assert heard.body == body
    assert heard.without(*CONNECTION) == (
        (b"content-type", b"application/json"),
        *CLI_HEADERS,
        (b"content-length", b"%d" % len(body)),
    )
    assert heard.all(b"host") == [b"127.0.0.1:%d" % claude.port]
    assert heard.all(b"x-api-key") == [KEY.encode()]
    assert answer.body == MESSAGE


TARGETS = [
    b"/",
    b"/v1/messages/count_tokens?beta=true",
    b"/v1/models?limit=1000&after_id=",
    b"/v1/models?",
    b"/v1/models??x=?",
    b"/v1/models%2Fx%2fy/%E2%82%AC%e2%82%ac",
    b"/v1/a%20b+c/%25%00/~'()*!;=@:$,&",
    b"/v1//models///",
    b"/v1/./models/a/../b",
    b'/v1/models?q=%zz&r=a%20b&s=[]{}|\\^`"<>',
    b"/api/event_logging/batch",
    b"/v1/" + b"x" * 20_000,
]


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"M-SEARCH"])
async def test_target_and_method_arrive_as_they_were_written(method: bytes) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        for target in TARGETS:
            assert (await scene.ask(scene.request(method, target))).status == 200

    starts = [b"%b %b HTTP/1.1" % (method, target) for target in TARGETS]
    assert [heard.start for heard in claude.heard] == starts
    assert {heard.without(*CONNECTION) for heard in claude.heard} == {()}
    assert {heard.body for heard in claude.heard} == {b""}


async def test_the_path_of_the_base_url_goes_before() -> None:
    async with (
        upstream(gives(response())) as claude,
        gateway(f"{claude.url}/some%2Fproxy/") as scene,
    ):
        await scene.ask()

    assert claude.heard[0].target == b"/some%2Fproxy/v1/messages?beta=true"


async def test_a_head_request_has_the_headers_of_its_answer_alone() -> None:
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-a: b\r\n\r\n"
    async with upstream(gives(raw)) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        first = await line.ask(scene.request(b"HEAD", b"/"))
        second = await line.ask(scene.request(b"HEAD", b"/"))

    assert first == second
    assert (first.status, first.body) == (200, b"")
    assert first.headers == ((b"content-length", b"1234"), (b"x-a", b"b"))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-length", b"3")],  # which the coding overrules
    ],
)
async def test_a_body_in_chunks_goes_on_with_its_length(
    headers: list[tuple[bytes, bytes]],
) -> None:
    coding = (b"transfer-encoding", b"chunked")
    body = chunked(b'{"mod', b'el": "m"}', b"x" * 70_000)
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        raw = scene.request(b"POST", b"/v1/messages", [*headers, coding], body)
        answer = await scene.ask(raw)
        empty = scene.request(b"POST", b"/v1/x", [coding], chunked())
        await scene.ask(empty)

    assert answer.body == MESSAGE
    heard, nothing = claude.heard
    assert heard.body == b'{"model": "m"}' + b"x" * 70_000
    assert heard.all(b"content-length") == [b"%d" % len(heard.body)]
    assert heard.all(b"transfer-encoding") == []
    assert nothing.all(b"content-length") == [b"0"]


async def test_what_concerns_one_connection_stays_on_it() -> None:
    headers = [
        (b"connection", b"keep-alive, x-mine"),
        (b"keep-alive", b"timeout=5"),
        (b"x-mine", b"1"),
        (b"te", b"trailers"),
        (b"proxy-authorization", b"Basic eA=="),
        (b"upgrade", b"h2c"),
        (b"x-kept", b"1"),
    ]
    answer = response(
        headers=[
            (b"connection", b"x-theirs"),
            (b"keep-alive", b"timeout=5"),
            (b"x-theirs", b"1"),
            (b"proxy-authenticate", b"Basic"),
            (b"x-kept", b"2"),
        ]
    )
    async with upstream(gives(answer)) as claude, gateway(claude.url) as scene:
        got = await scene.ask(scene.request(headers=headers))

    assert claude.heard[0].without(*CONNECTION) == ((b"x-kept", b"1"),)
    length = (b"content-length", b"%d" % len(MESSAGE))
    assert got.headers == ((b"x-kept", b"2"), length)


async def test_no_header_takes_the_length_away() -> None:
    named = (b"connection", b"content-length, host, x-api-key")
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        assert (await scene.ask(scene.post(ASKED, [named]))).body == MESSAGE

    (heard,) = claude.heard
    assert heard.body == ASKED
    assert len(heard.all(b"host")) == len(heard.all(b"x-api-key")) == 1


async def test_a_client_of_http_1_0_has_its_answer_up_to_the_end() -> None:
    raw = streams(START, END)
    async with upstream(gives(raw)) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(scene.post().replace(b"HTTP/1.1", b"HTTP/1.0"))
        head = await line.head()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding" not in head.lower()
        assert await line.closed() == START + END

    assert claude.heard[0].start.endswith(b" HTTP/1.1")


async def test_a_client_that_asks_whether_to_send_its_body_is_told_to() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        head, body = scene.post(ASKED, [(b"expect", b"100-continue")]).split(
            b"\r\n\r\n"
        )
        await line.send(head + b"\r\n\r\n")
        assert (await line.head()).startswith(b"HTTP/1.1 100 ")
        answer = await line.ask(body)

    assert answer.body == MESSAGE
    assert claude.heard[0].body == ASKED
    assert claude.heard[0].header(b"expect") is None


async def test_connections_are_used_again_at_both_ends() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        for _ in range(20):
            assert (await line.ask(scene.post())).body == MESSAGE

    assert claude.connections == 1
    assert len(claude.heard) == 20


async def test_what_is_sent_ahead_of_an_answer_is_served_in_order() -> None:
    async def answer(line: Line, heard: Message) -> None:
        await line.send(response(heard.body))

    async with upstream(answer) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        await line.send(b"".join(scene.post(b"{}" + b" " * n) for n in range(5)))
        bodies = [(await line.answer()).body for _ in range(5)]

    assert bodies == [b"{}" + b" " * n for n in range(5)]


async def test_megabytes_pass_in_both_directions() -> None:
    body = bytes(range(256)) * 4096 * 8

    async def answer(line: Line, heard: Message) -> None:
        await line.send(response(heard.body[::-1]))

    async with upstream(answer) as claude, gateway(claude.url) as scene:
        answered = await scene.ask(scene.post(body))

    assert claude.heard[0].body == body
    assert answered.body == body[::-1]


async def test_fifty_streams_at_once_are_not_mixed() -> None:
    all_came = anyio.Event()
    count = 50

    async def answer(line: Line, heard: Message) -> None:
        if len(claude.heard) == count:
            all_came.set()
        await all_came.wait()
        own = heard.header(b"x-number") or b""
        await line.send(STREAM_HEAD + chunked(START, end=False))
        for at in range(40):
            words = f"{own.decode()}-{at} " * (1 + at % 7)
            await line.send(chunked(delta(words), PING, end=False))
        await line.send(chunked(END))
        raise CloseError

    def expected(number: int) -> bytes:
        words = (f"{number}-{at} " * (1 + at % 7) for at in range(40))
        return START + b"".join(delta(each) + PING for each in words) + END

    answers: dict[int, bytes] = {}

    async with upstream(answer) as claude, gateway(claude.url) as scene:

        async def ask(number: int) -> None:
            raw = scene.post(b"{}", [(b"x-number", b"%d" % number)])
            answers[number] = (await scene.ask(raw)).body

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(ask, number)
        calls = await scene.ended(count)

    assert answers == {number: expected(number) for number in range(count)}
    assert {call.state for call in calls} == {CallState.COMPLETE}
    assert scene.ledger.total.input_tokens == 1000 * count
    assert scene.ledger.total.output_tokens == 42 * count


async def test_a_stream_in_one_piece_is_not_cut_up() -> None:
    whole = streams(START + delta("x") + END)
    async with upstream(gives(whole)) as claude, gateway(claude.url) as scene:
        answer = await scene.ask()

    assert answer.chunks == (START + delta("x") + END,)
