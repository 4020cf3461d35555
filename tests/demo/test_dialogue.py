"""Dialogues: played again for each request, up to the answer that is asked for."""

import json
from typing import Any

import pytest

from mas.demo import dialogue
from mas.demo.dialogue import Dialogue, conversation
from mas.testing import Request, ScriptError, Turn, text, tool_use

PROMPT = "# Your subtask (add)\n\nAdd."


def add(request: Request) -> Dialogue:
    one = yield from dialogue.bash("The first.", "one")
    two = yield from dialogue.bash("The second.", "two")
    yield from dialogue.hand_in(request, data={"sum": int(one) + int(two)}, summary="")
    return "added"


def result(call: str, words: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": words, **more}


def asked(*rounds: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> Request:
    """The request after these answers and what followed them."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
    for answer, following in rounds:
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": following})
    system = "Primary working directory: /w"
    body = {"system": system, "messages": messages}
    return Request(method="POST", path="/v1/messages", body=body)


def said(request: Request) -> list[dict[str, Any]]:
    step = conversation("add", add).steps[request.turn]
    assert callable(step.turn)
    turn = step.turn(request)
    assert isinstance(turn, Turn)
    return list(turn.blocks)


def called(name: str, call: str, **arguments: Any) -> list[dict[str, Any]]:
    return [{**tool_use(name, **arguments), "id": call}]


ONE = (called("Bash", "1", command="one"), [result("1", "20")])
TWO = (called("Bash", "2", command="two"), [result("2", "22")])
WROTE = (called("Write", "3"), [result("3", "created")])


def test_it_matches_its_own_subtask_alone() -> None:
    assert conversation("add", add).matches(asked())
    assert not conversation("ad", add).matches(asked())


def test_each_request_gets_the_answer_that_follows_its_results() -> None:
    assert said(asked()) == [text("The first."), tool_use("Bash", command="one")]
    assert said(asked(ONE)) == [text("The second."), tool_use("Bash", command="two")]
    written = said(asked(ONE, TWO))[-1]["input"]
    assert written["file_path"] == "/w/output/result.json"
    assert json.loads(written["content"])["data"] == {"sum": 42}
    assert said(asked(ONE, TWO, WROTE)) == [text("added")]


def test_the_same_request_is_answered_the_same_again() -> None:
    assert said(asked(ONE)) == said(asked(ONE))


def test_nothing_is_counted_as_used() -> None:
    step = conversation("add", add).steps[0]
    assert callable(step.turn)
    turn = step.turn(asked())
    assert isinstance(turn, Turn)
    assert turn.usage == {"input_tokens": 0, "output_tokens": 0}


def test_a_tool_that_fails_is_handed_in_as_the_reason() -> None:
    refused = (ONE[0], [result("1", "no such\ncommand \ud800", is_error=True)])
    content = said(asked(refused))[-1]["input"]["content"]
    handed_in = json.loads(content)
    assert handed_in["success"] is False
    assert "Bash: no such command" in handed_in["summary"]
    content.encode()
    wrote = (called("Write", "3"), [result("3", "created")])
    assert said(asked(refused, wrote)) == [text(handed_in["summary"])]


def test_what_is_asked_after_the_end_is_an_error_of_the_script() -> None:
    feedback = [{"type": "text", "text": "result.json is not there"}]
    over = ([text("added")], feedback)
    with pytest.raises(ScriptError, match=r"result\.json is not there"):
        said(asked(ONE, TWO, WROTE, over))


def test_a_file_that_is_there_already_is_read_before_it_is_written() -> None:
    unread = (called("Write", "3"), [result("3", "Read it first", is_error=True)])
    look = (called("Read", "4"), [result("4", "old")])
    path = "/w/output/result.json"
    assert said(asked(ONE, TWO, unread))[-1] == tool_use("Read", file_path=path)
    assert said(asked(ONE, TWO, unread, look))[-1]["name"] == "Write"
    assert said(asked(ONE, TWO, unread, look, WROTE)) == [text("added")]


def test_without_redis_what_is_shared_comes_from_the_results() -> None:
    play = dialogue.shared("?", "roles", otherwise=["from results"])
    next(play)
    with pytest.raises(StopIteration) as ended:
        play.send([dialogue.ToolResult("Redis is not there", is_error=True)])
    assert ended.value.value == ["from results"]
