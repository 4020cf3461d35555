"""Recording a run: an upstream that passes everything on and keeps what it saw."""

import json
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from typing import Any, Protocol

from msgspec import structs

from mas.gateway.cassettes.assembly import Assembly, without_ids
from mas.gateway.cassettes.cassette import Answer, End, Exchange
from mas.gateway.cassettes.conversation import Asked
from mas.gateway.cassettes.normal import Secrets, mapped
from mas.gateway.cassettes.places import Place, Places
from mas.gateway.cassettes.seen import SeenRequest
from mas.gateway.encodings import EncodingError, decoder_for
from mas.gateway.exchange import (
    Headers,
    Request,
    Response,
    Upstream,
    UpstreamError,
    header,
)

_KEPT_HEADERS = ("content-type", "retry-after", "x-should-retry")
_MAX_BODY_BYTES = 64 * 2**20
_ROOT = "/"


class Writer(Protocol):
    """Where exchanges go; OSError where they cannot."""

    def write(self, exchange: Exchange) -> None: ...

    def close(self, status: str) -> None: ...

    def abandon(self) -> None: ...


class Recorder:
    """Passes requests and answers on as they are, and keeps each when it has ended.

    Recording never fails a run: what stands in its way is said to ``report``, once,
    and the recording stays unfinished. ``secrets`` are masked wherever they stand.
    """

    def __init__(
        self,
        upstream: Upstream,
        writer: Writer,
        *,
        report: Callable[[str], None],
        secrets: Sequence[str] = (),
    ) -> None:
        self._upstream = upstream
        self._writer = writer
        self._report = report
        self._secrets = Secrets(secrets)
        self._places = Places()
        self._systems: set[str] = set()
        self._has_failed = False

    @property
    def is_first_party(self) -> bool:
        """See ``Upstream``."""
        return self._upstream.is_first_party

    @property
    def is_paid(self) -> bool:
        """See ``Upstream``."""
        return self._upstream.is_paid

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        """See ``Upstream.open``."""
        take = self._take(request)
        try:
            async with self._upstream.open(request) as response:
                take.tape = _Tape(response)
                yield take.tape
        except UpstreamError as error:
            if take.tape is None:
                take.failure = error.message
            raise
        finally:
            if request.path != _ROOT:
                self._keep(take)

    def close(self, status: str) -> bool:
        """The run has ended so: end the recording; whether it is whole."""
        if not self._has_failed:
            try:
                self._writer.close(status)
            except OSError as error:
                self._give_up(error)
        return not self._has_failed

    def _take(self, request: Request) -> "_Take":
        seen = SeenRequest(request, self._secrets)
        return _Take(seen, self._places.next(seen))

    def _keep(self, take: "_Take") -> None:
        if self._has_failed:
            return
        try:
            try:
                exchange = take.exchange(self._systems)
                self._writer.write(exchange)
            except RecursionError:
                self._writer.write(take.unrecorded("it is nested too deeply"))
            else:
                self._systems.add(exchange.asked.system if exchange.asked else "")
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._has_failed = True
        self._writer.abandon()
        reason = error.strerror or str(error)
        self._report(f"the recording cannot be written and ends here: {reason}")


class _Take:
    """One exchange while it goes on."""

    def __init__(self, seen: SeenRequest, place: Place) -> None:
        self.tape: _Tape | None = None
        self.failure: str | None = None
        self._seen = seen
        self._place = place

    def exchange(self, systems: Set[str]) -> Exchange:
        """What is kept; ``systems``: the system prompts that the recording has."""
        asked = self._seen.asked
        if asked is not None and asked.system in systems:
            asked = structs.replace(asked, system_text="")
        if self.tape is not None:
            answer = self.tape.answer(self._seen.put)
        elif self.failure is not None:
            answer = Answer(end="unanswered", error=self._seen.put(self.failure))
        else:
            answer = Answer(end="left")
        return self._exchange(asked, answer)

    def unrecorded(self, reason: str) -> Exchange:
        return self._exchange(None, Answer(not_recorded=reason))

    def _exchange(self, asked: Asked | None, answer: Answer) -> Exchange:
        line = self._place.line
        return Exchange(
            subtask=line.subtask,
            attempt=self._seen.request.caller.attempt,
            thread=line.thread,
            call=line.call,
            ordinal=self._place.ordinal,
            asked=asked,
            answer=answer,
        )


