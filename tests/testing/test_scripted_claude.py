"""The server, asked by the anthropic client and by plain HTTP."""

import doctest
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageParam

import mas.testing
from mas.testing import (
    Conversation,
    Fault,
    Request,
    ScriptedClaude,
    Turn,
    TurnLike,
    plan,
    planner,
    text,
    tool_use,
)

LONG = "a longer answer that takes more than one piece, so that it can be cut"
SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}


class Asker:
    """The anthropic client and a server that plays ``turns`` when it says "go"."""

    def __init__(self, claude: ScriptedClaude, client: anthropic.Anthropic) -> None:
        self.claude = claude
        self.client = client

    def create(self, prompt: str = "go", **options: Any) -> Message:
        answer = self.client.messages.create(
            model="claude-x", max_tokens=9, messages=said(prompt), **options
        )
        assert isinstance(answer, Message)
        return answer

    def stream(self, prompt: str = "go") -> Message:
        with self.client.messages.stream(
            model="claude-x", max_tokens=9, messages=said(prompt)
        ) as stream:
            return stream.get_final_message()


def said(prompt: str) -> list[MessageParam]:
    return [{"role": "user", "content": prompt}]


def answered(words: str) -> list[MessageParam]:
    return [{"role": "assistant", "content": words}]


def words(answer: Message) -> str:
    """What the answer's first block says."""
    block = answer.content[0]
    assert block.type == "text"
    return block.text


@contextmanager
def asking(
    *turns: TurnLike | Fault, key: str = "k-1", retries: int = 0, **options: Any
) -> Iterator[Asker]:
    with (
        ScriptedClaude([Conversation("go", turns)], **options) as claude,
        anthropic.Anthropic(
            base_url=claude.url, api_key=key, max_retries=retries, timeout=10
        ) as client,
    ):
        yield Asker(claude, client)


def test_the_tutorial_is_true() -> None:
    outcome = doctest.testmod(mas.testing)

    assert outcome.attempted > 5
    assert outcome.failed == 0


@pytest.mark.parametrize("how", ["create", "stream"])
def test_a_turn_arrives_whole_streamed_or_not(how: str) -> None:
    with asking([text(LONG), tool_use("Bash", command="ls")]) as asker:
        answer: Message = getattr(asker, how)()

    assert words(answer) == LONG
    call = answer.content[1]
    assert call.type == "tool_use" and call.input == {"command": "ls"}
    assert (answer.model, answer.stop_reason) == ("claude-x", "tool_use")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > len(LONG) / 4


def test_a_reply_says_how_it_stopped_and_what_it_took() -> None:
    turn = Turn([text("I")], stop_reason="max_tokens", usage={"input_tokens": 7})
    with asking(turn) as asker:
        answer = asker.stream()

    assert (answer.stop_reason, answer.usage.input_tokens) == ("max_tokens", 7)


def test_the_planner_gets_its_plan_and_nobody_else_does() -> None:
    subtasks = [{"key": "a", "description": "go"}]
    script = [Conversation(planner, [[plan(subtasks)]]), Conversation("go", ["hello"])]
    with (
        ScriptedClaude(script) as claude,
        anthropic.Anthropic(base_url=claude.url, api_key="k") as client,
    ):
        asker = Asker(claude, client)
        planned = asker.create(output_config={"format": SCHEMA})
        greeted = asker.create()

    assert [each["key"] for each in json.loads(words(planned))["subtasks"]] == ["a"]
    assert words(greeted) == "hello"


def test_requests_are_kept_in_order_with_what_they_were_answered() -> None:
    with asking(Fault.status(529), "one") as asker:
        with pytest.raises(anthropic.APIStatusError):
            asker.create()
        asker.stream()
        asker.client.messages.count_tokens(model="claude-x", messages=said("go"))
        first, second, third = asker.claude.requests

    assert (first.status, second.status, third.status) == (529, 200, 200)
    assert (first.stream, second.stream) == (False, True)
    assert third.path == "/v1/messages/count_tokens"
    assert first.at < second.at < third.at
    assert second.key == "k-1"


@pytest.mark.parametrize("how", ["create", "stream"])
def test_a_function_sees_the_request_and_makes_the_turn(how: str) -> None:
    with asking(lambda request: [text(f"{request.prompt}, {request.model}")]) as asker:
        answer: Message = getattr(asker, how)()

    assert words(answer) == "go, claude-x"


def test_a_function_that_fails_is_a_500_at_once_and_is_recorded() -> None:
    with asking(lambda request: request.tool_results[3], retries=2) as asker:
        with pytest.raises(anthropic.InternalServerError, match="IndexError"):
            asker.create()
        assert len(asker.claude.requests) == 1
        with pytest.raises(anthropic.InternalServerError, match="IndexError"):
            asker.create()

        (error,) = asker.claude.errors
    assert "IndexError" in error and "'go'" in error


