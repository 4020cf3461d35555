"""The tool share_data: hand a small value to the task's other agents, now."""

from typing import Any

from claude_agent_sdk import SdkMcpTool, tool

from mas.agent.tools.replies import Reply, answer, refusal
from mas.agent.tools.shared import GO_ON, Shared
from mas.errors import MasError
from mas.store.redis import DEFAULT_EXPIRE_S, MAX_EXPIRE_S

_DESCRIPTION = """\
Share a value, any JSON, under a key with the agents that work on this task at the
same time. It is gone after expire_seconds (a day, if not given). What later
subtasks build on belongs in result.json instead."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "minLength": 1, "maxLength": 200},
        "value": {"description": "Any JSON"},
        "expire_seconds": {"type": "integer", "minimum": 1, "maximum": MAX_EXPIRE_S},
    },
    "required": ["key", "value"],
    "additionalProperties": False,
}


def share_data(shared: Shared) -> SdkMcpTool[Any]:
    """The tool over ``shared``."""

    @tool("share_data", _DESCRIPTION, _SCHEMA)
    async def run(arguments: dict[str, Any]) -> Reply:
        key = arguments["key"]
        expire_s = arguments.get("expire_seconds", DEFAULT_EXPIRE_S)
        try:
            state = await shared.state()
            await state.share(shared.task_id, key, arguments["value"], expire_s)
        except MasError as error:
            return refusal(f"{key!r} was not shared: {error}. {GO_ON}")
        return answer({"key": key, "expire_seconds": expire_s})

    return run
