"""Which turn and which fault a request gets."""

import json
from typing import Any

import pytest

from mas.testing import (
    Conversation,
    Fault,
    Request,
    Script,
    ScriptError,
    Turn,
    plan,
    planner,
    text,
    tool_use,
)
from mas.testing.script import Player
from mas.testing.turns import as_turn


def request(prompt: str, *, turn: int = 0, **body: Any) -> Request:
    history = [{"role": "user", "content": prompt}]
    for number in range(turn):
        history += [
            {"role": "assistant", "content": f"answer {number}"},
            {"role": "user", "content": f"result {number}"},
        ]
    return Request("POST", "/v1/messages", {"messages": history, **body})


def said(turn: object) -> str:
    assert isinstance(turn, Turn)
    return str(turn.blocks[0]["text"])


def test_the_first_conversation_that_matches_answers() -> None:
    player = Player(
        Script(
            [
                Conversation(planner, ["planned"]),
                Conversation("table", ["loaded"]),
                Conversation(lambda r: r.prompt.endswith("!"), ["shouted"]),
                Conversation("You work", ["worked"]),
            ]
        )
    )
    schema = {"format": {"type": "json_schema"}}

    assert said(player.cue(request("table", output_config=schema)).turn) == "planned"
    assert said(player.cue(request("load the table!")).turn) == "loaded"
    assert said(player.cue(request("load it!")).turn) == "shouted"
    assert said(player.cue(request("load", system="You work.")).turn) == "worked"


def test_a_request_asked_again_gets_the_same_turn() -> None:
    player = Player(Script([Conversation("go", ["one", "two"])]))
    turns = [player.cue(request("go", turn=turn)).turn for turn in (0, 1, 1, 0)]

    assert [said(turn) for turn in turns] == ["one", "two", "two", "one"]


def test_a_request_that_nothing_matches_says_what_could_have() -> None:
    player = Player(Script([Conversation("table", ["x"]), Conversation(planner, [])]))

    with pytest.raises(ScriptError, match=r"no conversation .* 'hello'") as caught:
        player.cue(request("hello"))
    assert "'table', 'planner'" in caught.value.hint


def test_a_turn_past_the_end_says_which_is_missing() -> None:
    player = Player(Script([Conversation("go", ["one"])]))

    with pytest.raises(ScriptError, match="turn 2 was asked for") as caught:
        player.cue(request("go", turn=1))
    assert "result 0" in caught.value.hint


def test_faults_come_one_after_the_other_and_then_the_turn() -> None:
    overloaded, cut = Fault.status(529, times=2), Fault.cut(after_events=3)
    player = Player(Script([Conversation("go", [overloaded, cut, "one"])]))
    faults = [player.cue(request("go")).fault for _ in range(5)]

    assert faults == [overloaded, overloaded, cut, None, None]


def test_faults_are_counted_for_each_conversation_and_turn() -> None:
    fault = Fault.status(500)
    turns: list[Any] = [fault, "one", fault, "two"]
    player = Player(Script([Conversation("a", turns), Conversation("b", turns)]))
    places = [("a", 0), ("b", 0), ("a", 1), ("a", 0), ("b", 0), ("a", 1)]
    faults = [player.cue(request(who, turn=turn)).fault for who, turn in places]

    assert faults == [fault, fault, fault, None, None, None]


def test_a_fault_at_the_end_needs_no_turn_until_it_is_used_up() -> None:
    player = Player(Script([Conversation("go", ["one", Fault.status(403, times=2)])]))
    codes = [player.cue(request("go", turn=1)).fault for _ in range(2)]

    assert [fault.code for fault in codes if fault] == [403, 403]
    with pytest.raises(ScriptError, match="turn 2 was asked for"):
        player.cue(request("go", turn=1))


def test_a_fault_may_last_for_ever() -> None:
    player = Player(Script([Conversation("go", [Fault.hang(times=None), "never"])]))

    assert all(player.cue(request("go")).fault for _ in range(20))


def test_ids_repeat_in_another_server_and_never_within_one() -> None:
    script = Script([Conversation("go", ["one", "two"]), Conversation("a", ["x"])])
    asked = [request("go"), request("go"), request("go", turn=1), request("a")]
    players = Player(script), Player(script)
    ids = [[player.cue(each).ids for each in asked] for player in players]

    assert ids[0] == ids[1]
    assert len(set(ids[0])) == len(asked)


def test_a_server_started_anew_repeats_no_id_of_a_history_it_goes_on_with() -> None:
    script = Script([Conversation("go", ["one"])])
    history = [
        *request("go").messages,
        {"role": "assistant", "content": "o"},
        {"role": "user", "content": "Your response above was cut off mid-stream."},
    ]
    cut = Request("POST", "/v1/messages", {"messages": history})

    assert cut.turn == 0
    assert Player(script).cue(request("go")).ids != Player(script).cue(cut).ids


def test_a_turn_that_is_none_is_refused_where_it_is_written() -> None:
    wrong: Any = [42]

    with pytest.raises(TypeError, match="not 42"):
        Conversation("go", wrong)


def test_a_turn_stops_for_its_tools_unless_it_says_otherwise() -> None:
    assert as_turn("done").reason_to_stop == "end_turn"
    assert as_turn([text("a"), tool_use("Bash")]).reason_to_stop == "tool_use"
    assert Turn([], stop_reason="refusal").reason_to_stop == "refusal"


def test_a_tool_may_have_an_argument_called_name() -> None:
    assert tool_use("Skill", name="x")["input"] == {"name": "x"}


def test_a_plan_fills_in_what_a_subtask_leaves_out() -> None:
    block = plan([{"key": "a", "description": "A", "priority": 9}])
    (subtask,) = json.loads(block["text"])["subtasks"]

    assert subtask == {
        "key": "a",
        "description": "A",
        "required_capabilities": [],
        "dependencies": [],
        "priority": 9,
        "estimated_duration": 60,
    }
