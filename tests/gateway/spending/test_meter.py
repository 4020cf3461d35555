"""What an answer used, read from its bytes however they come, and whatever they are."""

import gzip
import itertools
import json
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mas.gateway.spending import event_stream, meter
from mas.gateway.spending.meter import Meter
from mas.gateway.spending.prices import Prices
from mas.gateway.sse import encode, events
from mas.model import Usage

PRICES = Prices.load()
MODEL = "claude-sonnet-5-5"  # 2, 10, 0.1, 2.5 and 4 dollars a million
USAGE = {
    "input_tokens": 1000,
    "cache_read_input_tokens": 50_000,
    "cache_creation_input_tokens": 3000,
    "cache_creation": {
        "ephemeral_5m_input_tokens": 2000,
        "ephemeral_1h_input_tokens": 1000,
    },
    "output_tokens": 400,
}
EXACT = Usage(
    input_tokens=1000,
    output_tokens=400,
    cache_read_tokens=50_000,
    cache_write_tokens=3000,
    cost_usd=(1000 * 2 + 400 * 10 + 50_000 * 0.1 + 2000 * 2.5 + 1000 * 4) / 1e6,
)
MESSAGE = {
    "type": "message",
    "role": "assistant",
    "model": f"{MODEL}-20261001",
    "content": [
        {"type": "text", "text": "Grüße, 世界 ☃ and more of it"},
        {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}},
    ],
    "stop_reason": "tool_use",
    "usage": USAGE,
}
STREAM = b"".join(encode(event) for event in events(MESSAGE))


def sse(*datas: object, end: str = "\n") -> bytes:
    blocks = []
    for data in datas:
        words = data if isinstance(data, str) else json.dumps(data)
        blocks.append(f"event: any{end}data: {words}{end}{end}")
    return "".join(blocks).encode()


def start(usage: Any = None, model: Any = MODEL) -> dict[str, Any]:
    said = {"input_tokens": 100, "output_tokens": 3} if usage is None else usage
    return {"type": "message_start", "message": {"model": model, "usage": said}}


def delta(**fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def text(words: str) -> dict[str, Any]:
    return delta(type="text_delta", text=words)


def message_delta(**usage: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": usage,
    }


STOP = {"type": "message_stop"}


def read(
    body: bytes | Iterable[bytes],
    *,
    status: int = 200,
    kind: str = "text/event-stream; charset=utf-8",
    encoding: str = "",
    complete: bool = True,
) -> Meter:
    headers = (
        (b"content-type", kind.encode()),
        (b"content-encoding", encoding.encode()),
    )
    reader = Meter(status, headers, PRICES, "asked-model")
    for chunk in [body] if isinstance(body, bytes) else body:
        reader.feed(chunk)
    reader.end(complete)
    return reader


def seen(reader: Meter) -> tuple[Any, ...]:
    return (
        reader.usage,
        reader.model,
        reader.is_complete,
        reader.has_begun,
        reader.error,
    )


def test_a_complete_stream_is_exact() -> None:
    reader = read(STREAM)
    assert reader.usage == EXACT
    assert reader.model == f"{MODEL}-20261001"
    assert reader.is_complete
    assert reader.has_begun
    assert reader.error is None


def test_a_complete_body_is_exact() -> None:
    reader = read(json.dumps(MESSAGE).encode(), kind="application/json")
    assert seen(reader) == seen(read(STREAM))


ODDITIES = sse(
    start(model=None),
    {"type": "ping"},
    {"type": "brand_new", "message": "not an object", "usage": 7},
    '{"type": "content_block_de',
    "[DONE]",
    text("some words, 世界"),
    message_delta(output_tokens=50),
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
)


@given(
    st.sampled_from(
        [
            STREAM,
            STREAM.replace(b"\n", b"\r\n"),
            ODDITIES,
            b": a comment\n\nid: 7\nretry: 3\n\n" + STREAM[: len(STREAM) // 2],
        ]
    ),
    st.lists(st.integers(0, 10_000), max_size=40),
)
def test_any_cut_into_chunks_gives_the_same(stream: bytes, places: list[int]) -> None:
    edges = [0, *sorted(at % (len(stream) + 1) for at in places), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert seen(read(chunks)) == seen(read(stream))


@given(st.binary(max_size=300), st.sampled_from(["text/event-stream", "", "text/html"]))
def test_no_bytes_make_it_raise(body: bytes, kind: str) -> None:
    for status in (200, 500):
        reader = read(STREAM[:500] + body, kind=kind, status=status, complete=False)
        assert reader.usage.input_tokens in (0, 1000)
        assert len(reader.error or "") <= meter.MAX_ERROR_CHARACTERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["type", "message", "delta", "usage", "error", "model", *USAGE, "iterations"]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["message_start", "message_delta", "content_block_delta"]),
            st.dictionaries(FIELDS, JSON | st.dictionaries(FIELDS, JSON)),
        )
    )
)
def test_no_fields_make_it_raise(found: list[tuple[str, dict[str, Any]]]) -> None:
    reader = read(sse(*({**fields, "type": kind} for kind, fields in found), STOP))
    usage = reader.usage
    assert min(usage.input_tokens, usage.output_tokens, usage.cache_write_tokens) >= 0
    assert usage.cost_usd >= 0
    assert reader.is_complete


