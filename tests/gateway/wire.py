"""Raw HTTP: messages as they are on the wire, upstreams that answer exact bytes."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

MODEL = "claude-sonnet-5-5"
_MOST_HEAD = 2**20

MESSAGE = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "Done."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 11, "output_tokens": 7},
    }
).encode()
ASKED = json.dumps({"model": MODEL, "max_tokens": 10, "messages": []}).encode()

START = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"model": "%b",'
    b' "usage": {"input_tokens": 1000, "output_tokens": 1}}}\n\n'
) % MODEL.encode()
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
END = (
    b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason":'
    b' "end_turn"}, "usage": {"output_tokens": 42}}\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)


def delta(words: str) -> bytes:
    data = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": words},
    }
    return b"event: content_block_delta\ndata: %b\n\n" % json.dumps(data).encode()


Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, order=True)
class Message:
    """One request or answer, read from the wire; header names in lower case."""

    start: bytes
    headers: Headers
    body: bytes
    chunks: tuple[bytes, ...] = field(default=(), compare=False)
    is_whole: bool = True
    """Whether the end that its headers promise was there."""

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    @property
    def method(self) -> bytes:
        return self.start.split()[0]

    @property
    def target(self) -> bytes:
        return self.start.split()[1]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: bytes) -> bytes | None:
        return next(iter(self.all(name)), None)

    def without(self, *names: bytes) -> Headers:
        return tuple(pair for pair in self.headers if pair[0] not in names)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error in Anthropic's form."""
        assert self.json["type"] == "error"
        words: str = self.json["error"]["message"]
        return words


_GONE = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)


async def read_message(
    source: BufferedByteReceiveStream, *, answers: bytes | None = None
) -> Message | None:
    """The next request, or the answer to a request of this method; None: no more."""
    try:
        head = await source.receive_until(b"\r\n\r\n", _MOST_HEAD)
    except _GONE:
        return None
    start, *lines = head.split(b"\r\n")
    pairs = (line.partition(b":")[::2] for line in lines)
    headers = tuple((name.lower(), value.strip()) for name, value in pairs)
    known = dict(headers)
    chunks: list[bytes] = []
    whole = True
    bodiless = answers == b"HEAD" or start.split()[1] in (b"204", b"304")
    try:
        if bodiless:
            pass
        elif b"transfer-encoding" in known:
            while size := int(await source.receive_until(b"\r\n", 100), 16):
                chunks.append(await source.receive_exactly(size))
                await source.receive_exactly(2)
            await source.receive_exactly(2)
        elif length := int(known.get(b"content-length", b"0")):
            chunks.append(await source.receive_exactly(length))
    except _GONE:
        chunks.append(source.buffer)
        whole = False
    return Message(start, headers, b"".join(chunks), tuple(chunks), whole)


class Tape(ByteReceiveStream):
    """Bytes that were recorded, as a stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._data:
            raise anyio.EndOfStream
        data, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return data

    async def aclose(self) -> None:
        self._data = b""


class Line:
    """One connection, from either end."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._source = BufferedByteReceiveStream(stream)
        self._method = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def request(self) -> Message | None:
        return await read_message(self._source)

    async def ask(self, raw: bytes) -> Message:
        """Send a request and read its answer."""
        self._method = raw.split(b" ", 1)[0]
        await self.send(raw)
        return await self.answer()

    async def answer(self) -> Message:
        message = await read_message(self._source, answers=self._method)
        assert message is not None, "the connection was closed without an answer"
        if message.start.split()[1].startswith(b"1"):
            return await self.answer()
        return message

    async def receive(self, data: bytes) -> None:
        """Return when these very bytes have come, and none other before them."""
        seen = await self._source.receive_exactly(len(data))
        assert seen == data

    async def head(self) -> bytes:
        return await self._source.receive_until(b"\r\n\r\n", _MOST_HEAD)

    async def chunk(self) -> bytes:
        """The next chunk of a body."""
        size = int(await self._source.receive_until(b"\r\n", 100), 16)
        data = await self._source.receive_exactly(size)
        await self._source.receive_exactly(2)
        return data

    async def closed(self) -> bytes:
        """Wait until the other end closes; what came before."""
        seen = self._source.buffer
        try:
            while True:
                seen += await self.stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return seen


Answer = Callable[[Line, Message], Awaitable[None]]
"""Answers one request; it closes the connection by raising ``CloseError``."""


class CloseError(Exception):
    """The connection is closed now."""


class RawUpstream:
    """A TCP server that hears exact bytes and answers with exact bytes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.heard: list[Message] = []
        self.connections = 0
        self.left = anyio.Event()
        """Set when a connection was closed by its other end."""
        self.url = ""
        self.port = 0

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        line = Line(stream)
        async with stream:
            try:
                while (heard := await line.request()) is not None:
                    self.heard.append(heard)
                    await self._answer(line, heard)
            except (CloseError, anyio.BrokenResourceError):
                pass
        self.left.set()


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[RawUpstream]:
    """Serve while this is entered."""
    server = RawUpstream(answer)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        server.port = listener.extra(SocketAttribute.local_port)
        server.url = f"http://127.0.0.1:{server.port}"
        tasks.start_soon(listener.serve, server.serve)
        yield server
        tasks.cancel_scope.cancel()


def gives(raw: bytes, *, close: bool = False) -> Answer:
    """Answer each request with these bytes."""

    async def answer(line: Line, _: Message) -> None:
        await line.send(raw)
        if close:
            raise CloseError

    return answer


def hangs(raw: bytes = b"") -> Answer:
    """Say this much, and nothing more until the other end leaves."""

    async def answer(line: Line, _: Message) -> None:
        if raw:
            await line.send(raw)
        await line.closed()
        raise CloseError

    return answer


def by_turns(*answers: Answer) -> Answer:
    """One after the other; the last one for all that follow."""
    left = list(answers)

    async def answer(line: Line, heard: Message) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(line, heard)

    return answer


def response(
    body: bytes = MESSAGE,
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
) -> bytes:
    """An answer as it goes over the wire, with its length."""
    lines = [b"HTTP/1.1 %d Whatever" % status]
    lines += [b"%b: %b" % pair for pair in headers]
    lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunked(*parts: bytes, end: bool = True) -> bytes:
    last = b"0\r\n\r\n" if end else b""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + last


def streams(*parts: bytes, end: bool = True) -> bytes:
    """The answer that streams these parts, one chunk each."""
    return STREAM_HEAD + chunked(*parts, end=end)
