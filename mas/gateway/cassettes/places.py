"""Where in a run a request stands: its subtask, its thread, and which one it is there.

The same in a recording and in its replay, whatever ids the CLI invents.
"""

from collections import Counter

from msgspec import Struct

from mas.gateway.cassettes.conversation import digest, first_prompt, has_client_tools
from mas.gateway.cassettes.seen import SeenRequest

MAIN = "main"
_MESSAGES = ("POST", "/v1/messages")
_PROMPT_CHARS = 40


class Line(Struct, frozen=True):
    """A sequence of requests that come one after the other."""

    subtask: str | None
    """None: the planner's."""
    thread: str
    """``main``, or a subagent or side request by digest and beginning of its prompt."""
    call: str = ""
    """Method and path of what is no request for a message."""

    def __str__(self) -> str:
        who = "the planner" if self.subtask is None else f"subtask {self.subtask}"
        thread = "main thread" if self.thread == MAIN else self.thread
        return f"{who}, {thread}" + (f", {self.call}" if self.call else "")


class Place(Struct, frozen=True):
    """The ``ordinal``-th request of a line, from 1."""

    line: Line
    ordinal: int

    def __str__(self) -> str:
        return f"{self.line}, request {self.ordinal}"


class Places:
    """Gives each request its place; it remembers how many there were.

    Attempts and sessions of a subtask are one line: they follow each other.
    """

    def __init__(self) -> None:
        self._counts: Counter[Line] = Counter()
        self._agents: dict[tuple[str | None, str], str] = {}
        self._prompts: Counter[tuple[str | None, str]] = Counter()

    def next(self, seen: SeenRequest) -> Place:
        """Return the place of this request, the newest of its line."""
        line = self.line(seen)
        self._counts[line] += 1
        return Place(line, self._counts[line])

    def line(self, seen: SeenRequest) -> Line:
        request = seen.request
        subtask = request.caller.subtask_id
        thread = self._thread(seen)
        if (request.method, request.path) == _MESSAGES:
            return Line(subtask, thread)
        return Line(subtask, thread, seen.clean(f"{request.method} {request.path}"))

    def _thread(self, seen: SeenRequest) -> str:
        subtask = seen.request.caller.subtask_id
        agent = seen.request.header(b"x-claude-code-agent-id")
        if agent:
            # Its id is random, and it runs beside others: its prompt tells who it is.
            if (subtask, agent) not in self._agents:
                name = _named("subagent", _prompt(seen))
                self._prompts[subtask, name] += 1
                count = self._prompts[subtask, name]
                numbered = name if count == 1 else f"{name} ({count})"
                self._agents[subtask, agent] = numbered
            return self._agents[subtask, agent]
        if subtask is None or not seen.body or has_client_tools(seen.body):
            return MAIN
        # What a tool of the CLI asks by itself, such as WebFetch; these overlap too.
        return _named("side request", _prompt(seen))


def _prompt(seen: SeenRequest) -> str:
    return seen.clean(first_prompt(seen.body))


def _named(kind: str, prompt: str) -> str:
    beginning = " ".join(prompt[:_PROMPT_CHARS].split())
    return f"{kind} {digest(prompt)[:8]} {beginning!r}"