def test_a_turn_that_is_no_json_is_a_500_and_the_server_lives_on() -> None:
    with asking([tool_use("Bash", command=object())]) as asker:
        with pytest.raises(anthropic.InternalServerError, match="not JSON"):
            asker.stream()
        with pytest.raises(anthropic.BadRequestError, match="no conversation"):
            asker.stream("something else")


def test_it_can_be_entered_again() -> None:
    claude = ScriptedClaude([Conversation("go", ["one"])])
    for count in (1, 2):
        with claude:
            _, ended_well = read_stream(claude)
        assert ended_well
        assert len(claude.requests) == count


def test_a_request_beyond_the_script_is_a_400_and_is_recorded() -> None:
    with asking("one") as asker:
        with pytest.raises(anthropic.BadRequestError, match="no conversation"):
            asker.create("something else")
        with pytest.raises(anthropic.BadRequestError, match="turn 2 was asked for"):
            asker.client.messages.create(
                model="claude-x",
                max_tokens=9,
                messages=[*said("go"), *answered("one"), *said("more")],
            )
        errors = asker.claude.errors

    assert len(errors) == 2
    assert "something else" in errors[0]
    assert "more" in errors[1]


def test_another_key_is_refused_as_the_api_refuses_it() -> None:
    with asking("one", key="k-2", require_key="k-1") as asker:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            asker.create()
        assert asker.claude.environment["ANTHROPIC_API_KEY"] == "k-1"

    assert caught.value.body == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "invalid x-api-key"},
    }


def test_the_right_key_may_come_as_a_bearer_token() -> None:
    with ScriptedClaude([Conversation("go", ["one"])], require_key="k-1") as claude:
        answer = httpx2.post(
            f"{claude.url}/v1/messages",
            json={"messages": said("go"), "model": "m"},
            headers={"authorization": "Bearer k-1"},
        )

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.status(529), anthropic.OverloadedError),
        (Fault.status(500), anthropic.InternalServerError),
        (Fault.status(429), anthropic.RateLimitError),
        (Fault.status(403), anthropic.PermissionDeniedError),
        (Fault.status(400), anthropic.BadRequestError),
    ],
)
def test_an_http_error_is_the_client_s_own_error(
    fault: Fault, error: type[anthropic.APIStatusError]
) -> None:
    with asking(fault, "one") as asker:
        with pytest.raises(error):
            asker.stream()
        assert asker.stream().stop_reason == "end_turn"
        assert asker.claude.errors == []


def test_an_http_error_carries_the_headers_and_the_body_it_was_given() -> None:
    faults = (
        Fault.status(429, retry_after_s=1.5, headers={"X-Where": "here"}),
        Fault.status(502, body="<h1>Bad Gateway</h1>"),
        Fault.status(418, body={"a": 1}),
    )
    with ScriptedClaude([Conversation("go", faults)]) as claude:
        answers = [
            httpx2.post(f"{claude.url}/v1/messages", json={"messages": said("go")})
            for _ in faults
        ]

    limited, gateway, teapot = answers
    assert limited.headers["retry-after"] == "1.5"
    assert limited.headers["x-where"] == "here"
    assert limited.json()["error"]["type"] == "rate_limit_error"
    assert gateway.headers["content-type"].startswith("text/html")
    assert gateway.text == "<h1>Bad Gateway</h1>"
    assert teapot.json() == {"a": 1}


