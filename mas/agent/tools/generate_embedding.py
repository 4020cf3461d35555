"""The tool generate_embedding: texts to vectors, by the embedding service."""

import itertools
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from claude_agent_sdk import SdkMcpTool, ToolAnnotations, tool

from mas.agent.tools.replies import Reply, answer, refusal

TIMEOUT_S = 60.0
MAX_TEXTS = 1_000
MAX_INLINE_BYTES = 20_000
"""Larger answers go into a file: figures by the thousand say nothing in a prompt."""

_GO_ON = (
    "Go on without embeddings where the subtask allows it, with keywords or full-text "
    "search for instance, and say so in your summary."
)

_DESCRIPTION = """\
Turn texts into vectors, for similarity search (PostgreSQL has pgvector) or
clustering. A few vectors come back directly, many in a JSON file in temp/, one
vector a text."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "One text"},
        "texts": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MAX_TEXTS,
            "description": "Several texts",
        },
    },
    "additionalProperties": False,
}


def generate_embedding(url: str | None, temp: Path) -> SdkMcpTool[Any]:
    """The tool over the service at ``url``; None where there is none."""
    numbers = itertools.count(1)

    @tool(
        "generate_embedding",
        _DESCRIPTION,
        _SCHEMA,
        annotations=ToolAnnotations(readOnlyHint=True),
    )
    async def run(arguments: dict[str, Any]) -> Reply:
        texts = arguments.get("texts") or [
            text for text in [arguments.get("text")] if text is not None
        ]
        if not texts:
            return refusal("Give text, or texts.")
        if url is None:
            return refusal(f"No embedding service is set up. {_GO_ON}")
        try:
            vectors = await _embed(url, texts)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            reason = str(error) or type(error).__name__
            return refusal(f"The embedding service failed: {reason}. {_GO_ON}")
        return _delivered(vectors, temp / f"embeddings_{next(numbers)}.json")

    return run


async def _embed(url: str, texts: list[str]) -> list[list[float]]:
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
        response = await client.post(f"{url.rstrip('/')}/embed", json={"texts": texts})
    if response.status_code != httpx2.codes.OK:
        raise ValueError(f"HTTP {response.status_code}: {response.text[:300]}")
    reply = msgspec.json.decode(response.content)
    if isinstance(reply, dict):
        reply = reply.get("vectors", reply.get("embeddings"))
    vectors = msgspec.convert(reply, list[list[float]])
    if len(vectors) != len(texts):
        raise ValueError(f"{len(vectors)} vectors came back for {len(texts)} texts")
    return vectors


def _delivered(vectors: list[list[float]], path: Path) -> Reply:
    head = {"count": len(vectors), "dimensions": len(vectors[0])}
    data = msgspec.json.encode(vectors)
    if len(data) <= MAX_INLINE_BYTES:
        return answer({**head, "vectors": msgspec.Raw(data)})
    try:
        path.write_bytes(data)
    except OSError as error:
        return refusal(f"The vectors cannot be written to {path}: {error.strerror}")
    return answer({**head, "file": str(path)})
