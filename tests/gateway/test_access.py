"""Who may call what: tokens, hosts and paths, over the wire."""

import pytest

from mas.gateway.access import DeniedError, Tokens, check_place
from tests.gateway.harness import Scene, gateway, worker
from tests.gateway.wire import MESSAGE, Message, RawUpstream, gives, response, upstream


async def denied(scene: Scene, claude: RawUpstream, raw: bytes) -> Message:
    """The answer to what must not be let through; the connection serves on."""
    line = await scene.line()
    answer = await line.ask(raw)
    assert (await line.ask(scene.post())).body == MESSAGE
    assert len(claude.heard) == 1
    assert len(scene.denials) == 1
    assert answer.header(b"content-type") == b"application/json"
    assert answer.header(b"x-should-retry") == b"false"
    return answer


async def test_a_token_is_good_in_either_header() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        bearer = (b"authorization", b"Bearer " + scene.token.encode())
        raw = scene.post(headers=[bearer]).replace(
            b"x-api-key: %b\r\n" % scene.token.encode(), b""
        )
        assert (await scene.ask(raw)).body == MESSAGE

    assert claude.heard[0].all(b"authorization") == []
    assert len(claude.heard[0].all(b"x-api-key")) == 1


@pytest.mark.parametrize(
    "token",
    ["", "x", "mas-", "sk-ant-somebody-else", "mas-" + "A" * 43, "é€".encode().hex()],
)
async def test_a_token_that_was_not_given_out_is_refused(token: str) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        answer = await denied(scene, claude, scene.post(token=token))

    assert answer.status == 401
    assert answer.json["error"]["type"] == "authentication_error"
    expected = "a token that this run did not give out" if token else "no token was"
    assert expected in answer.error
    assert scene.denials[0].startswith("POST '/v1/messages': ")
    assert not token or token not in scene.denials[0] + answer.error


async def test_a_request_without_any_token_is_refused() -> None:
    raw = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        answer = await denied(scene, claude, raw)

    assert (answer.status, answer.error) == (401, "mas: no token was sent")


async def test_the_token_of_an_attempt_that_ended_is_refused() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        former = scene.gateway.tokens.issue(worker(attempt=7))
        scene.gateway.tokens.revoke(former)
        scene.gateway.tokens.revoke(former)
        answer = await denied(scene, claude, scene.post(token=former))

    assert answer.status == 401
    words = "the token of agent_1, attempt 7 at load is not good any more"
    assert words in answer.error
    assert words in scene.denials[0]
    assert former not in answer.error + scene.denials[0]


async def test_a_call_counts_for_the_attempt_whose_token_it_has() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        other = scene.gateway.tokens.issue(worker(attempt=2))
        await scene.ask()
        await scene.ask(scene.post(token=other))
        calls = await scene.ended(2)

    assert [call.attempt for call in calls] == [1, 2]
    assert scene.ledger.usage_of("load", 2).output_tokens == 7


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = Tokens()
    given = {tokens.issue(worker()) for _ in range(100)}
    assert len(given) == 100
    assert min(map(len, given)) > 40


@pytest.mark.parametrize(
    "start",
    [
        b"POST http://api.anthropic.com/v1/messages HTTP/1.1",
        b"GET http://169.254.169.254/latest/meta-data HTTP/1.1",
        b"GET http://127.0.0.1/v1/models HTTP/1.1",
        b"CONNECT api.anthropic.com:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
    ],
)
async def test_a_request_for_another_host_is_refused(start: bytes) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        rest = scene.request().partition(b"\r\n")[2]
        answer = await denied(scene, claude, start + b"\r\n" + rest)

    assert answer.status == 403
    assert answer.json["error"]["type"] == "permission_error"
    assert "other hosts" in answer.error


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"evil.example", 403),
        (b"evil.example:8080", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"localhost.", 403),
        (b"", 403),
        (b"localhost", 200),
        (b"LocalHost:80", 200),
        (b"127.0.0.1", 200),
    ],
)
async def test_a_foreign_host_header_is_refused(host: bytes, status: int) -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        own = b"host: 127.0.0.1:%d" % scene.port
        raw = scene.post().replace(own, b"host: " + host)
        assert (await scene.ask(raw)).status == status

    assert len(claude.heard) == (status == 200)


CLOSED = [
    "/v1/messages/batches",
    "/v1/messages/batches/msgbatch_1/results?beta=true",
    "/v1/files",
    "/v1/files/file_1/content",
    "/v1/organizations/usage_report/messages",
    "/v1/skills",
    "/v1/complete",
    "/v1/agents",
    "/v1/sessions",
    "/v1/oauth/token",
    "/V1/FILES",
    "//v1///files//",
    "/v1/./files",
    "/v1/messages/../files",
    "/v1/models/../messages/./batches",
    "/v1/%66iles",
    "/v1/%46ILES",
    "/v1%2Ffiles",
    "/v1/messages/%2e%2e/files",
    "/v1/messages/.%2E%2ffiles",
    "/v1/messages%2fbatches",
    "/v1/files;x=1",
    "/v1\\files",
    "/v1/files%20",
    "/v1/files%3Fx",
    "/proxy/v1/files",
    "/files",
]
CLIMBING = [
    "/..",
    "/../v1/models",
    "/v1/../../v1/models",
    "/%2e%2e/x",
    "/a/..%5c..%5cb",
]


async def test_what_is_more_than_a_call_is_refused_however_it_is_written() -> None:
    async with upstream(gives(response())) as claude, gateway(claude.url) as scene:
        line = await scene.line()
        for target in CLOSED + CLIMBING:
            answer = await line.ask(scene.request(b"GET", target.encode()))
            assert answer.status == 403, target
            assert "not for agents" in answer.error or "climbs" in answer.error

    assert claude.heard == []
    assert len(scene.denials) == len(CLOSED + CLIMBING)


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/messages",
        b"/v1/messages?x=/v1/files",
        b"/v1/messages/count_tokens",
        b"/v1/models/claude-files",
        b"/v1/filesystem",
        b"/v1/batches-of-one",
        b"/v1/..files",
        b"/v1/%252e%252e/models",
    ],
)
def test_what_only_looks_like_it_passes(target: bytes) -> None:
    check_place(target, ((b"host", b"127.0.0.1:1"),))


def test_a_path_that_is_no_text_is_still_judged() -> None:
    with pytest.raises(DeniedError):
        check_place(b"/v1/%ff/../files", ((b"host", b"127.0.0.1"),))
