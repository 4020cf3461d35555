"""A turn on the wire: the stream carries exactly the message."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.cassettes.assembly import Assembly, with_ids, without_ids
from mas.gateway.sse import Reader, beginning, encode, error, events
from mas.testing import Turn, text, tool_use
from mas.testing.message import message
from tests.gateway.cassettes.taping import assembled

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
    | st.text(max_size=60).map(
        lambda words: {"type": "thinking", "thinking": words, "signature": "s"}
    )
    | st.just({"type": "redacted_thinking", "data": "x"}),
    max_size=4,
)


def built(*content: dict[str, Any], **options: Any) -> dict[str, Any]:
    turn = Turn(content, **options)
    return message(turn, model="claude-x", ids=IDS, request_size=400)


@settings(max_examples=60, deadline=None)
@given(blocks)
def test_a_stream_carries_the_message(content: list[dict[str, Any]]) -> None:
    whole = built(*content)

    assert assembled(event.data for event in events(whole)) == whole


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


def cut_up(data: bytes, places: list[int]) -> list[bytes]:
    """The data in chunks, cut at these places."""
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@settings(max_examples=100, deadline=None)
@given(blocks, st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_a_stream_is_put_together_however_it_is_cut(
    content: list[dict[str, Any]], places: list[int], has_returns: bool
) -> None:
    whole = built(*content)
    data = b"".join(map(encode, events(whole)))
    if has_returns:
        data = data.replace(b"\n", b"\r\n")
    assembly = Assembly()

    for chunk in cut_up(data, places):
        assert not assembly.is_complete
        assembly.feed(chunk)

    assert assembly.is_complete
    assert not assembly.has_open_block
    assert assembly.message == whole


@settings(max_examples=60, deadline=None)
@given(blocks.filter(bool), st.integers(0, 10_000))
def test_what_was_cut_off_is_played_as_far_as_it_came(
    content: list[dict[str, Any]], place: int
) -> None:
    stream = list(events(built(*content)))[:-2]
    stream = stream[: 1 + place % len(stream)]
    first = fed(*map(encode, stream))
    assert first.message is not None

    again = beginning(first.message, open_block=first.has_open_block)
    second = fed(*map(encode, again))

    assert second.message == first.message
    assert second.has_open_block == first.has_open_block
    assert not second.is_complete


def fed(*chunks: bytes) -> Assembly:
    assembly = Assembly()
    for chunk in chunks:
        assembly.feed(chunk)
    return assembly


def raw(*datas: dict[str, Any] | str) -> bytes:
    written = (each if isinstance(each, str) else json.dumps(each) for each in datas)
    return b"".join(f"data: {data}\n\n".encode() for data in written)


HEAD = {"id": "msg_1", "stop_reason": None, "usage": {"a": 1, "output_tokens": 1}}
START = {"type": "message_start", "message": HEAD}


def deltas(start: dict[str, Any], *each: dict[str, Any]) -> bytes:
    return raw(
        START,
        {"type": "content_block_start", "index": 0, "content_block": start},
        *({"type": "content_block_delta", "index": 0, "delta": d} for d in each),
    )


def test_comments_other_fields_and_data_of_many_lines_are_read() -> None:
    reader = Reader()
    data = b': hello\nid: 7\nretry: 3\nevent: x\ndata:{"a":\ndata: 1}\n\n\n\n'

    assert list(reader.feed(data)) == [{"a": 1}]


@pytest.mark.parametrize("data", ["{", "[]", "7", "\xff", "[" * 100_000])
def test_what_is_no_event_is_told_from_one(data: str) -> None:
    assert list(Reader().feed(f"data: {data}\n\n".encode())) == [None]

    assembly = fed(raw(START, data, {"type": "message_stop"}))
    assert assembly.has_garbage
    assert not assembly.is_complete


def test_an_event_that_ends_the_stream_is_kept() -> None:
    failure = error(529)
    assembly = fed(raw(START, failure))

    assert assembly.error == failure
    assert assembly.message == {**HEAD, "content": []}


@pytest.mark.parametrize(
    "written",
    ['{"a": ', "[]", '{"a": NaN}', '{"a": 1e999}', '{"a":' * 50_000, "x"],
)
def test_an_input_that_is_no_object_is_kept_as_it_was_written(written: str) -> None:
    start = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}
    first = fed(deltas(start, {"type": "input_json_delta", "partial_json": written}))
    assert first.message is not None

    second = fed(*map(encode, beginning(first.message, open_block=True)))

    (block,) = first.message["content"]
    assert block == {**start, "partial_json": written}
    assert second.message == first.message


def test_deltas_of_other_kinds_are_not_lost() -> None:
    start = {"type": "text", "text": "So ", "citations": None}
    new = {"type": "novelty_delta", "novelty": 1}
    first = fed(
        deltas(
            start,
            {"type": "text_delta", "text": "it "},
            {"type": "citations_delta", "citation": {"url": "u"}},
            new,
            {"type": "text_delta", "text": "is"},
        )
    )
    assert first.message is not None

    (block,) = first.message["content"]
    assert block == {
        "type": "text",
        "text": "So it is",
        "citations": [{"url": "u"}],
        "deltas": [new],
    }
    second = fed(*map(encode, beginning(first.message, open_block=True)))
    assert second.message == first.message


def test_the_end_of_a_message_is_part_of_it() -> None:
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "container": {"id": "c"}},
        "usage": {"output_tokens": 3},
        "context_management": {"applied_edits": []},
    }

    assert fed(raw(START, end)).message == {
        "id": "msg_1",
        "content": [],
        "stop_reason": "end_turn",
        "container": {"id": "c"},
        "usage": {"a": 1, "output_tokens": 3},
        "context_management": {"applied_edits": []},
    }


def test_what_refers_to_another_block_still_does_with_other_ids() -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_9", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_9"}
    whole = built(search, found, tool_use("Bash") | {"id": "odd"})

    kept = without_ids(whole)
    again = with_ids(kept, "5eed")

    assert "id" not in kept
    assert [block.get("id") for block in kept["content"]] == [
        "srvtoolu_0",
        None,
        "toolu_1",
    ]
    assert again["id"] == "msg_5eed"
    assert again["content"][0]["id"] == again["content"][1]["tool_use_id"]
    assert again["content"][2]["id"] == "toolu_5eed01"
    assert without_ids(again) == kept
