"""What a client asked for, read from the request itself. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

_REMINDER = "<system-reminder>"

# What the Claude CLI (2.1.330) writes into a history by itself. A session resumed
# after it was broken off holds an answer that no model gave, and says of calls whose
# result it does not have that they were interrupted: first where it was killed, then
# where it was asked to stop. A reply cut after its first block is followed by a nudge,
# or by a word on who cut it, and the model is to give that reply again. The nudge is
# bare text or, since 2.1.332, a reminder.
_NOT_AN_ANSWER = "No response requested."
_CALL_INTERRUPTED = (
    "[Tool call interrupted",
    "The user doesn't want to proceed with this tool use.",
)
_ANSWER_INTERRUPTED = "[Request interrupted by user]"
_CUT_NUDGE = "Your response above was cut off mid-stream"
# What a hook says to the model: as the user or, since 2.1.332, as the system.
_OF_A_HOOK = "hook blocking error"


@dataclass(eq=False, slots=True)
class Request:
    """One HTTP request as it came, and what a script may want to know of it.

    The repr shows neither headers nor body: the first may hold a key.
    """

    method: str
    path: str
    """Without the query."""
    body: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name, with the key that was sent."""
    at: float = 0.0
    """When it came, in seconds of the monotonic clock."""
    size: int = 0
    """Bytes of the body."""
    status: int | None = None
    """The HTTP status of the answer; None while there is none."""
    is_open: bool = True
    """Whether the answer still goes on; not when it is sent, or the client left."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages = self.body.get("messages", [])
        return [message for message in messages if isinstance(message, dict)]

    @property
    def system(self) -> str:
        """The system prompt's text."""
        return _text(self.body.get("system"))

    @property
    def prompt(self) -> str:
        """The first thing the user said, without the CLI's reminders."""
        said = (_said(message) for message in self.messages if _is(message, "user"))
        return next((words for words in said if words), "")

    @property
    def last_user_text(self) -> str:
        """The newest thing the user said: a further prompt, the feedback of a hook."""
        said = [_said(message) for message in self.messages if _is_said(message)]
        return next((words for words in reversed(said) if words), "")

    @property
    def tools(self) -> list[str]:
        """The names of the tools on offer."""
        return [str(tool.get("name", "")) for tool in self.body.get("tools", [])]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The answers that the model has given so far.

        Without those that were broken off, by a kill or an interruption: in the stream,
        or before the result of each of their tool calls was there.
        """
        results = self._results()
        spoken = [message for message in self.messages if not _is(message, "system")]
        return [
            message
            for message, follower in pairwise([*spoken, {}])
            if _is(message, "assistant") and _is_given(message, follower, results)
        ]

    @property
    def tool_results(self) -> list[str]:
        """The text of every tool result so far, in the order of the calls."""
        # The CLI sends those of parallel subagents in the order in which they end.
        results = self._results()
        return [
            results[call["id"]] for answer in self.answers for call in _calls(answer)
        ]

    def _results(self) -> dict[Any, str]:
        """The text of every tool result, by the id of its call."""
        blocks = (b for each in self.messages for b in _blocks(each.get("content")))
        return {
            block.get("tool_use_id"): _text(block.get("content"))
            for block in blocks
            if block.get("type") == "tool_result"
        }

    @property
    def last_tool_result(self) -> str:
        """The last call's result; empty where there is none."""
        return (self.tool_results or [""])[-1]

    @property
    def turn(self) -> int:
        """Which answer is asked for, from 0: how many were given so far."""
        return len(self.answers)

    @property
    def cwd(self) -> str:
        """The folder that the CLI says it works in; empty where it says none."""
        return self._environment("Primary working directory: ")

    @property
    def session_id(self) -> str:
        """The CLI's session; its subagents have the same."""
        return self.headers.get("x-claude-code-session-id", "")

    @property
    def is_subagent(self) -> bool:
        """Whether a subagent asks, not the session itself."""
        return (
            "x-claude-code-agent-id" in self.headers
            or "cc_is_subagent=true" in self.system
        )

    @property
    def wants_structured_output(self) -> bool:
        """Whether the answer must be JSON after a schema, as mas's planner asks."""
        return "format" in (self.body.get("output_config") or {})

    @property
    def key(self) -> str:
        """The API key or token that was sent."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        return self.headers.get("x-api-key", bearer)

    def _environment(self, label: str) -> str:
        texts = [self.system, *(_text(each.get("content")) for each in self.messages)]
        for line in "\n".join(texts).splitlines():
            if label in line:
                return line.partition(label)[2].strip()
        return ""

    def __repr__(self) -> str:
        start = " ".join(self.prompt.split())[:40]
        status = "no answer" if self.status is None else self.status
        return f"<{self.method} {self.path} turn {self.turn} of {start!r}: {status}>"


def _is(message: Mapping[str, Any], role: str) -> bool:
    return message.get("role") == role


def _is_said(message: Mapping[str, Any]) -> bool:
    """Whether the user said it, or a hook in the user's name."""
    by_hook = _is(message, "system") and _OF_A_HOOK in _text(message.get("content"))
    return by_hook or _is(message, "user")


def _is_given(
    answer: Mapping[str, Any], follower: Mapping[str, Any], results: Mapping[Any, str]
) -> bool:
    """Whether a model gave this answer, and it was not broken off."""
    if _text(answer.get("content")) == _NOT_AN_ANSWER:
        return False
    if _CUT_NUDGE in _text(follower.get("content")):
        return False
    if calls := _calls(answer):
        found = [results.get(call.get("id"), _CALL_INTERRUPTED[0]) for call in calls]
        interrupted = any(text.startswith(_CALL_INTERRUPTED) for text in found)
        return not interrupted
    return not _said(follower).startswith(_ANSWER_INTERRUPTED)


def _calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    blocks = _blocks(message.get("content"))
    return [block for block in blocks if block.get("type") == "tool_use"]


def _blocks(content: Any) -> Iterator[Mapping[str, Any]]:
    """The blocks of a content, which may be a string for one block of text."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        yield from (block for block in content if isinstance(block, dict))


def _texts(content: Any) -> list[str]:
    return [str(block["text"]) for block in _blocks(content) if "text" in block]


def _text(content: Any) -> str:
    return "\n".join(_texts(content))


def _said(message: Mapping[str, Any]) -> str:
    """What a message says besides the CLI's reminders."""
    texts = _texts(message.get("content"))
    return "\n".join(text for text in texts if not text.startswith(_REMINDER))
