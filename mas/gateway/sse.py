"""An answer as the Messages API sends it: a stream of events, or an error. Pure."""

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

CHARACTERS_PER_TOKEN = 4
"""The rule of thumb that makes token counts plausible."""

_PIECE = 24
"""Characters in a delta: six tokens, about what the real API sends at once."""
_MAX_PIECES = 400
"""A long block comes in larger pieces, so that a test of megabytes stays quick."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


Block = dict[str, Any]


UNPARSED_INPUT = "partial_json"
"""In a tool's block: its input as it was written, where that is not (yet) JSON."""
UNKNOWN_DELTAS = "deltas"
"""In a block: deltas of kinds that are not known here, as they came."""


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    data: dict[str, Any]
    tokens: float = 0.0
    """How much of the answer it carries."""


GARBAGE = b'event: content_block_delta\ndata: {"type": "content_block_de\n\n'


def error(status: int, message: str = "") -> dict[str, Any]:
    """Return an error's body in Anthropic's form."""
    fallback = "api_error" if status >= 500 else "invalid_request_error"
    kind = _ERROR_TYPES.get(status, fallback)
    return {
        "type": "error",
        "error": {"type": kind, "message": message or _phrase(status)},
    }


def _phrase(status: int) -> str:
    known = {each.value for each in HTTPStatus}
    return HTTPStatus(status).phrase if status in known else "Overloaded"


def events(message: Mapping[str, Any]) -> Iterator[Event]:
    """Return the stream that carries ``message``, event by event."""
    yield from beginning(message)
    yield from ending(message)


def beginning(
    message: Mapping[str, Any], *, open_block: bool = False
) -> Iterator[Event]:
    """The events up to the last block; with ``open_block`` that block does not end."""
    usage = message.get("usage") or {}
    opening = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": min(1, usage.get("output_tokens") or 0)},
    }
    yield _event("message_start", message=opening)
    blocks = message["content"]
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
        if not (open_block and index == len(blocks) - 1):
            yield _event("content_block_stop", index=index)


def ending(message: Mapping[str, Any]) -> Iterator[Event]:
    """The events that end the stream."""
    reason = {
        "stop_reason": message["stop_reason"],
        "stop_sequence": message.get("stop_sequence"),
    }
    yield _event("message_delta", delta=reason, usage=message.get("usage") or {})
    yield _event("message_stop")


def _block_events(index: int, block: Block) -> Iterator[Event]:
    opening, deltas = _opening_and_deltas(block)
    yield _event("content_block_start", index=index, content_block=opening)
    if index == 0:
        yield _event("ping")
    for delta, size in deltas:
        event = _event("content_block_delta", index=index, delta=delta)
        yield event._replace(tokens=size / CHARACTERS_PER_TOKEN)


def _opening_and_deltas(block: Block) -> tuple[Block, list[tuple[Block, int]]]:
    """A block's empty start, and its deltas with the number of their characters."""
    block = dict(block)
    unknown = [(delta, 0) for delta in block.pop(UNKNOWN_DELTAS, ())]
    match block:
        case {"type": "text", "text": str(words)}:
            pieces = _deltas("text_delta", "text", words)
            return {**block, "text": ""}, pieces + unknown
        case {"type": "thinking", "thinking": str(words)}:
            pieces = _deltas("thinking_delta", "thinking", words)
            if isinstance(seal := block.get("signature"), str):
                pieces.append(({"type": "signature_delta", "signature": seal}, 0))
                block["signature"] = ""
            return {**block, "thinking": ""}, pieces + unknown
        case {"type": str(kind), "input": arguments} if kind.endswith("tool_use"):
            written = block.pop(UNPARSED_INPUT, None)
            if written is None:
                written = json.dumps(arguments)
            pieces = _deltas("input_json_delta", "partial_json", written)
            return {**block, "input": {}}, pieces + unknown
        case _:
            return block, unknown


def _deltas(kind: str, key: str, words: str) -> list[tuple[Block, int]]:
    return [({"type": kind, key: piece}, len(piece)) for piece in _cut(words)]


def _cut(words: str) -> Iterator[str]:
    step = max(_PIECE, -(-len(words) // _MAX_PIECES))
    return (words[at : at + step] for at in range(0, len(words), step))


def _event(name: str, /, **data: Any) -> Event:
    return Event(name, {"type": name, **data})


def encode(event: Event) -> bytes:
    """Return the event as it goes over the wire."""
    return f"event: {event.name}\ndata: {json.dumps(event.data)}\n\n".encode()


class Reader:
    """Reads a stream back into what its events carry, however it is cut into chunks."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any] | None]:
        """The data of every event that is complete now; None for what is no event."""
        first, *others = chunk.split(b"\n")
        self._line += first
        for following in others:
            line = bytes(self._line.removesuffix(b"\r"))
            self._line = bytearray(following)
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data = b"\n".join(self._data)
                self._data = []
                yield _object(data)


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