def test_while_it_streams_the_output_is_estimated() -> None:
    reader = read(sse(start()), complete=False)
    assert reader.has_begun
    assert reader.usage == Usage(100, 3, cost_usd=230e-6, estimated_tokens=3)
    reader.feed(sse(text("x" * 41)))
    assert (reader.usage.output_tokens, reader.usage.estimated_tokens) == (11, 11)
    reader.feed(sse(delta(type="input_json_delta", partial_json='{"a":')))
    reader.feed(sse(delta(type="thinking_delta", thinking="hm" * 10)))
    assert reader.usage == Usage(
        100, 17, cost_usd=(200 + 170) / 1e6, estimated_tokens=17
    )
    reader.feed(sse(message_delta(output_tokens=21)))
    assert reader.usage == Usage(100, 21, cost_usd=(200 + 210) / 1e6)
    assert not reader.is_complete
    reader.feed(sse(STOP))
    assert reader.is_complete


def test_a_cut_stream_keeps_its_input_and_the_estimate() -> None:
    whole = sse(start(USAGE), text("x" * 80), message_delta(output_tokens=90), STOP)
    reader = read(whole[: whole.index(b"message_delta")], complete=False)
    assert not reader.is_complete
    assert reader.usage.input_tokens == 1000
    assert reader.usage.cache_write_tokens == 3000
    assert reader.usage.output_tokens == 400  # at least what message_start said
    assert reader.usage.estimated_tokens == 400


def test_an_event_that_breaks_off_is_none() -> None:
    reader = read(sse(start(), text("x" * 400))[:-1], complete=False)
    assert reader.usage.output_tokens == 3
    reader.feed(b"\n")
    assert reader.usage.output_tokens == 100


def test_what_follows_an_exact_figure_is_estimated_again() -> None:
    reader = read(
        sse(start(), text("x" * 40), message_delta(output_tokens=30), text("x" * 40)),
        complete=False,
    )
    assert (reader.usage.output_tokens, reader.usage.estimated_tokens) == (40, 10)


def test_the_last_of_several_message_deltas_counts() -> None:
    deltas = [message_delta(output_tokens=count) for count in (10, 20, 35)]
    deltas[2]["usage"] |= {"input_tokens": 120, "cache_read_input_tokens": 7}
    reader = read(sse(start(), *deltas, STOP))
    assert reader.usage.output_tokens == 35
    assert reader.usage.input_tokens == 120
    assert reader.usage.cache_read_tokens == 7
    assert reader.usage.estimated_tokens == 0


