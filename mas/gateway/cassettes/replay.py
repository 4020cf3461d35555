"""Replaying a run: an upstream that answers from a recording, with no network."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby, zip_longest

from msgspec import structs

from mas.gateway import sse
from mas.gateway.cassettes.cassette import Cassette, Exchange
from mas.gateway.cassettes.conversation import (
    INTERRUPTED,
    Asked,
    Difference,
    differences,
)
from mas.gateway.cassettes.normal import Secrets
from mas.gateway.cassettes.places import MAIN, Line, Place, Places
from mas.gateway.cassettes.played import Played, json_answer, played
from mas.gateway.cassettes.seen import SeenRequest
from mas.gateway.exchange import Request, Response

_SHOWN_CHARS = 120
_COUNT_TOKENS = "/v1/messages/count_tokens"


class Replay:
    """Answers each request with what was recorded at its place.

    A place is a subtask, a thread and an ordinal in it; ids, folders and sessions are
    the running ones. A request without a recorded answer is answered with 400 and
    stands in ``errors``; one that differs from the recorded one, in ``warnings``.
    """

    def __init__(self, cassette: Cassette, *, secrets: Sequence[str] = ()) -> None:
        self.errors: list[str] = []
        """What makes this run another one than the recorded, each once."""
        self.warnings: list[str] = []
        """Where a request is not what was recorded, each difference once."""
        self._secrets = Secrets(secrets)
        self._places = Places()
        self._tracks = {
            line: _Track(line, list(_playable(exchanges)))
            for line, exchanges in _by_line(cassette.exchanges).items()
        }
        self._systems = {
            each.asked.system: each.asked.system_text
            for each in cassette.exchanges
            if each.asked is not None and each.asked.system_text
        }
        self._seen: set[Difference] = set()

    @property
    def is_first_party(self) -> bool:
        """See ``Upstream``: nobody's prompt cache is warmed here."""
        return False

    @property
    def is_paid(self) -> bool:
        """See ``Upstream``: what was paid for was paid then."""
        return False

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        """See ``Upstream.open``."""
        yield self._answer(SeenRequest(request, self._secrets))

    def finish(self) -> None:
        """The run has ended: note what was recorded and never asked for."""
        for track in self._tracks.values():
            if not track.line.call and track.rest:
                self._fail(_surplus(track))

    def _answer(self, seen: SeenRequest) -> Played:
        line = self._places.line(seen)
        track = self._tracks.setdefault(line, _Track(line, []))
        exchange = track.next()
        if exchange is None:
            return self._unforeseen(seen, track)
        place = Place(line, track.count)
        if exchange.answer.not_recorded:
            return self._refuse(
                f"the answer to {place} is not in the recording: "
                f"{exchange.answer.not_recorded}"
            )
        if exchange.asked is not None and seen.asked is not None and not line.call:
            self._compare(exchange.asked, seen.asked, place)
        return played(exchange.answer, seen, str(place))

    def _compare(self, recorded: Asked, now: Asked, place: Place) -> None:
        for difference in differences(recorded, now, self._systems):
            if difference not in self._seen:
                self._seen.add(difference)
                self.warnings.append(f"{place}: {difference}")

    def _unforeseen(self, seen: SeenRequest, track: "_Track") -> Played:
        request = seen.request
        if request.path == "/" and request.method in ("GET", "HEAD"):
            return json_answer(200, {"service": "a recording"})
        if request.path == _COUNT_TOKENS:
            tokens = max(1, len(request.body) // sse.CHARACTERS_PER_TOKEN)
            return json_answer(200, {"input_tokens": tokens})
        if track.line.call:
            self.warnings.append(f"{track.line}: it was not asked in the recording")
            message = f"{track.line.call} is not in the recording"
            return json_answer(404, sse.error(404, message))
        return self._refuse(self._missing(seen, track))

    def _missing(self, seen: SeenRequest, track: "_Track") -> str:
        news = seen.asked.news if seen.asked is not None else ()
        what = _shown(" ".join(news)) if news else "nothing new"
        if track.count:
            near = f"after the {_ordinal(track.count)} recorded answer of {track.line}"
        else:
            near = f"for {track.line}; {self._known(track.line)}"
        return f"no answer was recorded {near}; asked was: {what}"

    def _known(self, line: Line) -> str:
        """What the recording has that is like this line, which it does not have."""
        threads = sorted(
            each.thread
            for each, track in self._tracks.items()
            if each.subtask == line.subtask and not each.call and track.exchanges
        )
        if threads:
            return f"it has of this subtask: {', '.join(threads)}"
        subtasks = {str(each.subtask) for each in self._tracks if each.thread == MAIN}
        known = sorted(subtasks - {str(None), str(line.subtask)})
        return f"it has these subtasks: {', '.join(known) or 'none'}"

    def _refuse(self, error: str) -> Played:
        self._fail(error)
        body = sse.error(400, f"replay: {error}")
        return json_answer(400, body, {"x-should-retry": "false"})

    def _fail(self, error: str) -> None:
        # The CLI asks more than once where it is answered 400.
        if error not in self.errors:
            self.errors.append(error)


class _Track:
    """What was recorded of a line, and how far it was played."""

    def __init__(self, line: Line, exchanges: Sequence[Exchange]) -> None:
        self.line = line
        self.exchanges = exchanges
        self.count = 0
        """How many were played."""

    def next(self) -> Exchange | None:
        """Return the next one to play; None behind the last."""
        if self.count == len(self.exchanges):
            return None
        self.count += 1
        return self.exchanges[self.count - 1]

    @property
    def rest(self) -> Sequence[Exchange]:
        return self.exchanges[self.count :]


def _by_line(exchanges: Iterable[Exchange]) -> dict[Line, list[Exchange]]:
    def line(each: Exchange) -> tuple[str, str, str]:
        return (each.subtask or "", each.thread, each.call)

    ordered = sorted(exchanges, key=lambda each: (line(each), each.ordinal))
    found: dict[Line, list[Exchange]] = {}
    for _, group in groupby(ordered, key=line):
        members = list(group)
        first = members[0]
        found[Line(first.subtask, first.thread, first.call)] = members
    return found


def _playable(exchanges: Sequence[Exchange]) -> Iterator[Exchange]:
    """Those that somebody has heard.

    An answer that its client left, at the end of an attempt say, is not waited for in
    a replay: the next one is given instead. But where the client had made calls of it,
    and went on from their results, they belong to what happened.
    """
    for exchange, following in zip_longest(exchanges, exchanges[1:]):
        match exchange.answer.end:
            case "unanswered":
                continue
            case "left":
                taken = _taken(exchange, following)
                if taken is not None:
                    yield taken
            case _:
                yield exchange


def _taken(exchange: Exchange, following: Exchange | None) -> Exchange | None:
    """The answer up to its last whole block, if its calls were made."""
    answer = exchange.answer
    if answer.message is None or following is None or following.asked is None:
        return None
    content = answer.message["content"]
    whole = content[:-1] if answer.has_open_block else content
    calls = [block for block in whole if block.get("type") == "tool_use"]
    news = following.asked.news
    results = [each for each in news if each.startswith(("result of", "error of"))]
    interrupted = any(mark in each for each in results for mark in INTERRUPTED)
    if not calls or len(results) < len(calls) or interrupted:
        return None
    message = {**answer.message, "content": whole, "stop_reason": "tool_use"}
    kept = structs.replace(
        answer, end="complete", message=message, has_open_block=False
    )
    return structs.replace(exchange, answer=kept)


def _surplus(track: _Track) -> str:
    first, last = track.count + 1, len(track.exchanges)
    which = (
        f"answer {first} was" if first == last else f"answers {first} to {last} were"
    )
    asked = track.rest[0].asked
    news = " ".join(asked.news) if asked is not None else ""
    return (
        f"{track.line}: the recorded {which} never asked for; "
        f"recorded there was: {_shown(news)}"
    )


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= _SHOWN_CHARS else f"{flat[:_SHOWN_CHARS]}…")
