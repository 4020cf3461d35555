"""Replay: each request gets what was recorded at its place, in the names of now."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.cassettes.cassette import Cassette
from mas.gateway.cassettes.replay import Replay
from mas.gateway.exchange import Request
from tests.gateway.cassettes.taping import (
    JSON,
    OTHER_SESSION,
    OTHER_TASK,
    SESSION,
    STREAM,
    TASK,
    Answer,
    Block,
    Got,
    ask,
    call,
    caller,
    cut,
    failed,
    header,
    message,
    recorded,
    replayed,
    request,
    result,
    said,
    silent,
    streamed_events,
    text,
    wire,
    without_id,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
texts = st.text(max_size=80) | st.sampled_from(
    [f"see /shared/{TASK}/load/a", "{workspace}", "{=task}", f"{SESSION}", TASK]
)
blocks = st.lists(
    texts.map(text)
    | st.dictionaries(st.text(min_size=1, max_size=8), json_values | texts).map(
        lambda arguments: {
            "type": "tool_use",
            "id": "toolu_7",
            "name": "T",
            "input": arguments,
        }
    )
    | texts.map(
        lambda words: {"type": "thinking", "thinking": words, "signature": "s"}
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=80, deadline=None)
@given(blocks, st.integers(1, 500), st.booleans(), st.booleans())
async def test_what_was_recorded_is_replayed(
    content: list[Block], size: int, was_streamed: bool, is_streamed: bool
) -> None:
    data = wire(*content)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    plain = Answer(200, JSON, [json.dumps(message(*content)).encode()])
    answer = Answer(200, STREAM, pieces) if was_streamed else plain
    cassette = await recorded([answer], [request("count", stream=was_streamed)])

    (got,), replay = await replayed(cassette, [request("count", stream=is_streamed)])

    assert got.content == [without_id(block) for block in content]
    whole = message(*content)
    for key in ("role", "model", "stop_reason", "stop_sequence", "usage"):
        assert got.message[key] == whole[key]
    assert got.body.startswith(b"event: message_start" if is_streamed else b"{")
    replay.finish()
    assert replay.errors == []
    assert len(replay.warnings) == 0


async def test_names_are_those_of_the_run_that_replays() -> None:
    old, new = f"/shared/{TASK}", f"/home/x/{OTHER_TASK}"
    spill = "Full output saved to: {}\n\nPreview"
    answers = [
        said(call("Bash", "toolu_1", command=f"cd {old}/load; ls {old}/clean {old}2")),
        said(
            call("Read", "toolu_2", path="/c/s1/tool-results/b1.txt"),
            text(f"{TASK.replace('-', '')} {SESSION} f'{{workspace}}'"),
        ),
    ]

    def requests(root: str, results: str, **more: Any) -> list[Request]:
        who = caller(task=OTHER_TASK, workspace=f"{new}/load") if root == new else None
        first = f"work in {root}/load"
        long = result("toolu_1", spill.format(f"{results}/tool-results/b1.txt"))
        return [
            request(first, who=who, **more),
            request(first, [call("Bash", "toolu_1")], [long], who=who, **more),
        ]

    cassette = await recorded(answers, requests(old, "/c/s1"))
    got, replay = await replayed(
        cassette, requests(new, "/d/s2", session=OTHER_SESSION)
    )

    assert got[0].content[0]["input"] == {
        "command": f"cd {new}/load; ls {new}/clean {old}2".replace(
            f"{old}2", f"/shared/{OTHER_TASK}2"
        )
    }
    assert got[1].content[0]["input"] == {"path": "/d/s2/tool-results/b1.txt"}
    assert got[1].content[1]["text"] == (
        f"{OTHER_TASK.replace('-', '')} {OTHER_SESSION} f'{{workspace}}'"
    )
    assert (replay.errors, replay.warnings) == ([], [])


async def test_ids_are_other_ones_at_each_place_and_the_same_in_each_replay() -> None:
    answers = [said(call("Bash"), call("Bash", "toolu_2"))] * 2
    requests = [request("a"), request("b")]
    cassette = await recorded(answers, requests)

    def ids(got: list[Got]) -> list[str]:
        return [
            each
            for one in got
            for each in (one.message["id"], *(block["id"] for block in one.calls))
        ]

    first = ids((await replayed(cassette, requests))[0])

    assert len(set(first)) == 6
    assert first[0].startswith("msg_")
    assert first[1].startswith("toolu_")
    assert first == ids((await replayed(cassette, requests))[0])


async def test_the_same_run_makes_neither_errors_nor_warnings() -> None:
    def requests(at: int) -> list[Request]:
        """The same, as much as two runs are."""
        reminder = text(f"<system-reminder>\nIt is {at}.\n</system-reminder>")
        billing = text(f"x-anthropic-billing-header: cc_version=2.1.{at};")
        environment = {"role": "system", "content": f"Today's date is 2026-11-0{at}."}
        system = [billing, text("You work.") | {"cache_control": {"at": at}}]
        first = [reminder, text(f"count on 2026-11-0{at}")]
        reply = result("toolu_1", f"pid {at}, took 0.{at} s")
        more: dict[str, Any] = {"system": system, "metadata": {"user_id": str(at)}}
        first_request = request(first, **more)
        body = json.loads(first_request.body)
        body["messages"].insert(1, environment)
        return [
            Request(
                caller=first_request.caller,
                method="POST",
                target=b"/v1/messages",
                headers=first_request.headers,
                body=json.dumps(body).encode(),
            ),
            request(first, [call("Bash", "toolu_1")], [reply], **more),
        ]

    cassette = await recorded([said(call("Bash")), said(text("done"))], requests(1))
    _, replay = await replayed(cassette, requests(2))
    replay.finish()

    assert (replay.errors, replay.warnings) == ([], [])


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            {"messages": [{"role": "user", "content": "count 2 files"}]},
            "subtask load, main thread, request 1: user: "
            "recorded 'user: count 1 files', now 'user: count 2 files'",
        ),
        (
            {"model": "claude-y"},
            "subtask load, main thread, request 1: model: "
            "recorded 'claude-x', now 'claude-y'",
        ),
        (
            {"system": "You play."},
            "subtask load, main thread, request 1: system prompt: "
            "recorded 'You work.', now 'You play.'",
        ),
        (
            {"tools": [{"name": "Bash", "input_schema": {}}, {"name": "New"}]},
            "subtask load, main thread, request 1: tools: "
            "recorded 'Agent, Write', now 'New'",
        ),
    ],
)
async def test_a_difference_is_a_warning_that_shows_both_sides(
    change: dict[str, Any], warning: str
) -> None:
    cassette = await recorded([said(text("ok"))], [request("count 1 files")])
    changed = request("count 1 files")
    body = json.loads(changed.body) | change

    got, replay = await replayed(
        cassette,
        [
            Request(
                caller=changed.caller,
                method="POST",
                target=b"/v1/messages",
                headers=changed.headers,
                body=json.dumps(body).encode(),
            )
        ],
    )

    assert replay.warnings == [warning]
    assert got[0].content == [text("ok")]


async def test_a_difference_in_a_long_text_is_shown_with_what_is_around_it() -> None:
    def requests(number: int) -> list[Request]:
        words = f"{'a ' * 500}and then {number} lines\nof many {'b ' * 500}"
        return [request("go", [call("Bash", "t")], [result("t", words)])]

    cassette = await recorded([said(text("ok"))], requests(7))
    _, replay = await replayed(cassette, requests(8))

    (warning,) = replay.warnings
    assert "result of Bash" in warning
    assert "and then 7 lines of many" in warning
    assert "and then 8 lines of many" in warning
    assert len(warning) < 300


async def test_the_same_difference_is_said_once() -> None:
    answers = [said(text("ok"))] * 3
    requests = [request(each) for each in "abc"]
    cassette = await recorded(answers, requests)

    _, replay = await replayed(cassette, [request(each, model="y") for each in "abc"])

    assert len(replay.warnings) == 1


def subagents(*order: str) -> list[Request]:
    """Each asks twice; the order is by prompt, ids are random."""
    requests = []
    for prompt in dict.fromkeys(order):
        agent = f"id-of-{prompt}-{order}"
        turns: list[Any] = [prompt, [call("Bash", "t")], [result("t", prompt)]]
        requests += [request(prompt, agent=agent), request(*turns, agent=agent)]
    if order[0] == order[-1]:
        return requests
    return requests[::2] + requests[1::2]  # at the same time


async def test_subagents_that_run_in_another_order_get_their_own_answers() -> None:
    answers = [said(text(f"{at}")) for at in range(4)]
    cassette = await recorded(answers, subagents("one", "two"))

    got, replay = await replayed(cassette, subagents("two", "one"))
    replay.finish()

    assert [each.content for each in got] == [
        [text("1")],
        [text("0")],
        [text("3")],
        [text("2")],
    ]
    assert (replay.errors, replay.warnings) == ([], [])


async def test_subagents_with_the_same_prompt_go_by_their_order() -> None:
    requests = [
        request("same", agent="a"),
        request("same", agent="b"),
        request("same", [call("Bash")], [result("t", "x")], agent="a"),
    ]
    cassette = await recorded([said(text(each)) for each in "xyz"], requests)
    other = [
        request("same", agent="m"),
        request("same", [call("Bash")], [result("t", "x")], agent="m"),
        request("same", agent="n"),
    ]

    got, replay = await replayed(cassette, other)

    assert [each.content[0]["text"] for each in got] == ["x", "z", "y"]
    assert replay.errors == []


async def test_subtasks_and_the_planner_have_their_own_answers() -> None:
    people = [caller(None), caller("load"), caller("clean")]
    requests = [request("go", who=who) for who in people]
    answers = [said(text(str(who.subtask_id))) for who in people]
    cassette = await recorded(answers, requests)

    got, replay = await replayed(cassette, requests[::-1])

    assert [each.content[0]["text"] for each in got] == ["clean", "load", "None"]
    assert replay.errors == []


async def test_attempts_and_resumed_sessions_count_on() -> None:
    first = [request("count"), request("count", [call("Bash")], [result("x", "1")])]
    second = [request("count; attempt 2", who=caller(attempt=2))]
    resumed = [request("count", "a", "go on", who=caller(attempt=3), session="other")]
    requests = first + second + resumed
    cassette = await recorded([said(text(each)) for each in "abcd"], requests)

    got, replay = await replayed(cassette, requests)
    replay.finish()

    assert [each.content[0]["text"] for each in got] == ["a", "b", "c", "d"]
    assert (replay.errors, replay.warnings) == ([], [])


async def test_refusals_are_played_again_with_what_they_say_of_trying_again() -> None:
    answers = [
        failed(529),
        failed(429, (b"retry-after", b"0.1"), (b"x-should-retry", b"true")),
        Answer(502, ((b"content-type", b"text/html"),), [b"<h1>Bad</h1>"]),
        said(text("ok")),
    ]
    cassette = await recorded(answers, [request("count")] * 4)

    got, replay = await replayed(cassette, [request("count")] * 4)

    assert [each.status for each in got] == [529, 429, 502, 200]
    assert got[0].json["error"]["type"] == "overloaded_error"
    assert (b"retry-after", b"0.1") in got[1].headers
    assert (b"x-should-retry", b"true") in got[1].headers
    assert got[2].body == b"<h1>Bad</h1>"
    assert (b"content-type", b"text/html") in got[2].headers
    assert replay.errors == []


LONG = text("a longer answer that takes more than one piece, so that it is cut")
TAIL = [LONG, call("Bash", command="a command that takes more than one piece as well")]


@pytest.mark.parametrize("events", range(1, 11))
@pytest.mark.parametrize("breaks", [True, False])
async def test_an_answer_that_broke_off_breaks_off_again_at_the_same_place(
    events: int, breaks: bool
) -> None:
    answer = cut(*TAIL, events=events, error=breaks)
    cassette = await recorded([answer], [request("count")])

    (got,), replay = await replayed(cassette, [request("count")])

    def seen(pieces: Sequence[bytes]) -> list[Any]:
        """What a client has made of it: the blocks, and whether each has ended."""
        datas = [data for _, data in streamed_events(b"".join(pieces))]
        written = [
            (data["index"], key, data["delta"][key])
            for data in datas
            if data["type"] == "content_block_delta"
            for key in ("text", "partial_json")
            if key in data["delta"]
        ]
        ended = [data for data in datas if data["type"] == "content_block_stop"]
        return [written, ended]

    assert seen(got.pieces) == seen(answer.pieces)
    assert (got.cut is not None) is breaks
    assert replay.errors == []


async def test_an_event_that_is_an_error_is_played_again() -> None:
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
    data = f"event: error\ndata: {json.dumps(failure)}\n\n".encode()
    answer = Answer(200, STREAM, [*cut(LONG, events=4).pieces, data])
    cassette = await recorded([answer] * 2, [request("count")] * 2)

    streamed, whole = (
        await replayed(cassette, [request("a"), request("a", stream=False)])
    )[0]

    assert list(streamed_events(streamed.body))[-1] == ("error", failure)
    assert (whole.status, whole.json) == (529, failure)


async def test_garbage_is_played_again() -> None:
    answer = Answer(200, STREAM, [*cut(LONG, events=4).pieces, b"data: {\n\n"])
    cassette = await recorded([answer], [request("count")])

    (got,), _ = await replayed(cassette, [request("count")])

    last = got.body.decode().rstrip("\n").split("data: ")[-1]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(last)


async def test_what_nobody_heard_is_not_waited_for() -> None:
    answers: list[Answer | Exception]
    answers = [said(text("a")), silent(), said(text("b"))]
    cassette = await recorded(answers, [request("1"), request("2"), request("2")])

    got, replay = await replayed(cassette, [request("1"), request("2")])
    replay.finish()

    assert [each.content for each in got] == [[text("a")], [text("b")]]
    assert (replay.errors, replay.warnings) == ([], [])


CALLED = [text("I look."), call("Bash", "toolu_1", command="ls"), LONG]


@pytest.mark.parametrize(
    ("events", "results", "is_played"),
    [
        (0, ["x"], False),  # not even its beginning was heard
        (7, ["x"], False),  # its call had not ended
        (8, ["x"], True),
        (11, ["x"], True),
        (8, [], False),  # the call was not made
        (8, ["[Tool call interrupted: …]"], False),
    ],
)
async def test_an_answer_that_was_left_counts_where_its_calls_were_made(
    events: int, results: list[str], is_played: bool
) -> None:
    after = [result("toolu_1", each) for each in results]
    history = ["look", CALLED[:2], [*after, text("go on")]] if results else ["look"]
    pieces = cut(*CALLED, events=20).pieces
    requests = [request("look"), request(*history)]
    cassette = await recorded(
        [Answer(200, STREAM, pieces), said(text("done"))], requests, left={0: events}
    )

    got, replay = await replayed(cassette, requests if is_played else requests[1:])
    replay.finish()

    assert got[-1].content == [text("done")]
    if is_played:
        assert got[0].content == [without_id(block) for block in CALLED[:2]]
        assert got[0].message["stop_reason"] == "tool_use"
    assert replay.errors == []


async def test_a_refusal_that_nobody_read_is_not_played() -> None:
    answers = [failed(429, (b"retry-after", b"60")), said(text("ok"))]
    cassette = await recorded(answers, [request("count")] * 2, left={0: 0})

    (got,), replay = await replayed(cassette, [request("count")])
    replay.finish()

    assert got.content == [text("ok")]
    assert replay.errors == []


async def test_a_missing_turn_is_an_error_that_says_where() -> None:
    history = [request("count"), request("count", [call("Bash")], [result("t", "7")])]
    cassette = await recorded([said(text("a"))], history[:1])
    replay = Replay(cassette)

    await ask(replay, history[0])
    for _ in range(3):  # the CLI asks more than once
        got = await ask(replay, history[1])

    assert got.status == 400
    assert (b"x-should-retry", b"false") in got.headers
    assert got.json["type"] == "error"
    assert got.json["error"]["type"] == "invalid_request_error"
    (error,) = replay.errors
    assert error == (
        "no answer was recorded after the 1st recorded answer of subtask load, "
        "main thread; asked was: 'result of a tool: 7'"
    )
    assert error in got.json["error"]["message"]


async def test_a_thread_that_was_not_recorded_is_told_from_those_that_were() -> None:
    requests = [request("go"), request("half one", agent="a")]
    cassette = await recorded([said(text("a"))] * 2, requests)
    replay = Replay(cassette)

    await ask(replay, request("half two", agent="b"))
    await ask(replay, request("go", who=caller("clean")))

    subagent, subtask = replay.errors
    assert "for subtask load, subagent" in subagent
    assert "'half one'" in subagent
    assert "it has these subtasks: load" in subtask


async def test_what_was_never_asked_for_is_an_error_at_the_end() -> None:
    count = request("go", path="/v1/messages/count_tokens")
    requests = [request("a"), request("b"), request("c"), count]
    cassette = await recorded([said(text("x"))] * 4, requests)

    _, replay = await replayed(cassette, requests[:1])
    assert replay.errors == []
    replay.finish()

    assert replay.errors == [
        "subtask load, main thread: the recorded answers 2 to 3 were never asked for; "
        "recorded there was: 'user: b'"
    ]


async def test_an_answer_that_could_not_be_recorded_is_an_error() -> None:
    headers = (*STREAM, (b"content-encoding", b"snappy"))
    cassette = await recorded([Answer(200, headers, [b"x"])], [request("a")])

    (got,), replay = await replayed(cassette, [request("a")])

    assert got.status == 400
    (error,) = replay.errors
    assert "subtask load, main thread, request 1 is not in the recording" in error
    assert "snappy" in error


async def test_other_calls_are_answered_from_the_recording_or_estimated() -> None:
    count = request("go", path="/v1/messages/count_tokens")
    counted = Answer(200, JSON, [b'{"input_tokens": 4711}'])
    cassette = await recorded([counted], [count])

    got, replay = await replayed(
        cassette,
        [
            count,
            count,
            request(path="/", method="HEAD"),
            request(path="/v1/models", method="GET"),
        ],
    )

    assert got[0].json == {"input_tokens": 4711}
    assert 1 < got[1].json["input_tokens"] < 1_000
    assert [each.status for each in got] == [200, 200, 200, 404]
    assert replay.errors == []
    assert replay.warnings == [
        "subtask load, main thread, GET /v1/models: it was not asked in the recording"
    ]


async def test_the_task_is_checked_before_anything_runs() -> None:
    cassette = Cassette(header=header("count it"), exchanges=(), status="completed")

    cassette.check_task("count it")
    with pytest.raises(Exception, match="another task"):
        cassette.check_task("count them")
