"""The first wave: one goes ahead and fills the cache, the others follow."""

import json
from typing import Any

import anyio
import pytest

from mas.gateway.exchange import Caller, Request
from mas.gateway.pacing.wave import FirstWave, prefix_key

TOOLS = [{"name": "Bash", "description": "x" * 4096}]


def body(**parts: Any) -> bytes:
    whole = {"model": "claude-x", "system": "Be kind.", "tools": TOOLS, "messages": []}
    return json.dumps({**whole, **parts}).encode()


def request(
    content: bytes, *, method: str = "POST", target: bytes = b"/v1/messages?beta=true"
) -> Request:
    caller = Caller(task_id="t", agent_id="agent_1")
    return Request(
        caller=caller, method=method, target=target, headers=(), body=content
    )


def cli_system(version: str, words: str = "You are an agent.") -> list[dict[str, str]]:
    billing = f"x-anthropic-billing-header: cc_version={version};"
    return [{"type": "text", "text": billing}, {"type": "text", "text": words}]


def test_messages_do_not_matter_and_the_prefix_does() -> None:
    key = prefix_key(body())
    assert key is not None
    assert key == prefix_key(body(messages=[{"role": "user", "content": "hi"}]))
    others = [body(model="claude-y"), body(system="Be terse."), body(tools=TOOLS * 2)]
    assert len({key, *map(prefix_key, others)}) == 4


def test_what_the_cli_says_of_a_conversation_does_not_matter() -> None:
    key = prefix_key(body(system=cli_system("2.1.332.5c7")))
    assert key is not None
    assert key == prefix_key(body(system=cli_system("2.1.332.fff")))
    assert key != prefix_key(body(system=cli_system("2.1.332.5c7", "Be terse.")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{" * 5000,
        b'["' + b"x" * 5000 + b'"]',
        b"\xff" * 5000,
        body(model=3),
        body(tools=[], messages=["x" * 5000]),
        json.dumps({"messages": ["x" * 5000], "tools": TOOLS}).encode(),
        body(system=[3, "x-anthropic-billing-header: cc"]),
        body(system=[{"text": None}, {"text": "x-anthropic-billing-header: cc"}]),
    ],
)
def test_what_is_too_small_or_no_message_has_no_key(content: bytes) -> None:
    assert prefix_key(content) is None


def test_a_body_that_claude_would_not_take_is_not_read() -> None:
    assert prefix_key(body(messages=["x" * 32 * 2**20])) is None


class Crowd:
    """Requests that pass one after the other, as the wave lets them."""

    def __init__(self, wait_s: float) -> None:
        self.wave = FirstWave(wait_s)
        self.passed: list[str] = []

    async def follow(self, name: str, content: bytes | None = None) -> None:
        async with self.wave.place(request(content or body())) as place:
            self.passed.append(name)
            place.began()


async def test_the_others_wait_for_the_beginning_of_the_first_answer() -> None:
    crowd = Crowd(wait_s=60)
    async with (
        anyio.create_task_group() as tasks,
        crowd.wave.place(request(body())) as first,
    ):
        tasks.start_soon(crowd.follow, "second")
        tasks.start_soon(crowd.follow, "third")
        await anyio.wait_all_tasks_blocked()
        assert crowd.passed == []
        first.began()
        await anyio.wait_all_tasks_blocked()
        assert crowd.passed == ["second", "third"]
        tasks.start_soon(crowd.follow, "late")
        await anyio.wait_all_tasks_blocked()
        assert crowd.passed == ["second", "third", "late"]


async def test_another_prefix_does_not_wait() -> None:
    crowd = Crowd(wait_s=60)
    async with crowd.wave.place(request(body())):
        await crowd.follow("other", body(system="Be terse."))
        await crowd.follow("small", b"{}")
    assert crowd.passed == ["other", "small"]


async def test_a_first_request_that_fails_holds_nobody_up() -> None:
    crowd = Crowd(wait_s=60)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(RuntimeError, match="no answer"):
            async with crowd.wave.place(request(body())):
                tasks.start_soon(crowd.follow, "second")
                await anyio.wait_all_tasks_blocked()
                raise RuntimeError("no answer")
    assert crowd.passed == ["second"]


async def test_after_the_time_that_is_allowed_all_pass() -> None:
    crowd = Crowd(wait_s=0.02)
    async with crowd.wave.place(request(body())):
        with anyio.fail_after(5):
            await crowd.follow("second")
            await crowd.follow("third")
    assert crowd.passed == ["second", "third"]


async def test_who_is_cancelled_meanwhile_opens_nothing() -> None:
    crowd = Crowd(wait_s=60)
    async with (
        anyio.create_task_group() as tasks,
        crowd.wave.place(request(body())),
    ):
        with anyio.move_on_after(0.01) as scope:
            await crowd.follow("gone")
        assert scope.cancelled_caught
        tasks.start_soon(crowd.follow, "second")
        await anyio.wait_all_tasks_blocked()
        assert crowd.passed == []
    assert crowd.passed == ["second"]


@pytest.mark.parametrize(
    ("wait_s", "asked"),
    [
        (0, request(body())),
        (60, request(body(), method="GET")),
        (60, request(body(), target=b"/v1/messages/count_tokens")),
    ],
)
async def test_nobody_waits_where_there_is_no_wave(
    wait_s: float, asked: Request
) -> None:
    wave = FirstWave(wait_s)
    async with wave.place(asked):
        with anyio.fail_after(5):
            async with wave.place(asked) as place:
                place.began()
