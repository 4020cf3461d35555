"""What a request asks, in the form that is kept and compared. Pure."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import zip_longest
from typing import Any, NamedTuple

from msgspec import Struct

_MAX_NEWS_CHARS = 8_000
_CONTEXT_CHARS = 60
_DIGEST_CHARS = 12

_USER = "user"
_REMINDER = "<system-reminder>"
_BILLING = "x-anthropic-billing-header:"
_NOT_AN_ANSWER = "No response requested."
"""The CLI puts this into the history of a resumed session; no model said it."""
INTERRUPTED = (
    "[Tool call interrupted",
    "The user doesn't want to proceed with this tool use.",
)
"""How the CLI begins the results of calls that a resumed session never made."""

Block = Mapping[str, Any]
Clean = Callable[[str], str]


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The essentials of a request for a message, without secrets and noise."""

    model: str = ""
    stream: bool = False
    system: str = ""
    """Digest of the system prompt."""
    system_text: str = ""
    """The prompt itself, in the first exchange of a recording that has it."""
    tools: tuple[str, ...] = ()
    """Names, sorted."""
    news: tuple[str, ...] = ()
    """What was said since the last answer, one text each; all, before the first."""


class Difference(NamedTuple):
    """Where a request is not what was recorded; ``what`` is which part of it."""

    what: str
    recorded: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: recorded {self.recorded!r}, now {self.now!r}"


def parsed(body: bytes) -> dict[str, Any]:
    """The body as an object; empty where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def asked(body: Mapping[str, Any], clean: Clean) -> Asked:
    """Return what the body asks; ``clean`` takes secrets, names and noise out."""
    system = clean(_system(body))
    return Asked(
        model=clean(str(body.get("model", ""))),
        stream=bool(body.get("stream")),
        system=digest(system) if system else "",
        system_text=system,
        tools=tuple(sorted(clean(name) for name in _tools(body))),
        news=tuple(
            _shortened(f"{clean(who)}: {words}")
            for who, text in _news(body)
            if (words := clean(text)) or who != _USER  # a reminder alone is nothing
        ),
    )


def first_prompt(body: Mapping[str, Any]) -> str:
    """The first thing the user said, without the CLI's reminders."""
    said = (_said(each) for each in _messages(body) if each.get("role") == "user")
    return next((words for words in said if words), "")


def has_client_tools(body: Mapping[str, Any]) -> bool:
    """Whether it offers tools that the client runs, as every session does."""
    return any("input_schema" in tool for tool in _objects(body.get("tools")))


def results(body: Mapping[str, Any]) -> Iterator[str]:
    """The texts of every tool's result in the history."""
    for message in _messages(body):
        for block in _blocks(message):
            if block.get("type") == "tool_result":
                for part in _content(block.get("content")):
                    yield str(part.get("text", ""))


def digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def differences(
    recorded: Asked, now: Asked, systems: Mapping[str, str]
) -> Iterator[Difference]:
    """Say what differs: the first place of each part. ``systems``: texts by digest."""
    if recorded.model != now.model:
        yield Difference("model", recorded.model, now.model)
    if recorded.system != now.system:
        texts = (systems.get(recorded.system, recorded.system), now.system_text)
        yield Difference("system prompt", *_around(*texts))
    if recorded.tools != now.tools:
        gone = sorted(set(recorded.tools) - set(now.tools))
        new = sorted(set(now.tools) - set(recorded.tools))
        yield Difference("tools", ", ".join(gone) or "-", ", ".join(new) or "-")
    for old, new_text in zip_longest(recorded.news, now.news, fillvalue=""):
        if old != new_text:
            what = _head(old or new_text)
            yield Difference(what, *_around(old, new_text))
            break


def _head(news: str) -> str:
    """Who says it: ``user`` or ``result of Bash``."""
    return news.partition(":")[0]


def _around(recorded: str, now: str) -> tuple[str, str]:
    """Both texts where they first differ, with a little of what is around it."""
    pairs = enumerate(zip(recorded, now, strict=False))
    shorter = min(len(recorded), len(now))
    at = next((i for i, (old, new) in pairs if old != new), shorter)
    start = max(0, at - _CONTEXT_CHARS // 3)
    return _excerpt(recorded, start), _excerpt(now, start)


def _excerpt(text: str, start: int) -> str:
    end = start + _CONTEXT_CHARS
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return before + " ".join(text[start:end].split()) + after


def _shortened(text: str) -> str:
    if len(text) <= _MAX_NEWS_CHARS:
        return text
    rest = text[_MAX_NEWS_CHARS:]
    return f"{text[:_MAX_NEWS_CHARS]}… {len(rest)} more characters, {digest(rest)}"


def _system(body: Mapping[str, Any]) -> str:
    texts = [str(block.get("text", "")) for block in _content(body.get("system"))]
    return "\n".join(text for text in texts if not text.startswith(_BILLING))


def _tools(body: Mapping[str, Any]) -> Iterator[str]:
    for tool in _objects(body.get("tools")):
        yield str(tool.get("name") or tool.get("type") or "")


def _news(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Who said what after the last answer; results in the order of their calls.

    The CLI sends those of parallel subagents in the order in which they end.
    """
    messages = _messages(body)
    answers = [at for at, each in enumerate(messages) if _is_answer(each)]
    last = answers[-1] if answers else -1
    names = _calls(messages[last]) if answers else {}
    order = {call: at for at, call in enumerate(names)}
    new = [
        block
        for message in messages[last + 1 :]
        if message.get("role") == "user"  # the others are the CLI's own
        for block in _blocks(message)
    ]
    replies = [block for block in new if block.get("type") == "tool_result"]
    replies.sort(key=lambda block: order.get(block.get("tool_use_id"), len(order)))
    for block in replies:
        kind = "error" if block.get("is_error") else "result"
        name = names.get(block.get("tool_use_id"), "a tool")
        yield f"{kind} of {name}", _text(block.get("content"))
    for block in new:
        if block.get("type") != "tool_result":
            yield _USER, _shown(block)


def _calls(answer: Block) -> dict[Any, str]:
    calls = (b for b in _blocks(answer) if b.get("type") == "tool_use")
    return {call.get("id"): str(call.get("name", "")) for call in calls}


def _is_answer(message: Block) -> bool:
    return message.get("role") == "assistant" and _said(message) != _NOT_AN_ANSWER


def _said(message: Block) -> str:
    texts = [str(block.get("text", "")) for block in _blocks(message)]
    kept = [text for text in texts if text and not text.startswith(_REMINDER)]
    return "\n".join(kept)


def _text(content: object) -> str:
    return "\n".join(filter(None, map(_shown, _content(content))))


def _shown(block: Block) -> str:
    """A block as text: what is not text by its kind, and a digest of what it holds."""
    if "text" in block:
        return str(block["text"])
    kept = {key: each for key, each in block.items() if key != "cache_control"}
    return f"({block.get('type', 'block')} {digest(repr(sorted(kept.items())))})"


def _messages(body: Mapping[str, Any]) -> Sequence[Block]:
    return _objects(body.get("messages"))


def _blocks(message: Block) -> Sequence[Block]:
    return _content(message.get("content"))


def _content(content: object) -> Sequence[Block]:
    """The blocks of a content, which may be a string for one block of text."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return _objects(content)


def _objects(found: object) -> list[Block]:
    listed = found if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, dict)]
