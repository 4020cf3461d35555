"""The prompt cache: five agents ask with the same prefix, and the first goes ahead."""

import json
from pathlib import Path
from typing import Any

import pytest

from mas.keeper import Servers
from mas.testing import Conversation, Request, ScriptedClaude, Turn
from tests.cli.command import Mas
from tests.scripts import describes, diligent, scripted

FIVE: tuple[dict[str, Any], ...] = tuple({"key": f"s{n}"} for n in range(5))
THINKS_S = 5.0


def thinking(key: str) -> Conversation:
    """A subtask whose first answer takes its time to begin."""
    first, *rest = [step.turn for step in diligent(key, command="true").steps]
    assert isinstance(first, Turn)
    slow = Turn(first.blocks, delay_s=THINKS_S)
    turns = [slow, *(turn for turn in rest if turn is not None)]
    return Conversation(describes(key), turns, name=key)


@pytest.fixture
def mas(home: Path, servers: Servers, tmp_path: Path, leaves_no_process: None) -> Mas:
    """The command in an empty folder."""
    return Mas(home, tmp_path)


@pytest.mark.parametrize(
    ("configured", "is_alone"), [("first_wave_s = 20", True), ("", False)]
)
def test_the_first_request_fills_the_cache_for_the_others(
    mas: Mas, configured: str, is_alone: bool
) -> None:
    """Elsewhere than at Anthropic's own address nobody waits, if nothing is said."""
    (mas.folder / "mas.toml").write_text(f"[gateway]\n{configured}\n")
    conversations = {task["key"]: thinking(task["key"]) for task in FIVE}
    with ScriptedClaude(scripted(FIVE, conversations)) as claude:
        done = mas.run("run", "x", "--json", ANTHROPIC_BASE_URL=claude.url)
    assert done.code == 0, done.err
    opening = [
        request
        for request in claude.requests
        if request.turn == 0 and not request.wants_structured_output
    ]
    assert len(opening) == 5
    begins_at = opening[0].at + THINKS_S
    assert (opening[1].at >= begins_at) is is_alone
    assert len({prefix(request) for request in opening}) == 1


def prefix(request: Request) -> str:
    """What comes before the messages, as Claude caches it."""
    body = request.body
    return json.dumps([body["model"], body["tools"], body["system"]])