def test_zeros_and_nulls_do_not_unsay_what_was_said() -> None:
    blank = {name: 0 for name in USAGE if name != "cache_creation"} | {
        "output_tokens": None,
        "cache_creation": None,
        "server_tool_use": None,
    }
    reader = read(sse(start(USAGE), message_delta(**blank), STOP))
    assert reader.usage.input_tokens == 1000
    assert reader.usage.cache_write_tokens == 3000
    assert reader.usage.estimated_tokens == 400  # its figure never came


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"input_tokens": None, "output_tokens": None},
        {"input_tokens": "12", "output_tokens": [], "cache_creation": 3},
        {"input_tokens": -5, "output_tokens": True, "server_tool_use": "x"},
        {"input_tokens": 10**30, "output_tokens": 1e300},
    ],
)
def test_a_usage_that_says_nothing_counts_nothing(usage: dict[str, Any]) -> None:
    assert read(sse(start(usage), STOP)).usage == Usage()


@pytest.mark.parametrize(
    ("usage", "five_minutes", "one_hour"),
    [
        ({"cache_creation_input_tokens": 9}, 9, 0),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_1h_input_tokens": 4},
            },
            5,
            4,
        ),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 6}}, 6, 0),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_1h_input_tokens": 40},
            },
            0,
            9,
        ),
    ],
)
def test_cache_writes_by_age(
    usage: dict[str, Any], five_minutes: int, one_hour: int
) -> None:
    counts = read(sse(start(usage), STOP)).counts
    assert (counts.cache_write_5m, counts.cache_write_1h) == (five_minutes, one_hour)


def test_hidden_thinking_is_estimated_by_what_the_api_says() -> None:
    thinking = delta(type="thinking_delta", thinking="", estimated_tokens=25)
    reader = read(sse(start(), thinking, thinking), complete=False)
    assert reader.usage.estimated_tokens == 50
    signature = delta(type="signature_delta", signature="s" * 240)  # 45 tokens
    reader.feed(sse(signature))
    assert reader.usage.estimated_tokens == 50
    reader.feed(sse({"type": "content_block_start", "index": 1}, signature))
    assert reader.usage.estimated_tokens == 95


def test_an_unknown_model_is_counted_and_not_priced() -> None:
    reader = read(
        sse(start(USAGE, model="glm-9"), message_delta(output_tokens=6), STOP)
    )
    assert reader.model == "glm-9"
    assert reader.usage == Usage(1000, 6, 50_000, 3000, unpriced_tokens=54_006)


def test_fast_answers_have_a_price_that_is_not_known() -> None:
    fast = message_delta(output_tokens=5, speed="fast")
    usage = read(sse(start(), fast, STOP)).usage
    assert (usage.cost_usd, usage.unpriced_tokens) == (0, 105)


def test_searches_and_the_place_of_inference_are_priced() -> None:
    ending = message_delta(
        output_tokens=1000,
        inference_geo="us",
        server_tool_use={"web_search_requests": 2},
    )
    usage = read(sse(start({"input_tokens": 0}), ending, STOP)).usage
    assert usage.cost_usd == pytest.approx(0.01 * 1.1 + 0.02)


@pytest.mark.parametrize("adds_up", [True, False])
def test_a_long_prompt_is_told_by_the_single_request(adds_up: bool) -> None:
    part = {"type": "message", "input_tokens": 60_000, "output_tokens": 100}
    whole = {"input_tokens": 120_000, "output_tokens": 200 if adds_up else 201}
    ending = message_delta(**whole, iterations=[part, part])
    stream = sse(start({}, model="claude-haiku-5-5"), ending, STOP)
    rates = (0.1, 0.5) if adds_up else (0.5, 2.5)
    assert read(stream).usage.cost_usd == pytest.approx(
        (120_000 * rates[0] + whole["output_tokens"] * rates[1]) / 1e6
    )


