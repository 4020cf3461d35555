"""Scripted conversations as generators: call tools, get their results, go on.

A dialogue yields the blocks of one answer and is sent the results of the tools that it
called; what it returns is the last thing it says. Nothing is remembered between the
requests of a session: each plays the dialogue again, with the results that the request
itself holds, up to the answer that is asked for now. So a dialogue must do the same
every time it is given the same.
"""

import json
import re
import shlex
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from mas.demo.programs import source
from mas.testing import Conversation, Request, ScriptError, Turn, text, tool_use

Block = dict[str, Any]
T = TypeVar("T")

Step = Generator[Sequence[Block], list["ToolResult"], T]
"""A part of a dialogue, for ``yield from``; T is what it finds out."""
Dialogue = Generator[Sequence[Block], list["ToolResult"], str]

MAX_TURNS = 60
TOKENS_PER_SECOND = 4_000.0
"""A real model is fifty times slower."""
MAX_PACED_CHARS = 15_000
_SHOWN_CHARS = 400

NOTHING_USED = {"input_tokens": 0, "output_tokens": 0}
"""Nobody counts, and nobody pays."""


@dataclass(frozen=True)
class ToolResult:
    text: str
    is_error: bool = False


class ToolFailedError(Exception):
    """A tool did not do what the script needs; the message is what it said."""


def conversation(key: str, dialogue: Callable[[Request], Dialogue]) -> Conversation:
    """The conversation of the subtask ``key``."""
    turns = [partial(_turn, dialogue)] * MAX_TURNS
    return Conversation(f"# Your subtask ({key})\n", turns, name=key)


def _turn(dialogue: Callable[[Request], Dialogue], request: Request) -> Turn:
    rounds = tool_rounds(request)
    play = _honest(dialogue(request), request)
    try:
        blocks = next(play)
        for results in rounds:
            # An answer that was cut behind its first call is given again, whole.
            if len(results) == sum(block["type"] == "tool_use" for block in blocks):
                blocks = play.send(results)
    except StopIteration as ended:
        blocks = [text(ended.value)]
        if any(_said(answer) == ended.value for answer in request.answers):
            raise ScriptError(
                f"the dialogue is over, and this came: {request.last_user_text[:200]!r}"
            ) from None
    return Turn(blocks, usage=NOTHING_USED, tokens_per_second=_pace(blocks))


def _pace(blocks: Sequence[Block]) -> float | None:
    """Slow enough to look at; rows by the thousand come as fast as they can."""
    size = sum(len(str(block)) for block in blocks)
    return TOKENS_PER_SECOND if size < MAX_PACED_CHARS else None


def tool_rounds(request: Request) -> Iterator[list[ToolResult]]:
    """Return for each answer that called tools their results, in the order of calls."""
    results = {
        block["tool_use_id"]: _result(block)
        for message in request.messages
        for block in _blocks(message)
        if block.get("type") == "tool_result"
    }
    for answer in request.answers:
        blocks = _blocks(answer)
        calls = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        if calls:
            yield [results[call] for call in calls]


def _said(answer: dict[str, Any]) -> str:
    return "".join(str(block.get("text", "")) for block in _blocks(answer))


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else [text(content)]


def _result(block: dict[str, Any]) -> ToolResult:
    content = block.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content if "text" in part)
    return ToolResult(content, bool(block.get("is_error")))


def _honest(dialogue: Dialogue, request: Request) -> Dialogue:
    """Play ``dialogue``; where a tool fails it, hand in that it could not be done."""
    try:
        return (yield from dialogue)
    except ToolFailedError as error:
        failure = f"A tool failed: {error}"
    yield from hand_in(request, data={}, summary=failure, success=False)
    return failure


def calls(words: str, *blocks: Block) -> Step[list[str]]:
    """Say something, call tools, return their texts; ToolFailedError if one fails."""
    results = yield [text(words), *blocks]
    for block, result in zip(blocks, results, strict=True):
        if result.is_error:
            raise ToolFailedError(f"{block['name']}: {_flat(result.text)}")
    return [result.text for result in results]


