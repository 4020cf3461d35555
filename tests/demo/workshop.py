"""Plays the demo's script with real tools, but without agents and without the CLI.

So a table takes a second, and many can be tried.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from mas.demo.plan import subtasks
from mas.demo.script import script
from mas.testing import Conversation, Request, Turn

MAX_BASH_CHARS = 30_000
MAX_REPLY_BYTES = 60_000
MAX_ROWS = 200
"""What the CLI and the tool let a model see."""

_MAX_ANSWERS = 300
_UNKNOWN = "[Tool call interrupted: the session ended before its result was recorded]"
_GONE_ON = (
    {"role": "assistant", "content": "No response requested."},
    {"role": "user", "content": "Go on."},
)
"""What the CLI and mas write where a session is resumed."""


class Workshop:
    """Runs the whole plan on one table after the other."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._dsn = dsn
        self._folder = folder
        self._runs = 0

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner().__enter__()
        self._connection = self._runner.run(asyncpg.connect(self._dsn))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._fetch("DROP SCHEMA IF EXISTS workshop CASCADE")
        self._runner.run(self._connection.close())
        self._runner.__exit__(kind, error, traceback)

    def analyse(
        self, name: str, content: bytes, *, disturbed: bool = False
    ) -> "Analysis":
        """Play all subtasks on a file of this name and content.

        Where it is ``disturbed`` each session is killed in each of its turns: before
        its first call is recorded, and between the first and the next.
        """
        self._runs += 1
        root = self._folder / str(self._runs)
        inputs = root / "inputs"
        inputs.mkdir(parents=True)
        (inputs / name).write_bytes(content)
        self._fetch("DROP SCHEMA IF EXISTS workshop CASCADE")
        self._fetch("CREATE SCHEMA workshop")
        self._fetch("SET search_path = workshop")
        analysis = Analysis(root)
        shared: dict[str, Any] = {}
        for subtask in subtasks(name):
            _prepare(root, subtask["key"], subtask.get("dependencies", ()))
            self.play(root, subtask["key"], name, shared, disturbed=disturbed)
            analysis.result(subtask["key"])
        return analysis

    def play(
        self,
        root: Path,
        key: str,
        name: str,
        shared: dict[str, Any],
        *,
        disturbed: bool = False,
    ) -> str:
        """Play one subtask in its workspace; return the last words."""
        workspace = root / key
        (conversation,) = (
            each for each in script(name).conversations if each.name == key
        )
        prompt = f"# Your subtask ({key})\n\nDo it."
        messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
        disturbances = _kills(disturbed)
        for _ in range(_MAX_ANSWERS):
            calls, words = _answer(conversation, workspace, messages)
            if not calls:
                return words
            results = [self._result(call, workspace, shared) for call in calls]
            messages += next(disturbances)(calls, results)
        raise AssertionError(f"{key} does not come to an end")

    def _result(
        self, call: dict[str, Any], workspace: Path, shared: dict[str, Any]
    ) -> dict[str, Any]:
        words, failed = self._use(call["name"], call["input"], workspace, shared)
        return {
            "type": "tool_result",
            "tool_use_id": call["id"],
            "is_error": failed,
            "content": [{"type": "text", "text": words}],
        }

    def _use(
        self, name: str, given: dict[str, Any], workspace: Path, shared: dict[str, Any]
    ) -> tuple[str, bool]:
        match name:
            case "Write":
                path = Path(given["file_path"])
                assert path.is_relative_to(workspace)
                path.write_text(given["content"], encoding="utf-8")
                return "File created successfully.", False
            case "Bash":
                return _bash(given["command"], workspace)
            case "mcp__mas__query_database":
                return self._query(given["query"], given["params"])
            case "mcp__mas__share_data":
                shared[given["key"]] = given["value"]
                return json.dumps({"key": given["key"]}), False
            case "mcp__mas__get_shared_data":
                key = given["key"]
                return json.dumps({"key": key, "value": shared[key]}), False
        raise AssertionError(f"no such tool: {name}")

    def _query(self, statement: str, params: Sequence[Any]) -> tuple[str, bool]:
        try:
            found = self._fetch(statement, *params)
        except asyncpg.PostgresError as error:
            return f"PostgreSQL refused the statement: {error}\n{statement}", True
        columns = list(found[0].keys()) if found else []
        rows = [list(row.values()) for row in found]
        assert len(rows) <= MAX_ROWS
        reply = json.dumps({"columns": columns, "rows": rows}, ensure_ascii=False)
        assert len(reply.encode()) <= MAX_REPLY_BYTES
        return reply, False

    def _fetch(self, statement: str, *params: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = self._runner.run(
            self._connection.fetch(statement, *params)
        )
        return rows


Messages = list[dict[str, Any]]
"""A part of a conversation: an answer and what followed it, or calls, or results."""


def _answer(
    conversation: Conversation, workspace: Path, messages: Messages
) -> tuple[Messages, str]:
    """The calls of the next answer; or, where there are none, what it says."""
    system = f"Primary working directory: {workspace}"
    body = {"system": system, "messages": messages}
    request = Request(method="POST", path="/v1/messages", body=body)
    assert conversation.matches(request)
    step = conversation.steps[request.turn]
    assert callable(step.turn)
    turn = step.turn(request)
    assert isinstance(turn, Turn)
    calls = [dict(block) for block in turn.blocks if block["type"] == "tool_use"]
    for number, call in enumerate(calls):
        call["id"] = f"{len(messages)}-{number}"
    return calls, "" if calls else str(turn.blocks[0]["text"])


def _kills(disturbed: bool) -> Iterator[Callable[[Messages, Messages], Messages]]:
    """What the history holds of one answer after the other."""
    ways = [_killed, _cut, _finished] if disturbed else [_finished]
    return cycle(ways)


def _finished(calls: Messages, results: Messages) -> Messages:
    return [
        {"role": "assistant", "content": calls},
        {"role": "user", "content": results},
    ]


def _killed(calls: Messages, results: Messages) -> Messages:
    """The tools have done their work, and nobody knows."""
    unknown = [result | {"content": _UNKNOWN, "is_error": True} for result in results]
    return [*_finished(calls, unknown), *_GONE_ON]


def _cut(calls: Messages, results: Messages) -> Messages:
    """In the stream, behind the first call of several; else as when killed."""
    if len(calls) == 1:
        return _killed(calls, results)
    return [*_finished(calls[:1], results[:1]), *_GONE_ON]


class Analysis:
    """What the subtasks left."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def result(self, key: str) -> dict[str, Any]:
        """A subtask's result.json."""
        content = (self.root / key / "output/result.json").read_bytes()
        result: dict[str, Any] = json.loads(content)
        assert result["success"] is True, result["summary"]
        return result

    def data(self, key: str) -> dict[str, Any]:
        data: dict[str, Any] = self.result(key)["data"]
        return data

    def column(self, key: str, name: str) -> dict[str, Any]:
        """What a subtask found out about one column."""
        columns: list[dict[str, Any]] = self.data(key)["columns"]
        (found,) = (each for each in columns if each["column"] == name)
        return found

    @property
    def report(self) -> str:
        return (self.root / "report/output/report.md").read_text(encoding="utf-8")


def _prepare(root: Path, key: str, dependencies: Sequence[str]) -> None:
    workspace = root / key
    shutil.copytree(root / "inputs", workspace / "context/inputs")
    previous = {}
    for dependency in dependencies:
        made = root / dependency / "output"
        shutil.copytree(made, workspace / "context/files" / dependency)
        result = json.loads((made / "result.json").read_bytes())
        previous[dependency] = {"description": "", "result": result}
    for folder in ("output", "temp"):
        (workspace / folder).mkdir()
    content = json.dumps(previous, ensure_ascii=False, indent=2)
    (workspace / "context/previous_results.json").write_text(content, encoding="utf-8")


def _bash(command: str, workspace: Path) -> tuple[str, bool]:
    own = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=workspace,
        env=os.environ | {"PATH": os.pathsep.join([own, os.environ["PATH"]])},
        capture_output=True,
        check=False,
        timeout=60,
    )
    output = (done.stdout + done.stderr).decode()
    assert len(output) <= MAX_BASH_CHARS
    return output, done.returncode != 0
