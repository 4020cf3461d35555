"""generate_embedding over HTTP, and without a service."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream

from mas.agent.tools.generate_embedding import generate_embedding
from mas.agent.tools.replies import Reply


def text_of(reply: Reply) -> str:
    text: str = reply["content"][0]["text"]
    return text


@asynccontextmanager
async def service(answer: Callable[[list[str]], bytes]) -> AsyncIterator[str]:
    """An embedding service: ``answer`` makes the whole HTTP response."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            head, _, body = request.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().splitlines()
                if line.startswith(b"content-length:")
            )
            while len(body) < length:
                body += await stream.receive()
            assert head.startswith(b"POST /embed ")
            await stream.send(answer(json.loads(body)["texts"]))

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}/"
        tasks.cancel_scope.cancel()


def ok(body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


async def test_a_text_becomes_a_vector(tmp_path: Path) -> None:
    async with service(lambda texts: ok({"vectors": [[0.5, 1.0]] * len(texts)})) as url:
        reply = await generate_embedding(url, tmp_path).handler({"text": "a"})
    answer = json.loads(text_of(reply))
    assert answer == {"count": 1, "dimensions": 2, "vectors": [[0.5, 1.0]]}


async def test_many_vectors_come_as_a_file(tmp_path: Path) -> None:
    async with service(
        lambda texts: ok({"vectors": [[0.25] * 400] * len(texts)})
    ) as url:
        tool = generate_embedding(url, tmp_path)
        reply = await tool.handler({"texts": ["x"] * 50})
    answer = json.loads(text_of(reply))
    assert (answer["count"], answer["dimensions"]) == (50, 400)
    vectors = json.loads(Path(answer["file"]).read_text())
    assert vectors == [[0.25] * 400] * 50
    assert Path(answer["file"]).parent == tmp_path


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            lambda texts: b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull",
            "503: full",
        ),
        (lambda texts: b"", "disconnected"),
        (lambda texts: ok({"vectors": []}), "0 vectors came back for 1 texts"),
        (lambda texts: ok({"else": 1}), "array"),
        (lambda texts: ok("nonsense")[:-3], "without sending complete"),
    ],
)
async def test_a_service_that_fails_is_an_error_to_go_on_from(
    tmp_path: Path, answer: Callable[[list[str]], bytes], reason: str
) -> None:
    async with service(answer) as url:
        reply = await generate_embedding(url, tmp_path).handler({"text": "a"})
    assert reply["is_error"]
    assert reason in text_of(reply)
    assert "Go on without embeddings" in text_of(reply)


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1", "nonsense"])
async def test_no_service_is_an_error_to_go_on_from(
    tmp_path: Path, url: str | None
) -> None:
    reply = await generate_embedding(url, tmp_path).handler({"text": "a"})
    assert reply["is_error"]
    assert "Go on without embeddings" in text_of(reply)


async def test_no_text_is_an_error(tmp_path: Path) -> None:
    reply = await generate_embedding("http://127.0.0.1:1", tmp_path).handler({})
    assert text_of(reply) == "Give text, or texts."
