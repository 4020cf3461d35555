"""What a script is made of: blocks, turns, and what may go wrong. Pure."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mas.testing.request import Request

Block: TypeAlias = dict[str, Any]
"""A content block in the API's own form."""

_SUBTASK_DEFAULTS: dict[str, Any] = {
    "required_capabilities": [],
    "dependencies": [],
    "priority": 5,
    "estimated_duration": 60,
}


def text(words: str) -> Block:
    """Claude says something."""
    return {"type": "text", "text": words}


def tool_use(name: str, /, **arguments: Any) -> Block:
    """Claude calls a tool; the block's id is made when it is played."""
    return {"type": "tool_use", "name": name, "input": arguments}


def plan(subtasks: Iterable[Mapping[str, Any]]) -> Block:
    """The planner's answer; each subtask needs but a ``key`` and a ``description``."""
    filled = [dict(subtask) | _SUBTASK_DEFAULTS | dict(subtask) for subtask in subtasks]
    return text(json.dumps({"subtasks": filled}))


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of Claude, whole: what it says and how it comes."""

    blocks: Sequence[Block]
    stop_reason: str | None = None
    """None: ``tool_use`` where a tool is called, else ``end_turn``."""
    delay_s: float | None = None
    """How long it thinks before anything is sent; None: as the server is set."""
    tokens_per_second: float | None = None
    """How fast the stream comes; None: as the server is set."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """Token counts that replace those made up from the lengths."""

    @property
    def reason_to_stop(self) -> str:
        if self.stop_reason is not None:
            return self.stop_reason
        calls = any(block.get("type") == "tool_use" for block in self.blocks)
        return "tool_use" if calls else "end_turn"


Answer: TypeAlias = Turn | Sequence[Block] | str
"""A turn, or its blocks alone, or just what Claude says."""

TurnLike: TypeAlias = Answer | Callable[[Request], Answer]
"""An answer, or a function that makes one when it has seen the request."""


def as_turn(answer: Answer) -> Turn:
    """Return the answer as a Turn; TypeError for what is none."""
    match answer:
        case Turn():
            return answer
        case str():
            return Turn([text(answer)])
        case [*blocks] if all(isinstance(block, dict) for block in blocks):
            return Turn(blocks)
    raise TypeError(f"a turn must be a Turn, a list of blocks or a str, not {answer!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong ``times`` times before the turn that follows in the script.

    Make one with ``status``, ``cut``, ``early_end``, ``hang``, ``garbage``,
    ``stream_error`` or ``slow``. ``times=None`` is for ever. In a stream, events count
    from ``message_start``; a block is a start, its deltas and a stop, with a ping after
    the first start. Where no stream was asked for, the body is broken in its middle.
    """

    times: int | None = 1
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | Mapping[str, Any] | None = None
    message: str = ""
    before_s: float = 0.0
    between_s: float = 0.0
    after_events: int | None = None
    ending: Literal["answer", "cut", "end", "hang", "garbage", "error"] = "answer"

    @classmethod
    def status(
        cls,
        code: int,
        *,
        times: int | None = 1,
        message: str = "",
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | Mapping[str, Any] | None = None,
    ) -> "Fault":
        """An HTTP error; its body is Anthropic's form, else ``body`` (str: HTML)."""
        extra = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
        return cls(
            times=times,
            code=code,
            message=message,
            headers=extra | dict(headers or {}),
            body=body,
        )

    @classmethod
    def cut(cls, *, after_events: int = 0, times: int | None = 1) -> "Fault":
        """The connection closes after so many events of the turn."""
        return cls(times=times, after_events=after_events, ending="cut")

    @classmethod
    def early_end(cls, *, after_events: int = 1, times: int | None = 1) -> "Fault":
        """The response ends well as HTTP has it, after so many events of the turn."""
        return cls(times=times, after_events=after_events, ending="end")

    @classmethod
    def hang(cls, *, after_events: int | None = None, times: int | None = 1) -> "Fault":
        """Nothing more comes, until the client leaves; None: not even headers."""
        return cls(times=times, after_events=after_events, ending="hang")

    @classmethod
    def garbage(cls, *, after_events: int = 1, times: int | None = 1) -> "Fault":
        """An event that is no JSON comes in between; without a stream, half a body."""
        return cls(times=times, after_events=after_events, ending="garbage")

    @classmethod
    def stream_error(
        cls, code: int = 529, *, after_events: int = 1, times: int | None = 1
    ) -> "Fault":
        """The stream, begun with 200, ends with an event ``error`` of this kind."""
        return cls(times=times, code=code, after_events=after_events, ending="error")

    @classmethod
    def slow(
        cls, *, before_s: float = 0.0, between_s: float = 0.0, times: int | None = 1
    ) -> "Fault":
        """The turn is played, but waits before its headers and between its events."""
        return cls(times=times, before_s=before_s, between_s=between_s)

    @property
    def is_http_error(self) -> bool:
        """Whether it answers with an HTTP error, and no turn is played."""
        return self.ending == "answer" and self.code != 200

    def still_happens_after(self, happened: int) -> bool:
        """Whether it happens once more when it has happened so many times."""
        return self.times is None or happened < self.times
