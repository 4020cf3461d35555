"""Waiting for one's turn: fair, woken by what happens, and leaving nothing behind."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest

from mas.gateway.exchange import Caller, Headers, Request, UpstreamError
from mas.gateway.pacing.admission import Admission, Turn
from mas.gateway.pacing.backoff import Backoff, Suspend, Verdict, Wait, WaitKind

SOON: Headers = ((b"retry-after-ms", b"30"),)
LATE: Headers = ((b"retry-after", b"500"),)


def request(agent: str = "agent_1", *, priority: int = 5, size: int = 0) -> Request:
    caller = Caller(
        task_id="t", agent_id=agent, subtask_id=agent, attempt=1, priority=priority
    )
    return Request(
        caller=caller,
        method="POST",
        target=b"/v1/messages",
        headers=(),
        body=b" " * size,
    )


class Desk:
    """An admission at work, and what it told."""

    def __init__(self, *, most_in_flight: int, longest_wait_s: float) -> None:
        self.skipped_s = 0.0
        self.waits: list[Wait | None] = []
        self.held: list[tuple[str, bool]] = []
        self.suspended: list[Suspend] = []
        self.order: list[str] = []
        self.told = anyio.Event()
        self.backoff = Backoff(
            longest_wait_s=longest_wait_s, most_in_flight=most_in_flight
        )
        self.admission = Admission(
            self.backoff,
            on_wait=self.waits.append,
            on_held=self._on_held,
            on_suspend=self.suspended.append,
            clock=lambda: time.monotonic() + self.skipped_s,
            wall_clock=lambda: datetime(2026, 3, 1, tzinfo=UTC),
        )

    def _on_held(self, caller: Caller, held: bool) -> None:
        self.held.append((caller.agent_id, held))
        self.told.set()
        self.told = anyio.Event()

    def skip(self, seconds: float) -> None:
        """So much later, and its timer has gone off."""
        self.skipped_s += seconds
        self.admission._changed.set()

    async def pass_through(self, asked: Request, name: str) -> None:
        async with self.admission.turn(asked) as turn:
            self.order.append(name)
            turn.answered(200, ())


@asynccontextmanager
async def desk(
    *, most_in_flight: int = 32, longest_wait_s: float = 100
) -> AsyncIterator[Desk]:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            made = Desk(most_in_flight=most_in_flight, longest_wait_s=longest_wait_s)
            tasks.start_soon(made.admission.run)
            yield made
            tasks.cancel_scope.cancel()
    assert made.admission.waiting == 0
    assert made.backoff.in_flight == 0


async def in_order(at: Desk, *asked: Request) -> list[str]:
    """Let them queue behind a request that is in flight; in what order they go."""
    async with (
        anyio.create_task_group() as tasks,
        at.admission.turn(request("busy")),
    ):
        for each in asked:
            tasks.start_soon(at.pass_through, each, each.caller.agent_id)
            await anyio.wait_all_tasks_blocked()
        assert at.order == []
    return at.order


async def test_who_may_go_does_not_wait() -> None:
    async with desk() as at, at.admission.turn(request()) as turn:
        assert turn.held_s < 0.1
        assert turn.answered(200, ()) is Verdict.PASS_ON
        assert at.backoff.in_flight == 1
    assert at.waits == []
    assert at.held == []


async def test_a_stream_that_ends_lets_the_next_one_go() -> None:
    async with desk(most_in_flight=1) as at:
        assert await in_order(at, request("agent_1"), request("agent_2")) == [
            "agent_1",
            "agent_2",
        ]


async def test_higher_priority_goes_first() -> None:
    async with desk(most_in_flight=1) as at:
        asked = [request("low", priority=1), request("mid"), request("top", priority=9)]
        assert await in_order(at, *asked) == ["top", "mid", "low"]


async def test_who_has_waited_long_goes_before_higher_priority() -> None:
    async with (
        desk(most_in_flight=1) as at,
        anyio.create_task_group() as tasks,
        at.admission.turn(request("busy")),
    ):
        tasks.start_soon(at.pass_through, request("old", priority=5), "old")
        await anyio.wait_all_tasks_blocked()
        at.skip(41.0)
        tasks.start_soon(at.pass_through, request("new", priority=6), "new")
        tasks.start_soon(at.pass_through, request("top", priority=8), "top")
        await anyio.wait_all_tasks_blocked()
    assert at.order == ["top", "old", "new"]


async def test_among_equals_the_attempt_with_the_fewest_in_flight_goes_first() -> None:
    async with (
        desk(most_in_flight=2) as at,
        at.admission.turn(request("many")),
    ):
        assert await in_order(at, request("many"), request("few")) == ["few", "many"]


async def test_a_refused_request_waits_for_its_next_turn() -> None:
    async with desk() as at, at.admission.turn(request()) as turn:
        began = time.monotonic()
        assert turn.answered(429, SOON) is Verdict.WAIT_ON
        assert at.backoff.in_flight == 0
        await turn.again()
        assert time.monotonic() - began >= 0.03
        assert turn.held_s >= 0.03
        assert turn.answered(200, ()) is Verdict.PASS_ON
    assert [wait and wait.kind for wait in at.waits] == [WaitKind.RATE_LIMIT, None]


async def test_a_retry_after_holds_for_everybody() -> None:
    async with desk() as at, at.admission.turn(request("agent_1")) as turn:
        began = time.monotonic()
        turn.answered(429, SOON)
        async with at.admission.turn(request("agent_2")) as other:
            assert time.monotonic() - began >= 0.03
            other.answered(200, ())


async def test_a_probe_is_not_passed_on_and_the_next_one_is_another() -> None:
    async with desk() as at:
        for _ in range(3):
            async with at.admission.turn(request()) as turn:
                error = UpstreamError("connection refused")
                assert turn.failed(error) is Verdict.PASS_ON
        async with anyio.create_task_group() as tasks:
            probes: list[str] = []

            async def probe(name: str, status: int) -> None:
                asked = request(name, priority=9 if name == "poison" else 1)
                async with at.admission.turn(asked) as turn:
                    probes.append(name)
                    while turn.answered(status, ()) is Verdict.WAIT_ON:
                        await turn.again()
                        probes.append(name)

            tasks.start_soon(probe, "poison", 500)
            tasks.start_soon(probe, "good", 200)
            await anyio.wait_all_tasks_blocked()
            assert probes == []
            at.skip(1.5)
            await anyio.wait_all_tasks_blocked()
            assert probes == ["poison"]
            at.skip(2.5)
            await anyio.wait_all_tasks_blocked()
    assert probes[1] == "good"
    assert at.waits[-1] is None
    assert at.waits[0] is not None
    assert at.waits[0].reason == "connection refused"


async def test_who_is_gone_leaves_the_queue() -> None:
    async with desk(most_in_flight=1) as at, anyio.create_task_group() as tasks:
        gone = anyio.CancelScope()

        async def leave() -> None:
            with gone:
                await at.pass_through(request("gone", priority=9), "gone")

        async with at.admission.turn(request("busy")):
            tasks.start_soon(leave)
            tasks.start_soon(at.pass_through, request("next"), "next")
            await anyio.wait_all_tasks_blocked()
            assert at.admission.waiting == 2
            gone.cancel()
            await anyio.wait_all_tasks_blocked()
            assert at.admission.waiting == 1
    assert at.order == ["next"]


async def test_who_is_gone_when_let_go_gives_the_turn_back() -> None:
    async with desk(most_in_flight=1) as at, anyio.create_task_group() as tasks:
        gone = anyio.CancelScope()

        async def leave() -> None:
            with gone:
                async with at.admission.turn(request("gone", priority=9)):
                    await anyio.sleep_forever()

        async with at.admission.turn(request("busy")):
            tasks.start_soon(leave)
            tasks.start_soon(at.pass_through, request("next"), "next")
            await anyio.wait_all_tasks_blocked()
        at.admission._look()
        assert at.backoff.in_flight == 1
        gone.cancel()
    assert at.order == ["next"]


async def test_a_client_that_leaves_its_stream_makes_way() -> None:
    async with desk(most_in_flight=1) as at:
        with pytest.raises(UpstreamError):
            async with at.admission.turn(request()):
                raise UpstreamError("cut")
        await at.pass_through(request(), "next")


async def test_an_attempt_is_held_while_any_of_its_requests_waits() -> None:
    async with (
        desk(most_in_flight=1) as at,
        anyio.create_task_group() as tasks,
        at.admission.turn(request("busy")),
    ):
        tasks.start_soon(at.pass_through, request("agent_1"), "first")
        tasks.start_soon(at.pass_through, request("agent_1"), "second")
        assert at.held == []
        await at.told.wait()
        await anyio.wait_all_tasks_blocked()
        assert at.held == [("agent_1", True)]
    assert at.held == [("agent_1", True), ("agent_1", False)]


async def test_who_was_held_and_is_gone_is_held_no_more() -> None:
    async with desk(most_in_flight=1) as at:
        async with at.admission.turn(request("busy")):
            with anyio.move_on_after(0.25):
                await at.pass_through(request("agent_1"), "never")
        assert at.held == [("agent_1", True), ("agent_1", False)]


async def refuse(turn: Turn, headers: Headers) -> None:
    turn.answered(429, headers)
    await turn.again()


@pytest.mark.parametrize("asked_to", [True, False])
async def test_stopped_it_lets_nobody_go(asked_to: bool) -> None:
    async with (
        desk(longest_wait_s=100) as at,
        anyio.create_task_group() as tasks,
        at.admission.turn(request()) as turn,
    ):
        if asked_to:
            at.admission.stop()
        tasks.start_soon(refuse, turn, SOON if asked_to else LATE)
        await anyio.wait_all_tasks_blocked()
        at.skip(1000.0)
        tasks.start_soon(at.pass_through, request(), "never")
        await anyio.wait_all_tasks_blocked()
        assert at.admission.waiting == 2
        assert at.order == []
        tasks.cancel_scope.cancel()
    reasons = [suspend.reason for suspend in at.suspended]
    known = "the rate limit lasts until 00:08 (8 min)"
    assert reasons == ([] if asked_to else [known])


async def test_a_small_request_does_not_overtake_a_large_one_for_ever() -> None:
    windows: Headers = (
        (b"anthropic-ratelimit-tokens-limit", b"1000"),
        (b"anthropic-ratelimit-tokens-remaining", b"500"),
        (b"anthropic-ratelimit-tokens-reset", b"2026-03-01T00:01:00Z"),
    )
    async with desk() as at:
        async with at.admission.turn(request()) as turn:
            turn.answered(200, windows)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(at.pass_through, request("large", size=4000), "large")
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(at.pass_through, request("small", size=400), "small")
            await anyio.wait_all_tasks_blocked()
            assert at.order == []
            at.skip(61.0)
        assert at.order == ["large", "small"]
