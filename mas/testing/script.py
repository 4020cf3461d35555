"""Which turn is played: found from the request, with faults counted. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from mas.errors import MasError
from mas.testing.request import Request
from mas.testing.turns import Fault, TurnLike, as_turn

Match: TypeAlias = str | Callable[[Request], bool]
"""A part of the system prompt or of the first user message, or a function."""


class ScriptError(MasError):
    """A request that the script has no answer for, or a script that is none."""


def planner(request: Request) -> bool:
    """Match what mas's planner asks: anything that wants JSON after a schema."""
    return request.wants_structured_output


@dataclass(frozen=True, slots=True)
class Step:
    """A turn and the faults that come before it; None: faults and nothing after."""

    faults: tuple[Fault, ...]
    turn: TurnLike | None


class Conversation:
    """Whose requests it answers, and with which turns, one after the other."""

    def __init__(
        self,
        match: Match,
        turns: Iterable[TurnLike | Fault],
        *,
        name: str = "",
    ) -> None:
        self.match = match
        self.name = name or (match if isinstance(match, str) else _name_of(match))
        self.steps = tuple(_steps(turns))

    def matches(self, request: Request) -> bool:
        if isinstance(self.match, str):
            return self.match in request.system or self.match in request.prompt
        return self.match(request)

    @property
    def turn_count(self) -> int:
        return sum(step.turn is not None for step in self.steps)

    def __repr__(self) -> str:
        return f"Conversation({self.name!r}, {self.turn_count} turns)"


def _name_of(function: object) -> str:
    return str(getattr(function, "__name__", function))


def _steps(turns: Iterable[TurnLike | Fault]) -> Iterable[Step]:
    faults: list[Fault] = []
    for turn in turns:
        if isinstance(turn, Fault):
            faults.append(turn)
            continue
        # A wrong turn must be seen where it is written, not when it is played.
        yield Step(tuple(faults), turn if callable(turn) else as_turn(turn))
        faults = []
    if faults:
        yield Step(tuple(faults), None)


class Script:
    """Conversations, asked in order; the first that matches a request answers it."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self.conversations = tuple(conversations)

    def find(self, request: Request) -> int:
        """Return the index of the conversation that answers, or raise ScriptError."""
        for index, conversation in enumerate(self.conversations):
            if conversation.matches(request):
                return index
        names = ", ".join(repr(each.name) for each in self.conversations) or "none"
        raise ScriptError(
            f"no conversation of the script matches {request.prompt[:200]!r}",
            hint=f"add one, or widen the match of one of these: {names}",
        )


@dataclass(frozen=True, slots=True)
class Cue:
    """What to play for one request."""

    turn: TurnLike | None
    fault: Fault | None
    ids: str
    """24 characters that no other reply of this server has in its ids."""


class Player:
    """Gives each request its cue. Its counts are all that it remembers."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._happened: Counter[tuple[int, int]] = Counter()
        self._played: Counter[str] = Counter()

    def cue(self, request: Request) -> Cue:
        """Return what to play for this request, or raise ScriptError."""
        place = (self._script.find(request), request.turn)
        conversation = self._script.conversations[place[0]]
        step = _step(conversation, request)
        fault = self._due(step.faults, place)
        if step.turn is None and fault is None:
            raise _past_the_end(conversation, request)
        return Cue(step.turn, fault, self._ids(place, request))

    def _due(self, faults: tuple[Fault, ...], place: tuple[int, int]) -> Fault | None:
        happened = self._happened[place]
        for fault in faults:
            if fault.still_happens_after(happened):
                self._happened[place] += 1
                return fault
            happened -= fault.times or 0
        return None

    def _ids(self, place: tuple[int, int], request: Request) -> str:
        """The same for the same requests in the same order, and never twice.

        The length of the history is part of it: a server started anew must not
        repeat an id that a resumed session already holds.
        """
        seed = f"{place} {len(request.messages)} {request.prompt}"
        digest = sha256(seed.encode(errors="replace")).hexdigest()[:20]
        self._played[digest] += 1
        return f"{digest}{self._played[digest]:04x}"


def _step(conversation: Conversation, request: Request) -> Step:
    if request.turn < len(conversation.steps):
        return conversation.steps[request.turn]
    raise _past_the_end(conversation, request)


def _past_the_end(conversation: Conversation, request: Request) -> ScriptError:
    newest = request.last_tool_result or request.last_user_text
    return ScriptError(
        f"conversation {conversation.name!r} has {conversation.turn_count} turns, "
        f"and turn {request.turn + 1} was asked for",
        hint=f"write one more; it answers {newest[:200]!r}",
    )