class _Tape:
    """An answer that is listened to while it passes."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._end: End = "left"
        self._fault = ""
        self._size = 0
        self._body = bytearray()
        kind = header(response.headers, b"content-type")
        self._assembly = Assembly() if kind.startswith("text/event-stream") else None
        encoding = header(response.headers, b"content-encoding")
        self._decoder = decoder_for(encoding)
        if self._decoder is None:
            self._fault = f"its content-encoding is not known: {encoding}"

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Headers:
        return self._response.headers

    def chunks(self) -> AsyncIterator[bytes]:
        return _Heard(self, self._response.chunks())

    def hear(self, chunk: bytes) -> None:
        """Take the next part of the body, as it is on the wire."""
        if self._fault or self._decoder is None:
            return
        try:
            for part in self._decoder.feed(chunk):
                self._keep(part)
        except EncodingError as error:
            self._fault = error.message

    def end(self, how: End) -> None:
        """Nothing more comes."""
        self._end = how

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_BODY_BYTES:
            self._fault = f"it has more than {_MAX_BODY_BYTES} bytes"
        elif self._assembly is not None:
            self._assembly.feed(data)
        else:
            self._body += data

    def answer(self, put: Callable[[str], str]) -> Answer:
        """What was heard, with ``put`` applied to all texts."""
        headers = {
            name: put(value)
            for name in _KEPT_HEADERS
            if (value := header(self.headers, name.encode()))
        }
        answer = Answer(status=self.status, headers=headers)
        if self._fault:
            return structs.replace(answer, not_recorded=put(self._fault))
        if self._assembly is not None:
            return self._streamed(answer, self._assembly, put)
        return self._whole(answer, put)

    def _streamed(
        self, answer: Answer, heard: Assembly, put: Callable[[str], str]
    ) -> Answer:
        message = heard.message
        return structs.replace(
            answer,
            end=_stream_end(heard, self._end),
            message=message and mapped(without_ids(message), put),
            has_open_block=heard.has_open_block,
            error=mapped(_without_request_id(heard.error), put),
        )

    def _whole(self, answer: Answer, put: Callable[[str], str]) -> Answer:
        try:
            found = json.loads(self._body)
        except ValueError:
            text = put(self._body.decode("utf-8", "replace"))
            return structs.replace(answer, end=self._end, text=text)
        # It is all there, even where the client left before it heard that it is.
        if _is_message(found):
            message = mapped(without_ids(found), put)
            return structs.replace(answer, message=message)
        return structs.replace(answer, body=mapped(_without_request_id(found), put))


class _Heard:
    """The chunks of an answer, each heard before it is passed on."""

    def __init__(self, tape: _Tape, chunks: AsyncIterator[bytes]) -> None:
        self._tape = tape
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            self._tape.end("complete")
            raise
        except UpstreamError:
            self._tape.end("cut")
            raise
        self._tape.hear(chunk)
        return chunk


def _stream_end(heard: Assembly, end: End) -> End:
    if heard.is_complete:
        return "complete"
    if heard.error is not None:
        return "error"
    if heard.has_garbage:
        return "garbage"
    return "short" if end == "complete" else end


def _is_message(found: object) -> bool:
    return (
        isinstance(found, dict)
        and found.get("type") == "message"
        and isinstance(found.get("content"), list)
        and all(isinstance(block, dict) for block in found["content"])
    )


def _without_request_id(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if key != "request_id"}