def bash(words: str, command: str) -> Step[str]:
    """Run a command in the workspace and return what it prints."""
    [reply] = yield from calls(words, tool_use("Bash", command=command))
    return reply


def write(words: str, path: str, content: str) -> Step[None]:
    """Write a file; one that an earlier attempt left is read first, as Claude must."""
    block = tool_use("Write", file_path=path, content=content)
    [result] = yield [text(words), block]
    if result.is_error and "read" in result.text.casefold():
        look = tool_use("Read", file_path=path)
        yield from calls("It is there already; I look at it.", look)
        [result] = yield [block]
    if result.is_error:
        raise ToolFailedError(f"Write: {_flat(result.text)}")


def run(request: Request, words: str, program: str, *arguments: str) -> Step[Any]:
    """Write a program of ``mas.demo.programs``, run it, return the JSON it prints."""
    path = f"temp/{program}.py"
    yield from write(words, f"{request.cwd}/{path}", source(program))
    command = shlex.join(["python3", path, *arguments])
    return parsed((yield from bash("I run it.", command)))


def previous_results() -> Step[dict[str, Any]]:
    """Return what each dependency left in "data" of its result.json, by its id."""
    # Compact: a shell's output is cut after 30,000 characters.
    compact = "python3 -m json.tool --compact --no-ensure-ascii"
    reply = yield from bash(
        "First I read what the subtasks before me found.",
        f"{compact} context/previous_results.json",
    )
    return {key: each["result"]["data"] for key, each in parsed(reply).items()}


def query(words: str, statement: str, *params: Any) -> Step[list[dict[str, Any]]]:
    """Run one SQL statement and return its rows, by column."""
    [reply] = yield from calls(words, query_block(statement, *params))
    answer = parsed(reply)
    return [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]


def query_block(statement: str, *params: Any) -> Block:
    """The call of one SQL statement."""
    name = "mcp__mas__query_database"
    return tool_use(name, query=statement, params=list(params))


def share(words: str, key: str, value: Any) -> Step[None]:
    """Hand a value to the task's other agents; without Redis they do without."""
    yield [text(words), tool_use("mcp__mas__share_data", key=key, value=value)]


def shared(words: str, key: str, *, otherwise: Any) -> Step[Any]:
    """Return what another agent has shared, or ``otherwise`` where it is not there."""
    [result] = yield [text(words), tool_use("mcp__mas__get_shared_data", key=key)]
    return otherwise if result.is_error else parsed(result.text)["value"]


def hand_in(
    request: Request,
    *,
    data: dict[str, Any],
    summary: str,
    files: Sequence[str] = (),
    success: bool = True,
) -> Step[None]:
    """Write result.json."""
    result = {
        "success": success,
        "data": data,
        "summary": summary,
        "files_created": list(files),
    }
    yield from write(
        "I hand in my result.",
        f"{request.cwd}/output/result.json",
        json.dumps(result, ensure_ascii=False, indent=2) + "\n",
    )


def parsed(reply: str) -> Any:
    """Return the JSON that a reply begins with; the CLI may add a word behind it."""
    try:
        return json.JSONDecoder().raw_decode(reply.lstrip())[0]
    except ValueError:
        raise ToolFailedError(
            f"this is not what was expected: {_flat(reply)}"
        ) from None


def _flat(words: str) -> str:
    # What a tool says may hold what result.json must not: half a surrogate pair, NUL.
    clean = " ".join(re.sub(r"[\0\ud800-\udfff]", " ", words).split())
    if len(clean) <= _SHOWN_CHARS:
        return clean
    # A refusal begins with the reason, a traceback ends with it.
    return f"{clean[: _SHOWN_CHARS // 2]} … {clean[-_SHOWN_CHARS // 2 :]}"
