"""A budget that ends while requests come: what is sent, what waits, who is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mas.gateway import gateway as gateway_module
from mas.gateway.spending.budget import Budget
from mas.model import CallState, Usage
from tests.gateway.harness import Scene, gateway
from tests.gateway.wire import (
    END,
    START,
    STREAM_HEAD,
    Line,
    Message,
    RawUpstream,
    chunked,
    gives,
    response,
    streams,
    upstream,
)

A_CALL = 1042
"""Tokens that one answer takes."""


class Held:
    """An upstream whose answers tell their input, and end when they may."""

    def __init__(self) -> None:
        self.may_end = anyio.Event()

    async def __call__(self, line: Line, _: Message) -> None:
        await line.send(STREAM_HEAD + chunked(START, end=False))
        await self.may_end.wait()
        await line.send(chunked(END))


def of_tokens(limit: int, spent: int = 0) -> Budget:
    return Budget(None, limit, None, spent=Usage(input_tokens=spent))


@asynccontextmanager
async def waiting(scene: Scene, count: int) -> AsyncIterator[list[Line]]:
    """So many clients that have asked; they leave at the end."""
    lines = [await scene.line() for _ in range(count)]
    for line in lines:
        await line.send(scene.post())
    try:
        yield lines
    finally:
        for line in lines:
            await line.stream.aclose()


async def test_what_was_let_go_is_answered_and_nothing_goes_after_it() -> None:
    async with (
        upstream(gives(streams(START, END))) as claude,
        gateway(claude.url, budget=of_tokens(3 * A_CALL)) as scene,
    ):
        for _ in range(3):
            assert (await scene.ask()).status == 200
        async with waiting(scene, 5):
            await scene.until(lambda: scene.suspensions)
            await scene.gateway.drained()

    ((reason, hint),) = scene.suspensions
    assert reason == "the budget of 3,126 tokens is spent: 3,126 used"
    assert "mas resume {task}" in hint
    assert len(claude.heard) == len(scene.calls) == 3
    assert scene.budget.spent.tokens == 3 * A_CALL


async def test_it_is_exceeded_by_no_more_than_what_was_under_way() -> None:
    held, count = Held(), 10
    async with (
        upstream(held) as claude,
        gateway(claude.url, budget=of_tokens(10_000, 9_999)) as scene,
        waiting(scene, count) as lines,
    ):
        await scene.until(lambda: scene.calls)
        first = len(scene.calls)  # those that came before the first input was known
        await scene.until(lambda: scene.ledger.total.input_tokens)
        async with waiting(scene, count):
            await scene.until(lambda: scene.suspensions)
            under_way = len(scene.ledger.open_calls)
            held.may_end.set()
            await scene.gateway.drained()

    assert 1 <= first <= under_way <= count
    assert len(scene.calls) == len(claude.heard) == under_way
    assert {call.state for call in scene.calls} == {CallState.COMPLETE}
    assert scene.budget.spent.tokens <= 9_999 + under_way * A_CALL
    assert len(scene.suspensions) == 1
    assert len(lines) == count


async def test_the_input_of_a_running_answer_counts_at_once() -> None:
    held, drained = Held(), anyio.Event()
    async with (
        upstream(held) as claude,
        gateway(claude.url, budget=of_tokens(1_000)) as scene,
        anyio.create_task_group() as tasks,
    ):

        async def drain() -> None:
            await scene.gateway.drained()
            drained.set()

        line = await scene.line()
        await line.send(scene.post())
        await line.head()
        assert await line.chunk() == START
        async with waiting(scene, 3):
            await scene.until(lambda: scene.suspensions)
            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert not drained.is_set()  # one answer is still under way
            held.may_end.set()
            assert await line.chunk() == END
            await drained.wait()
            (call,) = scene.calls

    assert call.state is CallState.COMPLETE
    assert len(claude.heard) == 1


async def test_an_answer_that_is_left_counts_as_ended_too() -> None:
    async with (
        upstream(Held()) as claude,
        gateway(claude.url, budget=of_tokens(1_000)) as scene,
    ):
        line = await scene.line()
        await line.send(scene.post())
        await line.head()
        await line.chunk()
        async with waiting(scene, 1):
            await scene.until(lambda: scene.suspensions)
            await line.stream.aclose()
            await scene.gateway.drained()

    assert scene.calls[0].state is CallState.CUT
    assert len(claude.heard) == 1


async def test_a_parked_request_is_refused_for_good_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_module, "_PARKED_S", 0.05)
    async with (
        upstream(gives(response())) as claude,
        gateway(claude.url, budget=of_tokens(10, 10)) as scene,
    ):
        answer = await scene.ask()
        again = await scene.ask()

    assert answer.status == again.status == 403  # which the CLI does not try again
    assert answer.error == "mas: the task is suspended"
    assert answer.header(b"x-should-retry") == b"false"
    assert claude.heard == []
    assert len(scene.suspensions) == 1


async def suspended_while_waiting(claude: RawUpstream, held: Held) -> Scene:
    async with gateway(claude.url, most_in_flight=1) as scene, waiting(scene, 5):
        await scene.until(lambda: True in scene.held)
        scene.gateway.suspend("enough", "go on")
        scene.gateway.suspend("twice", "is once")
        held.may_end.set()
        await scene.gateway.drained()
        await anyio.wait_all_tasks_blocked()
        return scene


async def test_requests_that_wait_for_their_turn_are_not_sent_any_more() -> None:
    held = Held()
    async with upstream(held) as claude:
        scene = await suspended_while_waiting(claude, held)

    assert scene.suspensions == [("enough", "go on")]
    assert len(claude.heard) == len(scene.calls) == 1
    assert scene.calls[0].state is CallState.COMPLETE


async def test_a_limit_that_lasts_too_long_suspends() -> None:
    refusal = response(b"{}", 429, [(b"retry-after", b"3600")])
    async with (
        upstream(gives(refusal)) as claude,
        gateway(claude.url, longest_wait_s=30) as scene,
        waiting(scene, 1),
    ):
        await scene.until(lambda: scene.suspensions)
        async with waiting(scene, 3):
            await scene.gateway.drained()
            await anyio.wait_all_tasks_blocked()

    ((reason, _),) = scene.suspensions
    assert reason.startswith("the rate limit lasts until ")
    assert len(claude.heard) == 1


async def test_a_warning_comes_once_at_four_fifths() -> None:
    async with (
        upstream(gives(streams(START, END))) as claude,
        gateway(claude.url, budget=of_tokens(100_000, 79_000)) as scene,
    ):
        for _ in range(3):
            await scene.ask()

    assert scene.notices == ["80 % of the budget of 100,000 tokens is used: 80,001"]
