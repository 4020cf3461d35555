"""What a tool answers: a JSON text, or an error that says what to do."""

from typing import Any

import msgspec

Reply = dict[str, Any]


def answer(value: Any) -> Reply:
    """A result, as JSON."""
    return _text(msgspec.json.encode(value).decode())


def refusal(message: str) -> Reply:
    """An error that Claude reads and can act on."""
    return {**_text(message), "is_error": True}


def _text(text: str) -> Reply:
    return {"content": [{"type": "text", "text": text}]}
