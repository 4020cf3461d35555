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
    usage = message["usage"]
    opening = {
        **message,
        "content": [],
        "stop_reason": None,
        "usage": {**usage, "output_tokens": min(1, usage["output_tokens"])},
    }
    yield _event("message_start", message=opening)
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage=usage)
    yield _event("message_stop")


def _block_events(index: int, block: Block) -> Iterator[Event]:
    opening, deltas = _opening_and_deltas(block)
    yield _event("content_block_start", index=index, content_block=opening)
    if index == 0:
        yield _event("ping")
    for delta, size in deltas:
        event = _event("content_block_delta", index=index, delta=delta)
        yield event._replace(tokens=size / CHARACTERS_PER_TOKEN)
    yield _event("content_block_stop", index=index)


def _opening_and_deltas(block: Block) -> tuple[Block, list[tuple[Block, int]]]:
    """A block's empty start, and its deltas with the number of their characters."""
    match block:
        case {"type": "text", "text": str(words)}:
            pieces = [({"type": "text_delta", "text": p}, len(p)) for p in _cut(words)]
            return {**block, "text": ""}, pieces
        case {"type": "tool_use", "input": arguments}:
            written = json.dumps(arguments)
            pieces = [
                ({"type": "input_json_delta", "partial_json": p}, len(p))
                for p in _cut(written)
            ]
            return {**block, "input": {}}, pieces
        case _:
            return block, []


def _cut(words: str) -> Iterator[str]:
    step = max(_PIECE, -(-len(words) // _MAX_PIECES))
    return (words[at : at + step] for at in range(0, len(words), step))


def _event(name: str, /, **data: Any) -> Event:
    return Event(name, {"type": name, **data})


def encode(event: Event) -> bytes:
    """Return the event as it goes over the wire."""
    return f"event: {event.name}\ndata: {json.dumps(event.data)}\n\n".encode()