def test_requests_that_say_less_than_the_whole_are_not_told_apart() -> None:
    part = {"type": "message", "cache_creation_input_tokens": 60_000}
    whole = {
        "cache_creation_input_tokens": 120_000,
        "cache_creation": {"ephemeral_1h_input_tokens": 120_000},
        "output_tokens": 0,
    }
    ending = message_delta(**whole, iterations=[part, part])
    stream = sse(start({}, model="claude-haiku-5-5"), ending, STOP)
    assert read(stream).usage.cost_usd == pytest.approx(120_000 * 1.0 / 1e6)


def test_until_a_model_is_named_it_is_the_one_asked() -> None:
    assert read(sse({"type": "ping"}), complete=False).model == "asked-model"
    assert read(sse(start(model=None))).model == "asked-model"


def test_garbage_events_are_passed_over_and_noted() -> None:
    garbage = ['{"type": "content_block_de', "[" * 100_000, '{"type": 5}', "\0"]
    reader = read(sse(start(), *garbage, message_delta(output_tokens=8), STOP))
    assert reader.usage.output_tokens == 8
    assert reader.is_complete
    assert reader.error == "an event could not be read"


def test_events_of_unknown_type_are_nobodys_business() -> None:
    odd = {"type": "brand_new", "message": "words", "usage": [1], "delta": 3}
    reader = read(
        sse(start(), odd, {"no": "type"}, message_delta(output_tokens=8), STOP)
    )
    assert reader.usage.output_tokens == 8
    assert reader.error is None


def test_data_may_come_in_several_lines_and_without_the_space() -> None:
    stream = (
        sse(start()).replace(b"data: ", b"data:").replace(b', "mess', b',\ndata:"mess')
    )
    assert stream.count(b"data:") == 2
    assert read(stream).usage.input_tokens == 100


def test_an_error_event_is_told() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Full"}}
    reader = read(sse(start(), error))
    assert reader.error == "overloaded_error: Full"
    assert not reader.is_complete
    assert read(sse({"type": "error"})).error == "error: no message"


@pytest.mark.parametrize("status", [400, 401, 403, 413, 429, 500, 529])
def test_an_http_error_used_nothing(status: int) -> None:
    error = {"type": "invalid_request_error", "message": "no\n such " + "x" * 9999}
    body = json.dumps({"type": "error", "error": error, "usage": USAGE}).encode()
    for kind in ("application/json", "text/event-stream"):
        reader = Meter(status, ((b"content-type", kind.encode()),), PRICES, MODEL)
        reader.feed(body[:30])
        assert reader.error is not None
        reader.feed(body[30:])
        for _ in range(2):  # before its end, and after
            assert reader.usage == Usage()
            assert reader.error is not None
            assert reader.error.startswith("invalid_request_error: no such xxx")
            assert len(reader.error) == meter.MAX_ERROR_CHARACTERS
            reader.end(True)
        assert reader.error.startswith("invalid_request_error")


def test_an_http_error_in_another_form_is_shown_shortened() -> None:
    page = b"<html>\n<h1>502  Bad Gateway</h1>\xff" + b"y" * 5000
    reader = read(page, status=502, kind="text/html")
    assert reader.error is not None
    assert reader.error.startswith("<html> <h1>502 Bad Gateway</h1>\ufffdyyy")
    assert len(reader.error) == meter.MAX_ERROR_CHARACTERS
    assert read(b"", status=500).error is None


@pytest.mark.parametrize(
    "body", [b'{"input_tokens": 14}', b"[1, 2]", b"7", b"", b'{"usage": null}']
)
def test_a_body_without_usage_used_nothing(body: bytes) -> None:
    reader = read(body, kind="application/json")
    assert reader.usage == Usage()
    assert reader.is_complete
    assert reader.error is None


def test_a_body_that_is_no_json_used_nothing() -> None:
    reader = read([b"%PDF", b"\0" * 1000], kind="application/pdf")
    assert (reader.usage, reader.is_complete, reader.error) == (Usage(), True, None)
    assert not read(b"%PDF", kind="application/pdf", complete=False).is_complete


