"""The pipeline as a whole: what the ledger has, who waits for whom, what passes."""

import anyio
from msgspec import structs

from mas.gateway.pacing.backoff import Wait, WaitKind
from mas.model import CallState, ModelCall
from tests.gateway.harness import TASK, Scene, gateway, worker
from tests.gateway.wire import (
    ASKED,
    END,
    MESSAGE,
    MODEL,
    START,
    Line,
    Message,
    by_turns,
    delta,
    gives,
    hangs,
    response,
    streams,
    upstream,
)

PREFIX = b'{"model": "m", "system": "%b"}' % (b"x" * 5000)


def refusal(after_ms: int, status: int = 429) -> bytes:
    body = b'{"type": "error", "error": {"type": "rate_limit_error", "message": "no"}}'
    return response(body, status, [(b"retry-after-ms", b"%d" % after_ms)])


async def test_the_ledger_has_who_asked_what_and_how_it_went() -> None:
    async with (
        upstream(gives(streams(START, delta("a"), END))) as claude,
        gateway(claude.url) as scene,
    ):
        await scene.ask(scene.post(headers=[(b"x-claude-code-agent-id", b"sub1")]))
        (call,) = await scene.ended()
        await scene.until(lambda: scene.written)

    assert structs.replace(
        call, id="", started_at=None, first_byte_s=None, duration_s=None, held_s=0
    ) == structs.replace(
        call,
        id="",
        task_id=TASK,
        subtask_id="load",
        attempt=1,
        agent_id="agent_1",
        subagent="sub1",
        path="/v1/messages",
        model=MODEL,
        state=CallState.COMPLETE,
        http_status=200,
        error=None,
        started_at=None,
        first_byte_s=None,
        duration_s=None,
        held_s=0,
    )
    assert call.usage.cost_usd > 0
    assert call.first_byte_s is not None
    assert call.duration_s is not None
    assert 0 < call.first_byte_s <= call.duration_s
    assert scene.written[-1] == call


async def test_a_call_is_in_the_ledger_before_it_is_sent() -> None:
    seen: list[ModelCall] = []

    async def answer(line: Line, _: Message) -> None:
        seen.extend(scene.calls)
        await line.send(response())

    async with upstream(answer) as claude, gateway(claude.url) as scene:
        await scene.ask()

    assert [call.state for call in seen] == [CallState.OPEN]


async def test_one_that_is_refused_makes_the_others_wait_and_all_are_answered() -> None:
    count = 2
    answers = by_turns(gives(refusal(300)), gives(response()))
    statuses: list[int] = []
    async with upstream(answers) as claude, gateway(claude.url) as scene:

        async def ask() -> None:
            statuses.append((await scene.ask()).status)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await scene.until(lambda: any(scene.waits))
            for _ in range(count):
                tasks.start_soon(ask)

    assert statuses == [200] * (count + 1)
    assert len(claude.heard) == count + 2
    first = next(filter(None, scene.waits))
    assert first.kind is WaitKind.RATE_LIMIT
    assert scene.waits[-1] is None
    assert scene.held == [True, False]
    refused = [call for call in scene.calls if call.state is CallState.REFUSED]
    assert [(call.http_status, call.error) for call in refused] == [
        (429, "rate_limit_error: no")
    ]
    assert all(call.held_s > 0.05 for call in scene.calls if call not in refused)


