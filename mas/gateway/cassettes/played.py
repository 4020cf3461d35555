"""An answer made from a recorded one, in the form in which it is asked for now."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from hashlib import sha256
from typing import Any

from mas.gateway import sse
from mas.gateway.cassettes.assembly import with_ids
from mas.gateway.cassettes.cassette import Answer
from mas.gateway.cassettes.normal import mapped
from mas.gateway.cassettes.seen import SeenRequest
from mas.gateway.exchange import CutError, Headers

_ID_CHARS = 22
_STREAM = "text/event-stream; charset=utf-8"
_JSON = "application/json"


class Played:
    """A ``Response`` that is there already."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        pieces: list[bytes],
        *,
        is_cut: bool = False,
    ) -> None:
        self.status = status
        self.headers: Headers = tuple(
            (name.encode(), value.encode("latin-1", "replace"))
            for name, value in headers.items()
        )
        self._pieces = pieces
        self._is_cut = is_cut

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._is_cut:
            raise CutError("the recorded answer broke off here")


def json_answer(
    status: int, body: object, headers: Mapping[str, str] | None = None
) -> Played:
    """An answer whose body is JSON."""
    data = json.dumps(body).encode()
    length = {"content-type": _JSON, "content-length": str(len(data))}
    return Played(status, {**length, **(headers or {})}, [data])


def played(answer: Answer, seen: SeenRequest, place: str) -> Played:
    """Return the recorded answer with the names and ids of this run.

    ``place`` makes the ids: other ones at each place, the same in each replay.
    """
    resolve = seen.placeholders.resolve
    status = answer.status or 200
    if answer.text is not None:
        return _text(answer, resolve(answer.text))
    if answer.body is not None:
        more = {k: v for k, v in answer.headers.items() if k != "content-type"}
        return json_answer(status, mapped(answer.body, resolve), more)
    message = None
    if answer.message is not None:
        digest = sha256(place.encode(errors="replace")).hexdigest()[:_ID_CHARS]
        message = with_ids(mapped(answer.message, resolve), digest)
    error = mapped(answer.error, resolve)
    if seen.body.get("stream"):
        pieces = [sse.encode(event) for event in _events(answer, message, error)]
        if answer.end == "garbage":
            pieces.append(sse.GARBAGE)
        headers = {"content-type": _STREAM}
        return Played(200, headers, pieces, is_cut=answer.end == "cut")
    return _whole(answer, message, error)


def _events(
    answer: Answer, message: dict[str, Any] | None, error: object
) -> Iterator[sse.Event]:
    """The stream as far as it came."""
    if message is not None and answer.end == "complete":
        yield from sse.events(message)
        return
    if message is not None:
        yield from sse.beginning(message, open_block=answer.has_open_block)
        if message.get("stop_reason") is not None:
            yield next(sse.ending(message))
    if isinstance(error, dict):
        yield sse.Event("error", error)


def _whole(answer: Answer, message: dict[str, Any] | None, error: object) -> Played:
    """The same for a client that asks for no stream."""
    if answer.end == "complete":
        return json_answer(200, message)
    if answer.end == "error" and isinstance(error, dict):
        overloaded = (error.get("error") or {}).get("type") == "overloaded_error"
        return json_answer(529 if overloaded else 500, error)
    data = json.dumps(message).encode()
    half = data[: len(data) // 2]
    headers = {"content-type": _JSON}
    return Played(200, headers, [half], is_cut=answer.end == "cut")


def _text(answer: Answer, text: str) -> Played:
    kind = {"content-type": "text/plain; charset=utf-8"}
    headers = {**kind, **answer.headers}
    data = [text.encode("utf-8", "replace")]
    return Played(answer.status or 200, headers, data, is_cut=answer.end == "cut")
