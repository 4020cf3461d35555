"""A turn on the wire: the stream carries exactly the message."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.sse import Event, encode, error, events
from mas.testing import Turn, text, tool_use
from mas.testing.message import message

IDS = "0123456789abcdef01230001"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
blocks = st.lists(
    st.text(max_size=200).map(text)
    | st.dictionaries(st.text(min_size=1, max_size=8), json_values, max_size=3).map(
        lambda arguments: {"type": "tool_use", "name": "T", "input": arguments}
    )
    | st.just({"type": "thinking", "thinking": "hm", "signature": "s"}),
    max_size=4,
)


def built(*content: dict[str, Any], **options: Any) -> dict[str, Any]:
    turn = Turn(content, **options)
    return message(turn, model="claude-x", ids=IDS, request_size=400)


def assembled(stream: list[Event]) -> dict[str, Any]:
    """Put the message together again, as a client does."""
    whole: dict[str, Any] = {}
    parts: dict[int, str] = {}
    for _, data, _ in stream:
        match data["type"]:
            case "message_start":
                whole = {**data["message"], "content": []}
            case "content_block_start":
                whole["content"].append(dict(data["content_block"]))
                parts[data["index"]] = ""
            case "content_block_delta":
                delta = data["delta"]
                parts[data["index"]] += delta.get("text", delta.get("partial_json"))
            case "message_delta":
                whole |= data["delta"]
                whole["usage"] = data["usage"]
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            block["text"] = parts[index]
        elif block["type"] == "tool_use":
            block["input"] = json.loads(parts[index])
    return whole


@settings(max_examples=60, deadline=None)
@given(blocks)
def test_a_stream_carries_the_message(content: list[dict[str, Any]]) -> None:
    whole = built(*content)

    assert assembled(list(events(whole))) == whole


@settings(max_examples=40, deadline=None)
@given(blocks)
def test_every_event_is_one_event_on_the_wire(content: list[dict[str, Any]]) -> None:
    for event in events(built(*content)):
        name, data, *rest = encode(event).decode().split("\n")

        assert name == f"event: {event.name}"
        assert json.loads(data.removeprefix("data: ")) == event.data
        assert rest == ["", ""]


def test_the_order_of_events_is_the_one_that_faults_count_by() -> None:
    names = [event.name for event in events(built(text("short"), tool_use("Bash")))]

    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_text_comes_in_pieces_and_a_huge_one_in_not_too_many() -> None:
    assert len(list(events(built(text("x" * 240))))) == 10 + 6
    assert len(list(events(built(text("x" * 2_000_000))))) < 500


def test_tools_get_ids_of_their_own_unless_they_have_one() -> None:
    own = tool_use("Bash") | {"id": "toolu_mine"}
    content = built(tool_use("Bash"), tool_use("Bash"), own)["content"]

    assert len({block["id"] for block in content}) == 3
    assert content[0]["id"].startswith("toolu_")
    assert content[2]["id"] == "toolu_mine"


def test_tokens_follow_from_lengths_and_can_be_set() -> None:
    usage = built(text("x" * 4000))["usage"]

    assert usage["input_tokens"] == 100
    assert 1000 <= usage["output_tokens"] <= 1020
    assert built(text("x"), usage={"output_tokens": 7})["usage"]["output_tokens"] == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (429, "rate_limit_error"),
        (529, "overloaded_error"),
        (418, "invalid_request_error"),
        (503, "api_error"),
    ],
)
def test_an_error_has_the_form_and_the_word_of_the_api(status: int, kind: str) -> None:
    body = error(status, "no")

    assert body == {"type": "error", "error": {"type": kind, "message": "no"}}
