"""Claude behind a proxy that the environment names."""

import anyio
import pytest

from tests.gateway.harness import KEY, gateway
from tests.gateway.wire import (
    MESSAGE,
    CloseError,
    Line,
    Message,
    gives,
    response,
    upstream,
)

HOST = "claude.invalid"


@pytest.fixture(autouse=True)
def _no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_plain_http_goes_through_it_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with upstream(gives(response())) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with gateway(f"http://{HOST}") as scene:
            assert (await scene.ask()).body == MESSAGE
            await scene.ask(scene.request(b"GET", b"/v1/models%2Fx?"))

    assert [heard.target for heard in proxy.heard] == [
        f"http://{HOST}/v1/messages?beta=true".encode(),
        f"http://{HOST}/v1/models%2Fx?".encode(),
    ]
    assert proxy.heard[0].all(b"host") == [HOST.encode()]
    assert proxy.heard[0].all(b"x-api-key") == [KEY.encode()]


async def test_tls_goes_through_a_tunnel_that_does_not_see_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hello = b""

    async def tunnel(line: Line, _: Message) -> None:
        nonlocal hello
        await line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with anyio.fail_after(5):
            hello = await line.stream.receive()
        raise CloseError

    async with upstream(tunnel) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with gateway(f"https://{HOST}") as scene:
            answer = await scene.ask()

    (heard,) = proxy.heard
    assert heard.start == f"CONNECT {HOST}:443 HTTP/1.1".encode()
    assert KEY.encode() not in repr(heard).encode() + hello
    assert hello.startswith(b"\x16\x03")  # TLS
    assert answer.status == 502


async def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with upstream(gives(raw)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with gateway(f"https://{HOST}") as scene:
            answer = await scene.ask()

    assert answer.status == 502
    assert "407 Proxy Authentication Required" in answer.error
