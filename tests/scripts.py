"""Scripts for scripted Claude that several tests play."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from mas.testing import (
    Conversation,
    Fault,
    Request,
    Script,
    plan,
    planner,
    text,
    tool_use,
)

SIX: tuple[dict[str, Any], ...] = (
    {"key": "fetch", "required_capabilities": ["file_processing"]},
    {"key": "left", "dependencies": ["fetch"]},
    {"key": "right", "dependencies": ["fetch"]},
    {"key": "join", "dependencies": ["left", "right"]},
    {"key": "report", "dependencies": ["join"]},
    {"key": "aside", "required_capabilities": ["web_scraping"]},
)
"""A diamond, a chain behind it, and one that stands alone."""


def result_json(summary: str = "done", **fields: Any) -> str:
    result = {"success": True, "data": {}, "summary": summary, "files_created": []}
    return json.dumps(result | fields)


def diligent(
    key: str, *, command: str = "sleep 0.5", before: tuple[Fault, ...] = ()
) -> Conversation:
    """A subtask that runs a command, makes a file and writes its result.

    ``before`` happens before its first turn.
    """

    def write_result(request: Request) -> list[dict[str, Any]]:
        return [
            tool_use(
                "Write",
                file_path=f"{request.cwd}/output/result.json",
                content=result_json(f"{key} is done", files_created=[f"{key}.txt"]),
            )
        ]

    return Conversation(
        describes(key),
        [
            *before,
            [
                text("I start."),
                tool_use("Bash", command=f"{command}; echo {key} > output/{key}.txt"),
            ],
            write_result,
            "done",
        ],
        name=key,
    )


def describes(key: str) -> Callable[[Request], bool]:
    """Matches the session of the subtask, not those that only hear of it."""
    return lambda request: f"# Your subtask ({key})" in request.prompt


def six(**conversations: Conversation) -> Script:
    """The six subtasks, each diligent but for those that are given."""
    return scripted(SIX, conversations)


def scripted(
    subtasks: tuple[dict[str, Any], ...], conversations: Mapping[str, Conversation]
) -> Script:
    keys = [task["key"] for task in subtasks]
    planned = [{"description": f"do {task['key']}"} | task for task in subtasks]
    return Script(
        [
            Conversation(planner, [[plan(planned)]]),
            *(conversations.get(key) or diligent(key) for key in keys),
        ]
    )
