"""What an answer used, read from its bytes as they stream by. Pure.

A meter never raises for what it reads: what it cannot read it notes in ``error``, and
goes on. It keeps the counts and one line of a stream, or a JSON body up to a bound.
"""

from typing import Any

from msgspec import DecodeError, Struct, ValidationError, convert
from msgspec.json import Decoder

from mas.gateway.encodings import EncodingError, decoder_for
from mas.gateway.exchange import Headers, header
from mas.gateway.spending.event_stream import EventStream
from mas.gateway.spending.prices import Prices, TokenCounts
from mas.gateway.spending.reading import UsageReading
from mas.model import Usage

MAX_BODY_BYTES = 32 * 2**20
"""A JSON body above it is not read."""
MAX_ERROR_CHARACTERS = 500

_SHOWN_BYTES = 4 * MAX_ERROR_CHARACTERS
_MODEL_CHARACTERS = 200
_UNKNOWN = "could not be read: what it used is not known"
_KNOWN = {
    "message_start", "content_block_start", "content_block_delta", "content_block_stop",
    "message_delta", "message_stop", "ping", "error",
}  # fmt: skip

_UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)


class _Message(Struct):
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Delta(Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    estimated_tokens: float | None = None
    """Of thinking that is not shown."""


class _Error(Struct):
    type: str | None = None
    message: str | None = None


class _Event(Struct):
    """What the meter needs of any event."""

    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: dict[str, Any] | None = None
    error: _Error | None = None


class _Body(Struct):
    """A body that is not a stream."""

    model: Any = None
    usage: Any = None
    error: Any = None


class _Kind(Struct):
    type: str = ""


_decode = Decoder(_Event).decode
_decode_body = Decoder(_Body).decode
_decode_kind = Decoder(_Kind).decode


class Meter:
    """Reads one answer: a stream of events, a JSON body, or anything else.

    An answer of status 400 or more, or without a usage, used nothing. An answer whose
    content-encoding is not known, or broken, is counted as far as it could be read, and
    ``error`` says so.
    """

    def __init__(
        self, status: int, headers: Headers, prices: Prices, asked_model: str
    ) -> None:
        self.status = status
        self._prices = prices
        self._model = asked_model
        self._price = prices.of(asked_model)
        kind = header(headers, b"content-type").partition(";")[0].strip().lower()
        self._is_stream = status < 400 and kind == "text/event-stream"
        self._is_json = kind in ("", "application/json") or status >= 400
        encoding = header(headers, b"content-encoding")
        self._decoder = decoder_for(encoding)
        self._notes: dict[str, None] = {}  # in order, each once
        if self._decoder is None:
            self._note(
                f"the answer's encoding {encoding[:50]!r} is not known: "
                "what it used is not counted"
            )
        self._events = EventStream()
        self._body = bytearray()
        self._reading = UsageReading()
        self._error: str | None = None
        self._has_begun = False
        self._is_complete = False

    @property
    def model(self) -> str:
        """The model that answered; until it is named, the one that was asked."""
        return self._model

    @property
    def has_begun(self) -> bool:
        """Whether the input is known (a stream), or a first byte came (all else)."""
        return self._has_begun

    @property
    def is_complete(self) -> bool:
        """Whether message_stop was there, or the whole of a body that can be read."""
        return self._is_complete

    @property
    def error(self) -> str | None:
        """The error that the answer tells of, else what could not be read of it."""
        error = self._error
        if error is None and self.status >= 400:
            error = self._error_body()
        return error or _shortened("; ".join(self._notes))

    @property
    def usage(self) -> Usage:
        """What was used so far; exact where the answer is complete."""
        parts = self._reading.parts
        counts = self._reading.counts
        price = None if self._reading.is_fast else self._price
        return Usage(
            input_tokens=counts.input,
            output_tokens=counts.output,
            cache_read_tokens=counts.cache_read,
            cache_write_tokens=counts.cache_write,
            cost_usd=sum(price.cost(part) for part in parts) if price else 0.0,
            unpriced_tokens=0 if price else counts.total,
            estimated_tokens=self._reading.estimated_output,
        )

    @property
    def counts(self) -> TokenCounts:
        """The same by the kinds that are priced."""
        return self._reading.counts

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body, encoded as they came."""
        if not self._is_stream and chunk:
            self._has_begun = True
        if self._decoder is None:
            return
        try:
            for piece in self._decoder.feed(chunk):
                self._take(piece)
        except EncodingError as error:
            self._decoder = None
            self._note(f"{error.message}: what it used is not known")

    def end(self, complete: bool) -> None:
        """No more comes; ``complete`` is whether that was the end of the body."""
        if self._is_stream:
            return
        if self.status >= 400:
            self._error = self._error_body() or self._error
            self._is_complete = complete
        elif not self._is_json:
            self._is_complete = complete
        elif self._decoder is not None:
            self._read_body(complete)
        self._body = bytearray()

    def _take(self, piece: bytes) -> None:
        if self._is_stream:
            for data in self._events.feed(piece):
                self._read_event(data)
            if self._events.skipped:
                self._note("an event was too long to be read")
        elif self._is_json and len(self._body) <= MAX_BODY_BYTES:
            self._body += piece

    def _read_event(self, data: bytes) -> None:
        try:
            event = _decode(data)
        except _UNREADABLE:
            if _may_be_known(data):
                self._note("an event could not be read")
            return
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._measure(event.delta)
            case "content_block_start":
                self._reading.next_block()
            case "message_start":
                message = event.message or _Message()
                self._has_begun = True
                self._answered_by(message.model)
                self._reading.start(message.usage or {})
            case "message_delta":
                self._reading.update(event.usage or {})
            case "message_stop":
                self._is_complete = True
            case "error":
                self._error = _words(event.error or _Error())

    def _measure(self, delta: _Delta) -> None:
        if delta.estimated_tokens is not None:
            self._reading.add_tokens(delta.estimated_tokens)
            return
        for words in (delta.text, delta.partial_json, delta.thinking):
            if words:
                self._reading.add_characters(len(words))
        if delta.signature:
            self._reading.sign(len(delta.signature))

    def _read_body(self, complete: bool) -> None:
        if len(self._body) > MAX_BODY_BYTES:
            self._note(f"a body above {MAX_BODY_BYTES // 2**20} MiB {_UNKNOWN}")
            return
        if not self._body:
            self._is_complete = complete
            return
        try:
            body = _decode_body(self._body)
        except ValidationError:
            self._is_complete = complete  # JSON, and no object: no answer of a model
            return
        except _UNREADABLE:
            self._read_undeclared()
            return
        self._is_complete = complete
        if isinstance(body.model, str):
            self._answered_by(body.model)
        if isinstance(body.usage, dict):
            self._reading.start(body.usage)
            self._reading.update(body.usage)

    def _read_undeclared(self) -> None:
        """What calls itself JSON and is none: a stream, or broken."""
        if not self._body.lstrip().startswith((b"event:", b"data:", b":")):
            self._note(f"a body that is no whole JSON {_UNKNOWN}")
            return
        self._is_stream = True
        self._take(bytes(self._body))

    def _error_body(self) -> str | None:
        try:
            error = convert(_decode_body(self._body).error, _Error)
        except (*_UNREADABLE, ValidationError):
            text = bytes(self._body[:_SHOWN_BYTES]).decode("utf-8", "replace")
            return _shortened(text)
        return _words(error)

    def _answered_by(self, model: str | None) -> None:
        if model:
            self._model = model[:_MODEL_CHARACTERS]
            self._price = self._prices.of(self._model)

    def _note(self, words: str) -> None:
        self._notes[words] = None


def _may_be_known(data: bytes) -> bool:
    """Whether what could not be read is, or may be, an event that matters."""
    try:
        return _decode_kind(data).type in _KNOWN
    except _UNREADABLE:
        return True


def _words(error: _Error) -> str:
    return _shortened(f"{error.type or 'error'}: {error.message or 'no message'}") or ""


def _shortened(text: str) -> str | None:
    line = " ".join(text.split())
    if len(line) > MAX_ERROR_CHARACTERS:
        line = line[: MAX_ERROR_CHARACTERS - 1] + "…"
    return line or None
