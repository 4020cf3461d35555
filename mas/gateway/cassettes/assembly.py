"""A stream put together again: the whole message that its events carry. Pure."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from mas.gateway.sse import UNKNOWN_DELTAS, UNPARSED_INPUT, Block, Reader

_JOINED = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


class Assembly:
    """Takes a stream in chunks of any size; ``message`` is what it said so far.

    A tool's input that is no JSON, and deltas of unknown kinds, are kept in the block
    as they came (``sse.UNPARSED_INPUT``, ``sse.UNKNOWN_DELTAS``): nothing is lost.
    """

    def __init__(self) -> None:
        self.is_complete = False
        """Whether the stream said that the message has ended."""
        self.error: dict[str, Any] | None = None
        """The event ``error`` that ended it."""
        self.has_garbage = False
        """Whether something came that is no event; nothing is read after it."""
        self._reader = Reader()
        self._head: dict[str, Any] | None = None
        self._blocks: dict[int, _OpenBlock] = {}

    def feed(self, chunk: bytes) -> None:
        for data in self._reader.feed(chunk):
            if self.has_garbage or self.error is not None:
                return
            if data is None:
                self.has_garbage = True
            else:
                self._take(data)

    @property
    def message(self) -> dict[str, Any] | None:
        """The message so far; None before its start."""
        if self._head is None:
            return None
        blocks = [self._blocks[index].block() for index in sorted(self._blocks)]
        return {**self._head, "content": blocks}

    @property
    def has_open_block(self) -> bool:
        """Whether the last block has begun and not ended."""
        return any(not block.has_ended for block in self._blocks.values())

    def _take(self, data: dict[str, Any]) -> None:
        match data:
            case {"type": "message_start", "message": dict(head)}:
                self._head = dict(head)
            case {"type": "content_block_start", "index": int(at)}:
                self._blocks[at] = _OpenBlock(dict(data.get("content_block") or {}))
            case {
                "type": "content_block_delta",
                "index": int(at),
                "delta": dict(delta),
            }:
                if at in self._blocks:
                    self._blocks[at].add(delta)
            case {"type": "content_block_stop", "index": int(at)}:
                if at in self._blocks:
                    self._blocks[at].has_ended = True
            case {"type": "message_delta"} if self._head is not None:
                self._end(self._head, data)
            case {"type": "message_stop"}:
                self.is_complete = True
            case {"type": "error"}:
                self.error = data

    def _end(self, head: dict[str, Any], data: dict[str, Any]) -> None:
        usage = {**(head.get("usage") or {}), **(data.get("usage") or {})}
        extra = {k: v for k, v in data.items() if k not in ("type", "delta", "usage")}
        head |= {**extra, **(data.get("delta") or {}), "usage": usage}


class _OpenBlock:
    def __init__(self, start: Block) -> None:
        self.has_ended = False
        self._start = start
        self._parts: dict[str, list[str]] = {}
        self._citations: list[Any] = []
        self._unknown: list[Block] = []

    def add(self, delta: dict[str, Any]) -> None:
        key = _JOINED.get(str(delta.get("type")))
        if key is not None and isinstance(delta.get(key), str):
            self._parts.setdefault(key, []).append(delta[key])
        elif delta.get("type") == "citations_delta":
            self._citations.append(delta.get("citation"))
        else:
            self._unknown.append(delta)

    def block(self) -> Block:
        block = dict(self._start)
        for key, parts in self._parts.items():
            if key != "partial_json":
                block[key] = (block.get(key) or "") + "".join(parts)
        if written := "".join(self._parts.get("partial_json", ())):
            try:
                block["input"] = _arguments(written)
            except (ValueError, RecursionError):
                block |= {"input": {}, UNPARSED_INPUT: written}
        elif "input" in block and not self.has_ended:
            block[UNPARSED_INPUT] = ""
        if self._citations:
            block["citations"] = [*(block.get("citations") or ()), *self._citations]
        if self._unknown:
            block[UNKNOWN_DELTAS] = list(self._unknown)
        return block


def _arguments(written: str) -> dict[str, Any]:
    found = json.loads(written, parse_constant=_refuse)
    if not isinstance(found, dict):
        raise ValueError("a tool's input is an object")
    json.dumps(found, allow_nan=False)  # 1e999 is read, and could not be written
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def without_ids(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its ids as numbers: they are other ones at each run.

    What refers to each other still does. ``with_ids`` gives it ids again.
    """
    known: dict[str, str] = {}

    def number(found: str) -> str:
        prefix = found.rpartition("_")[0] or "toolu"
        return known.setdefault(found, f"{prefix}_{len(known)}")

    kept = {key: value for key, value in message.items() if key != "id"}
    return {**kept, "content": _with_ids(message["content"], number)}


def with_ids(message: Mapping[str, Any], seed: str) -> dict[str, Any]:
    """The message with ids that are made of ``seed``."""

    def name(found: str) -> str:
        prefix, _, number = found.rpartition("_")
        return f"{prefix}_{seed}{number:0>2}"

    content = _with_ids(message["content"], name)
    return {"id": f"msg_{seed}", **message, "content": content}


def _with_ids(content: list[Block], change: Callable[[str], str]) -> list[Block]:
    return [
        {
            key: change(value)
            if key in ("id", "tool_use_id") and isinstance(value, str)
            else value
            for key, value in block.items()
        }
        for block in content
    ]
