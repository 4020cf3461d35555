"""A turn as a whole message of the Messages API. Pure."""

import json
from typing import Any

from mas.gateway.sse import CHARACTERS_PER_TOKEN
from mas.testing.turns import Block, Turn


def count_tokens(size: int) -> int:
    """Return how many tokens so many characters may be."""
    return max(1, size // CHARACTERS_PER_TOKEN)


def message(turn: Turn, *, model: str, ids: str, request_size: int) -> dict[str, Any]:
    """Return the whole message; ``ids`` is what makes its ids unique."""
    content = [_identified(block, ids, at) for at, block in enumerate(turn.blocks)]
    usage = {
        "input_tokens": count_tokens(request_size),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": count_tokens(len(json.dumps(content))),
    }
    return {
        "id": f"msg_{ids}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": turn.reason_to_stop,
        "stop_sequence": None,
        "usage": usage | dict(turn.usage),
    }


def _identified(block: Block, ids: str, at: int) -> Block:
    if block.get("type") == "tool_use":
        return {"id": f"toolu_{ids}{at:02}", **block}
    return block
