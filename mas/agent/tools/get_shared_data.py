"""The tool get_shared_data: read what another agent of the task has shared."""

from typing import Any

from claude_agent_sdk import SdkMcpTool, ToolAnnotations, tool

from mas.agent.tools.replies import Reply, answer, refusal
from mas.agent.tools.shared import GO_ON, Shared
from mas.errors import MasError
from mas.store.redis import MissingKeyError

MAX_KEYS_TOLD = 50

_DESCRIPTION = """\
Read the value that an agent of this task has shared under a key with share_data. A
key that is not there is an error that lists those that are."""

_SCHEMA = {
    "type": "object",
    "properties": {"key": {"type": "string", "minLength": 1}},
    "required": ["key"],
    "additionalProperties": False,
}


def get_shared_data(shared: Shared) -> SdkMcpTool[Any]:
    """The tool over ``shared``."""

    @tool(
        "get_shared_data",
        _DESCRIPTION,
        _SCHEMA,
        annotations=ToolAnnotations(readOnlyHint=True),
    )
    async def run(arguments: dict[str, Any]) -> Reply:
        key = arguments["key"]
        try:
            state = await shared.state()
            try:
                value = await state.get(shared.task_id, key)
            except MissingKeyError:
                keys = await state.keys(shared.task_id)
                return refusal(f"Nothing is shared under {key!r}. {_those(keys)}")
        except MasError as error:
            return refusal(f"{key!r} cannot be read: {error}. {GO_ON}")
        return answer({"key": key, "value": value})

    return run


def _those(keys: list[str]) -> str:
    if not keys:
        return "Nothing is shared for this task yet."
    told = ", ".join(map(repr, sorted(keys)[:MAX_KEYS_TOLD]))
    more = f" and {len(keys) - MAX_KEYS_TOLD} more" if len(keys) > MAX_KEYS_TOLD else ""
    return f"These keys are there: {told}{more}."
