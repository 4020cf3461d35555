"""How the gateway's server ends."""

from typing import Any

import anyio
import pytest

from mas.gateway import server
from mas.model import CallState
from tests.gateway.harness import gateway
from tests.gateway.wire import START, STREAM_HEAD, Line, chunked, hangs, upstream


async def test_a_server_that_is_stopped_cuts_what_hangs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_CLOSING_S", 0.1)
    said = STREAM_HEAD + chunked(START, end=False)
    async with upstream(hangs(said)) as claude:
        async with gateway(claude.url) as scene:
            line = await scene.line()
            scene.lines.clear()
            await line.send(scene.post())
            await line.head()
        await claude.left.wait()
        assert (await line.closed()).endswith(START + b"\r\n")
        await line.stream.aclose()

    assert scene.calls[0].state is CallState.CUT
    assert scene.written[-1].state is CallState.CUT
    assert caplog.text == ""


async def test_a_server_that_is_cancelled_leaves_nothing() -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("answer")

    began = anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            serving = server.LoopbackServer(app, server.listen())
            tasks.start_soon(serving.serve_until_stopped)
            await serving.ready.wait()
            port = int(serving.url.rpartition(":")[2])
            line = Line(await anyio.connect_tcp("127.0.0.1", port))
            await line.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await began.wait()
            tasks.cancel_scope.cancel()
        assert ended == ["answer"]
        await line.closed()
        await line.stream.aclose()
