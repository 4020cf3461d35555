"""Key and token appear nowhere: not in a log, an error, an answer or the ledger."""

import logging
from base64 import b64encode

import pytest
from msgspec import json

from mas.config import Credentials
from mas.gateway.forward import forwarding
from tests.gateway.harness import KEY, Scene, gateway
from tests.gateway.wire import (
    ASKED,
    MESSAGE,
    Answer,
    CloseError,
    Line,
    Message,
    by_turns,
    gives,
    response,
    streams,
    upstream,
)


def repeats(start: bytes, *, end: bytes = b"") -> Answer:
    """Answer with what was asked, as a careless proxy does."""

    async def answer(line: Line, heard: Message) -> None:
        lines = [name + b": " + value for name, value in heard.headers]
        await line.send(start + b"\r\n".join(lines) + end)
        raise CloseError

    return answer


def repeats_in_body(status: int) -> Answer:
    async def answer(line: Line, heard: Message) -> None:
        key = heard.header(b"x-api-key") or b"none"
        headers = [(b"content-type", b"application/json"), (b"x-your-key", key)]
        body = b'{"error": {"type": "auth", "message": "bad key %b"}}' % key
        await line.send(response(body, status, headers))

    return answer


FAILURES: list[Answer] = [
    gives(streams(MESSAGE, end=False), close=True),
    gives(b"", close=True),
    repeats(b""),
    repeats(b"HTTP/1.1 200 OK\r\nno header ", end=b"\r\n\r\n"),
    repeats(b"HTTP/1.1 200 ", end=b"\r\n\r\n"),
    repeats(b"HTTP/1.1 200 OK\r\ncontent-length: ", end=b"\r\n\r\n"),
    repeats(b"HTTP/1.1 200 OK\r\nno header x-api-key: %b " % KEY.encode()),
    gives(b"HTTP/1.1 200 OK\r\nbroken %b\r\n\r\n" % KEY.encode(), close=True),
    gives(b"%b\r\n\r\n" % KEY.encode(), close=True),
    repeats_in_body(200),
    repeats_in_body(400),
    repeats_in_body(401),
]
# With an answer after each: else the third failure in a row makes the fourth wait.
ODD = [answer for failure in FAILURES for answer in (failure, gives(response()))]


async def provoked(scene: Scene) -> list[Message]:
    """The answers to requests of all kinds, good and bad."""
    token = scene.token.encode()
    former = scene.gateway.tokens.issue(scene.caller)
    scene.gateway.tokens.revoke(former)
    raws = [scene.post(headers=[(b"x-copy", b"1")]) for _ in ODD]
    raws += [
        scene.post(token=former),
        scene.post(token=scene.token + "x"),
        scene.request(b"GET", b"/v1/files?key=" + token),
        scene.post(b"x" * 10).replace(b"127.0.0.1", b"evil"),
    ]
    return [await scene.ask(raw) for raw in raws]


async def test_no_secret_is_in_anything_that_comes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with upstream(by_turns(*ODD)) as claude, gateway(claude.url) as scene:
        answers = await provoked(scene)
        await scene.ended(len(ODD))

    assert len(claude.heard) == len(ODD)
    assert all(heard.all(b"x-api-key") == [KEY.encode()] for heard in claude.heard)
    assert all(
        scene.token.encode() not in str(heard).encode() for heard in claude.heard
    )
    produced = [
        caplog.text,
        json.encode(scene.written).decode(),
        repr(scene.calls),
        repr(scene.ledger.__dict__),
        *scene.denials,
        *scene.notices,
        *map(repr, scene.waits),
        *map(repr, answers),
    ]
    for secret in (KEY, scene.token):
        assert not [text for text in produced if secret in text]


async def test_a_repeated_key_is_masked_and_the_length_is_kept() -> None:
    async with (
        upstream(repeats_in_body(401)) as claude,
        gateway(claude.url) as scene,
    ):
        answer = await scene.ask()
        (call,) = await scene.ended()

    stars = "*" * len(KEY)
    assert answer.is_whole
    assert answer.header(b"x-your-key") == stars.encode()
    assert answer.json["error"]["message"] == f"bad key {stars}"
    assert call.error == f"auth: bad key {stars}"


async def test_a_token_goes_as_a_bearer_and_a_key_beside_it() -> None:
    async with upstream(gives(response())) as claude:
        credentials = Credentials(
            api_key=KEY, auth_token="a-token-of-ours", base_url=claude.url
        )
        async with forwarding(credentials) as forward, gateway(forward) as scene:
            await scene.ask(scene.post(ASKED, [(b"x-after", b"1")]))

    heard = claude.heard[0]
    assert heard.all(b"x-api-key") == [KEY.encode()]
    assert heard.all(b"authorization") == [b"Bearer a-token-of-ours"]


async def test_a_password_in_the_address_is_sent_and_never_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with upstream(by_turns(gives(response()), gives(b"", close=True))) as claude:
        address = claude.url.replace("//", "//somebody:pass%20word-of-mine@")
        async with gateway(address) as scene:
            assert (await scene.ask()).status == 200
            failure = await scene.ask()

    basic = b"Basic " + b64encode(b"somebody:pass word-of-mine")
    assert claude.heard[0].all(b"authorization") == [basic]
    for text in (caplog.text, failure.error, *(c.error or "" for c in scene.calls)):
        assert "word-of-mine" not in text
        assert "somebody" not in text
    assert f"127.0.0.1:{claude.port}: " in failure.error