def test_a_cut_body_says_that_nothing_is_known() -> None:
    body = json.dumps(MESSAGE).encode()[:-5]
    reader = read(body, kind="application/json", complete=False)
    assert reader.has_begun
    assert not reader.is_complete
    assert reader.usage == Usage()
    assert reader.error == (
        "a body that is no whole JSON could not be read: what it used is not known"
    )


def test_a_stream_that_calls_itself_json_is_read_at_its_end() -> None:
    reader = read(STREAM, kind="application/json")
    assert reader.usage == EXACT
    assert reader.is_complete


def test_a_body_above_the_bound_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MAX_BODY_BYTES", 2**20)
    body = json.dumps(MESSAGE | {"more": "x" * 2**20}).encode()
    chunks = [body[at : at + 5000] for at in range(0, len(body), 5000)]
    reader = read(chunks, kind="application/json")
    assert reader.usage == Usage()
    assert reader.error == (
        "a body above 1 MiB could not be read: what it used is not known"
    )


@given(st.lists(st.integers(0, 9000), max_size=10))
def test_a_line_above_the_bound_is_skipped_alike(places: list[int]) -> None:
    bound = event_stream.MAX_EVENT_BYTES
    event_stream.MAX_EVENT_BYTES = 700
    try:
        stream = sse(
            start(),
            text("x" * 2000),
            {"type": "content_block_start", "content_block": "y" * 700},
            message_delta(output_tokens=5),
            STOP,
        ).replace(b"event: any", b": " + b"z" * 800)
        edges = [0, *sorted(at % (len(stream) + 1) for at in places), len(stream)]
        reader = read([stream[a:b] for a, b in itertools.pairwise(edges)])
    finally:
        event_stream.MAX_EVENT_BYTES = bound
    assert reader.usage.input_tokens == 100
    assert reader.usage.output_tokens == 5
    assert reader.is_complete
    assert reader.error == "an event was too long to be read"


def test_lines_without_end_take_bounded_memory() -> None:
    reader = read(sse(start()), complete=False)
    chunk = b"data: " + b"x" * 65_530
    short = b"data:x\n" * 9000
    tracemalloc.start()
    try:
        for _ in range(1000):
            reader.feed(chunk)
        for _ in range(100):
            reader.feed(short)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 3 * event_stream.MAX_EVENT_BYTES
    reader.feed(b"\n" + sse(message_delta(output_tokens=5), STOP))
    assert reader.usage.output_tokens == 5
    assert reader.error == "an event was too long to be read"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(STREAM)),
        ("deflate", zlib.compress(STREAM)),
        ("br", brotli.compress(STREAM)),
        ("zstd", zstandard.compress(STREAM)),
        ("gzip, br", brotli.compress(gzip.compress(STREAM))),
        ("identity", STREAM),
    ],
)
def test_an_encoded_answer_is_read(encoding: str, packed: bytes) -> None:
    chunks = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    assert seen(read(chunks, encoding=encoding)) == seen(read(STREAM))


def test_an_unknown_encoding_is_noted_and_counts_nothing() -> None:
    reader = read(STREAM, encoding="snappy")
    assert reader.usage == Usage()
    assert not reader.is_complete
    assert reader.error == (
        "the answer's encoding 'snappy' is not known: what it used is not counted"
    )


def test_where_the_encoding_breaks_what_was_read_stands() -> None:
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(sse(start())) + packer.flush(zlib.Z_SYNC_FLUSH)
    reader = read([begun, b"\xff" * 50, b"more"], encoding="gzip")
    assert reader.usage.input_tokens == 100
    assert reader.usage.estimated_tokens == 3
    assert not reader.is_complete
    assert (reader.error or "").startswith("the answer's encoding is broken")


def test_a_bomb_is_noted() -> None:
    bomb = zstandard.compress(bytes(64 * 2**20))
    reader = read(bomb, encoding="zstd")
    assert reader.usage == Usage()
    assert reader.error == (
        "the answer unfolds to more than 16 MiB: what it used is not known"
    )