async def test_a_refusal_that_does_not_end_is_not_waited_for() -> None:
    head = b"HTTP/1.1 429 Slow\r\nretry-after-ms: 1\r\ncontent-length: 10\r\n\r\nabc"
    async with (
        upstream(by_turns(hangs(head), gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        assert (await scene.ask()).body == MESSAGE
        await claude.left.wait()


async def test_after_three_failures_in_a_row_one_at_a_time_is_sent() -> None:
    failure = response(b"{}", 500)
    async with (
        upstream(by_turns(*[gives(failure)] * 3, gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        for _ in range(3):
            assert (await scene.ask()).status == 500
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(scene.ask)
            await scene.until(lambda: any(scene.waits))
            assert len(claude.heard) == 3
        waits: list[Wait] = [wait for wait in scene.waits if wait]

    assert (waits[0].kind, waits[0].reason) == (WaitKind.OUTAGE, "HTTP 500")
    assert len(claude.heard) == 8
    assert scene.waits[-1] is None


async def test_a_client_that_leaves_while_it_waits_is_not_sent() -> None:
    async with (
        upstream(by_turns(gives(refusal(200)), gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        line = await scene.line()
        await line.send(scene.post())
        await scene.until(lambda: any(scene.waits))
        await line.stream.aclose()
        await scene.until(lambda: scene.waits[-1] is None)
        assert (await scene.ask()).status == 200

    assert len(claude.heard) == 2


async def test_the_first_of_a_prefix_goes_ahead_of_the_others() -> None:
    may_begin = anyio.Event()

    async def answer(line: Line, _: Message) -> None:
        await may_begin.wait()
        await line.send(response())

    async with (
        upstream(answer) as claude,
        gateway(claude.url, first_wave_s=10) as scene,
        anyio.create_task_group() as tasks,
    ):

        async def ask(body: bytes) -> None:
            assert (await scene.ask(scene.post(body))).status == 200

        for _ in range(4):
            tasks.start_soon(ask, PREFIX)
        await scene.until(lambda: scene.calls)
        tasks.start_soon(ask, ASKED)  # of another prefix
        await scene.until(lambda: len(scene.calls) == 2)
        await anyio.wait_all_tasks_blocked()
        assert len(scene.calls) == 2
        may_begin.set()

    assert len(claude.heard) == 5


async def test_higher_priority_goes_first() -> None:
    order: list[bytes] = []

    async def answer(line: Line, heard: Message) -> None:
        order.append(heard.body)
        if len(order) == 1:
            await scene.until(lambda: scene.held == [True, True])
        await line.send(response())

    async def ask(scene: Scene, body: bytes, token: str) -> None:
        assert (await scene.ask(scene.post(body, token=token))).status == 200

    async with (
        upstream(answer) as claude,
        gateway(claude.url, most_in_flight=1) as scene,
        anyio.create_task_group() as tasks,
    ):
        urgent = scene.gateway.tokens.issue(worker(attempt=2, priority=9))
        tasks.start_soon(ask, scene, b"first", scene.token)
        await scene.until(lambda: scene.calls)
        tasks.start_soon(ask, scene, b"low", scene.token)
        await scene.until(lambda: scene.held == [True])
        tasks.start_soon(ask, scene, b"high", urgent)

    assert order == [b"first", b"high", b"low"]


async def test_a_request_whose_attempt_ends_while_it_waits_is_not_sent() -> None:
    async with (
        upstream(by_turns(gives(refusal(200)), gives(response()))) as claude,
        gateway(claude.url) as scene,
    ):
        line = await scene.line()
        await line.send(scene.post())
        await scene.until(lambda: any(scene.waits))
        scene.gateway.tokens.revoke(scene.token)
        answer = await line.answer()

    assert answer.status == 401
    assert "attempt 1 at load is not good any more" in answer.error
    assert len(scene.denials) == 1
    assert len(claude.heard) == 1


async def test_an_unknown_price_is_told_once_and_its_tokens_count() -> None:
    answer = response(MESSAGE.replace(MODEL.encode(), b"claude-of-2030"))
    async with upstream(gives(answer)) as claude, gateway(claude.url) as scene:
        await scene.ask()
        await scene.ask()
        calls = await scene.ended(2)

    (notice,) = scene.notices
    assert notice.startswith("the price of claude-of-2030 is not known")
    assert '[prices."claude-of-2030"]' in notice
    assert [call.usage.unpriced_tokens for call in calls] == [18, 18]
    assert scene.ledger.total.cost_usd == 0