@pytest.mark.parametrize("after_events", [0, 1, 5, 99])
def test_a_cut_stream_ends_after_so_many_events(
    after_events: int, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedClaude(
        [Conversation("go", [Fault.cut(after_events=after_events), LONG])]
    ) as claude:
        got, ended_well = read_stream(claude)

        assert not ended_well
        assert got.count("event: ") == min(after_events, 9)
        got, ended_well = read_stream(claude)
        assert ended_well
        assert got.count("event: ") == 9
    assert not caplog.records


def test_an_early_end_is_well_formed_and_lacks_the_rest() -> None:
    with ScriptedClaude(
        [Conversation("go", [Fault.early_end(after_events=4), LONG])]
    ) as claude:
        got, ended_well = read_stream(claude)

    assert ended_well
    assert got.count("event: ") == 4


def read_stream(claude: ScriptedClaude) -> tuple[str, bool]:
    """What arrives of a stream, and whether it ends as HTTP says it must."""
    got = ""
    body = {"messages": said("go"), "stream": True}
    try:
        with httpx2.stream("POST", f"{claude.url}/v1/messages", json=body) as answer:
            for piece in answer.iter_text():
                got += piece
    except httpx2.RemoteProtocolError:
        return got, False
    return got, True


def test_without_a_stream_a_cut_comes_in_the_middle_of_the_body() -> None:
    with asking(Fault.cut(), LONG) as asker:
        with pytest.raises(anthropic.APIConnectionError):
            asker.create()
        assert asker.create().stop_reason == "end_turn"


@pytest.mark.parametrize("how", ["create", "stream"])
def test_garbage_is_not_json(how: str) -> None:
    with asking(Fault.garbage(), LONG) as asker:
        with pytest.raises(ValueError, match=r"."):
            getattr(asker, how)()
        assert getattr(asker, how)().stop_reason == "end_turn"


def test_a_stream_may_end_with_an_error_event() -> None:
    with asking(Fault.stream_error(529, after_events=4), LONG) as asker:
        with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
            asker.stream()
        assert asker.claude.requests[0].status == 200


@pytest.mark.parametrize("after_events", [None, 0, 4])
def test_a_hang_lasts_until_the_client_leaves(after_events: int | None) -> None:
    with asking(Fault.hang(after_events=after_events), LONG) as asker:
        hasty = Asker(asker.claude, asker.client.with_options(timeout=0.3))
        with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
            hasty.stream()
        asker.claude.wait_until(lambda: not asker.claude.requests[0].is_open)
        assert asker.stream().stop_reason == "end_turn"


def test_a_hang_ends_with_the_server() -> None:
    with ThreadPoolExecutor() as pool:
        with asking(Fault.hang(after_events=4), LONG) as asker:
            pending = pool.submit(read_stream, asker.claude)
            asker.claude.wait_until(lambda: asker.claude.requests)
            assert [each.is_open for each in asker.claude.requests] == [True]
            leaving = time.monotonic()
        assert time.monotonic() - leaving < 2
        assert [each.is_open for each in asker.claude.requests] == [False]
        _, ended_well = pending.result(timeout=5)

    assert not ended_well
    assert not [each for each in threading.enumerate() if "scripted" in each.name]


def test_a_delay_comes_before_the_headers_and_a_pace_between_the_events() -> None:
    with asking(Turn([text(LONG)], delay_s=0.2, tokens_per_second=100)) as asker:
        begun = time.monotonic()
        asker.stream()
        took_s = time.monotonic() - begun

    # 68 characters are 17 tokens: 0.17 s.
    assert 0.37 <= took_s < 2


def test_the_server_paces_turns_that_say_nothing_else() -> None:
    took_s = []
    second = Turn([text("two")], delay_s=0.0)
    with asking("one", second, latency_s=0.5) as asker:
        for history in (said("go"), [*said("go"), *answered("one"), *said("on")]):
            begun = time.monotonic()
            asker.client.messages.create(model="m", max_tokens=9, messages=history)
            took_s.append(time.monotonic() - begun)

    assert took_s[0] >= 0.5 > took_s[1]


def test_a_slow_fault_plays_its_turn_late() -> None:
    with asking(Fault.slow(before_s=0.1, between_s=0.02), LONG) as asker:
        begun = time.monotonic()
        answer = asker.stream()

    assert time.monotonic() - begun >= 0.1 + 9 * 0.02
    assert answer.stop_reason == "end_turn"


def test_five_clients_are_answered_at_once() -> None:
    everyone_here = threading.Barrier(5)

    def together(request: Request) -> str:
        everyone_here.wait(timeout=5)
        return LONG

    with asking(together) as asker, ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: asker.stream(), range(5)))
        assert asker.claude.errors == []

    assert len({answer.id for answer in answers}) == 5


def test_a_function_that_still_waits_does_not_hold_up_the_end() -> None:
    goes_on = threading.Event()

    def waits(request: Request) -> str:
        goes_on.wait(timeout=20)
        return "late"

    with ThreadPoolExecutor() as pool:
        try:
            with asking(waits) as asker:
                pending = pool.submit(asker.create)
                asker.claude.wait_until(lambda: asker.claude.requests)
                leaving = time.monotonic()
            took_s = time.monotonic() - leaving
        finally:
            goes_on.set()
        with pytest.raises(anthropic.APIError):
            pending.result(timeout=5)

    assert took_s < 2


def test_waiting_for_what_does_not_come_says_what_came() -> None:
    with asking("one") as asker:
        asker.create()
        with pytest.raises(TimeoutError, match="turn 0 of 'go': 200"):
            asker.claude.wait_until(lambda: False, timeout_s=0.01)


def test_what_is_no_message_request_is_answered_in_the_api_s_form() -> None:
    with ScriptedClaude([]) as claude:
        assert httpx2.head(claude.url).status_code == 200
        assert httpx2.get(claude.url).status_code == 200
        missing = httpx2.get(f"{claude.url}/v1/files")
        broken = httpx2.post(f"{claude.url}/v1/messages", content=b"{no")
        listed = httpx2.post(f"{claude.url}/v1/messages", json=[1])

    assert missing.json()["error"]["type"] == "not_found_error"
    assert "not JSON" in broken.json()["error"]["message"]
    assert "must be an object" in listed.json()["error"]["message"]


def test_an_ended_server_refuses_connections() -> None:
    with ScriptedClaude([]) as claude:
        url = claude.url

    assert claude.url == ""
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)


def test_a_server_that_cannot_start_says_so() -> None:
    with ScriptedClaude([]) as claude:
        port = int(claude.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), ScriptedClaude([], port=port):
            pass
