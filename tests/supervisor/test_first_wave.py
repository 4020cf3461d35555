"""The prompt cache: five agents ask with the same prefix, and the first goes ahead."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mas.keeper import Servers
from mas.testing import Conversation, Request, ScriptedClaude, Turn, text
from tests.cli.command import Mas
from tests.scripts import describes, diligent, scripted

# The CLI can put a fingerprint of the prompt first, made of some of its letters: the
# fifth of the key, for one.
KEYS = ("clean", "count", "fetch", "merge", "query")
FIVE: tuple[dict[str, Any], ...] = tuple({"key": key} for key in KEYS)
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


def slow_for_the_first(slow: Callable[[Turn], Turn]) -> dict[str, Conversation]:
    """Five subtasks; whichever of them asks first is answered as ``slow`` makes it."""
    asked = count()

    def conversation(key: str) -> Conversation:
        first, *rest = [step.turn for step in diligent(key, command="true").steps]
        assert isinstance(first, Turn)
        turns = [turn for turn in rest if turn is not None]

        def opening(_: Request) -> Turn:
            return slow(first) if next(asked) == 0 else first

        return Conversation(describes(key), [opening, *turns], name=key)

    return {task["key"]: conversation(task["key"]) for task in FIVE}


def after_the_first(mas: Mas, conversations: dict[str, Conversation]) -> list[float]:
    """Run the five; how many seconds after the first request each other one came."""
    (mas.folder / "mas.toml").write_text("[gateway]\nfirst_wave_s = 5\n")
    with ScriptedClaude(scripted(FIVE, conversations)) as claude:
        done = mas.run("run", "x", "--json", ANTHROPIC_BASE_URL=claude.url)
    assert done.code == 0, done.err
    came = [
        request.at
        for request in claude.requests
        if request.turn == 0 and not request.wants_structured_output
    ]
    assert len(came) == 5
    return [at - came[0] for at in came[1:]]


def test_the_others_go_when_the_first_answer_begins_not_when_it_ends(mas: Mas) -> None:
    def slow(turn: Turn) -> Turn:
        blocks = [text("word " * 80), *turn.blocks]  # 100 tokens
        return Turn(blocks, delay_s=2.0, tokens_per_second=8.0)

    others = after_the_first(mas, slow_for_the_first(slow))
    assert min(others) >= 2.0
    assert max(others) < 2.0 + 100 / 8


def test_the_others_wait_five_seconds_at_most(mas: Mas) -> None:
    others = after_the_first(
        mas, slow_for_the_first(lambda turn: Turn(turn.blocks, delay_s=12.0))
    )
    assert min(others) >= 4.9  # it was on its way for a moment when the five began
    assert max(others) < 12.0


def prefix(request: Request) -> str:
    """What comes before the messages, as Claude caches it."""
    body = request.body
    return json.dumps([body["model"], body["tools"], body["system"]])
