"""Redis shows who the agents are and what they share, and forgets all of it in time."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from msgspec import structs
from redis.asyncio import Redis

from mas.errors import NotReadyError, StoreError, UsageError
from mas.keeper import Servers
from mas.model import AgentStatus
from mas.store.redis import (
    DEFAULT_EXPIRE_S,
    MAX_EXPIRE_S,
    AgentBoard,
    MissingKeyError,
    SharedState,
)
from tests.store.support import Line, line_to

STATUS = AgentStatus(
    agent_id="agent_1",
    supervisor="s-1",
    pid=4711,
    is_available=False,
    current_task="count",
    capabilities=("data_analysis", "code_generation"),
    cpu_usage=12.5,
    memory_usage=256.25,
    tasks_completed=3,
    last_heartbeat=datetime(2026, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC),
)
IDLE = structs.replace(STATUS, is_available=True, current_task=None, capabilities=())


@pytest.fixture(autouse=True)
async def redis(servers: Servers) -> AsyncIterator[Redis]:
    """The server, empty before; at the end each key has a TTL, and goes."""
    client = Redis.from_url(servers.redis_url, protocol=3, decode_responses=True)
    await client.flushdb()
    yield client
    lasting = [key async for key in client.scan_iter() if await client.ttl(key) == -1]
    await client.flushdb()
    await client.aclose()
    assert lasting == []


@pytest.fixture
async def board(servers: Servers) -> AsyncIterator[AgentBoard]:
    board = await AgentBoard.connect(servers.redis_url)
    yield board
    await board.close()


@pytest.fixture
async def state(servers: Servers) -> AsyncIterator[SharedState]:
    state = await SharedState.connect(servers.redis_url)
    yield state
    await state.close()


ODD = structs.replace(
    STATUS,
    current_task="null",
    cpu_usage=1e-7,
    last_heartbeat=datetime(1, 1, 1, tzinfo=UTC),
)


@pytest.fixture
async def line(servers: Servers) -> AsyncIterator[Line]:
    """A line to the server that can be made to fail."""
    socket = servers.redis_url.removeprefix("unix://")
    async with line_to(socket, "redis://{place}/0") as line:
        yield line


@pytest.mark.parametrize("status", [STATUS, IDLE, ODD], ids=["busy", "idle", "odd"])
async def test_a_status_is_seen_as_it_was_published(
    board: AgentBoard, status: AgentStatus
) -> None:
    await board.publish(status, 60)
    assert await board.agents() == [status]


async def test_the_keys_are_those_that_others_read(
    board: AgentBoard, redis: Redis
) -> None:
    await board.publish(STATUS, 60)
    assert await redis.smembers("active_agents") == {"s-1:agent_1"}
    fields = await redis.hgetall("agent:s-1:agent_1")
    assert fields == {
        "agent_id": "agent_1",
        "supervisor": "s-1",
        "pid": "4711",
        "is_available": "false",
        "current_task": "count",
        "capabilities": '["data_analysis","code_generation"]',
        "cpu_usage": "12.5",
        "memory_usage": "256.25",
        "tasks_completed": "3",
        "last_heartbeat": "2026-11-22T10:00:00.250000+00:00",
    }
    assert 59 <= await redis.ttl("agent:s-1:agent_1") <= 60
    await board.publish(IDLE, 60)
    assert await redis.hget("agent:s-1:agent_1", "current_task") == ""


async def test_the_latest_status_counts(board: AgentBoard) -> None:
    await board.publish(STATUS, 60)
    await board.publish(IDLE, 60)
    assert await board.agents() == [IDLE]


async def test_supervisors_with_agents_of_one_name_do_not_collide(
    board: AgentBoard,
) -> None:
    other = structs.replace(STATUS, supervisor="s-2")
    await board.publish(other, 60)
    await board.publish(STATUS, 60)
    assert await board.agents() == [STATUS, other]
    await board.remove("s-1", "agent_1")
    await board.remove("s-1", "agent_1")
    assert await board.agents() == [other]


async def test_an_agent_not_heard_of_any_more_is_dropped(
    board: AgentBoard, redis: Redis
) -> None:
    await board.publish(STATUS, 60)
    await board.publish(structs.replace(STATUS, agent_id="agent_2"), 60)
    await redis.delete("agent:s-1:agent_1")  # as its TTL does
    assert [status.agent_id for status in await board.agents()] == ["agent_2"]
    assert await redis.smembers("active_agents") == {"s-1:agent_2"}


async def test_a_short_ttl_is_kept_to_the_millisecond(
    board: AgentBoard, redis: Redis
) -> None:
    await board.publish(STATUS, 0.5)
    assert 0 < await redis.pttl("agent:s-1:agent_1") <= 500
    assert await redis.ttl("active_agents") > 3600


async def test_a_status_in_another_form_is_told(
    board: AgentBoard, redis: Redis
) -> None:
    await board.publish(STATUS, 60)
    await redis.hset("agent:s-1:agent_1", "pid", "many")
    with pytest.raises(StoreError, match="not in mas's form") as caught:
        await board.agents()
    assert "many" in caught.value.evidence


async def test_progress_reaches_who_listens(board: AgentBoard, redis: Redis) -> None:
    await board.publish_progress("t1", b"nobody hears this")
    async with redis.pubsub() as listener:
        await listener.subscribe("progress:t1")
        with anyio.fail_after(5):
            await anext(listener.listen())
            await board.publish_progress("t2", b"another task")
            await board.publish_progress("t1", b'{"activity":"Bash ls"}')
            heard = await anext(listener.listen())
    assert heard["data"] == '{"activity":"Bash ls"}'


@pytest.mark.parametrize(
    "value", [None, 0, "", [], {"a": [1, 2.5, "π", None]}, "x" * 100_000]
)
async def test_what_is_shared_comes_back_equal(
    state: SharedState, redis: Redis, value: object
) -> None:
    await state.share("t1", "words", value)
    assert await state.get("t1", "words") == value
    assert json.loads(await redis.get("state:t1:words") or "") == value
    ttl_s = await redis.ttl("state:t1:words")
    assert DEFAULT_EXPIRE_S - 1 <= ttl_s <= DEFAULT_EXPIRE_S


async def test_sharing_again_replaces_value_and_time(
    state: SharedState, redis: Redis
) -> None:
    await state.share("t1", "key", "old")
    await state.share("t1", "key", "new", expire_s=10)
    assert await state.get("t1", "key") == "new"
    assert await redis.ttl("state:t1:key") <= 10


async def test_tasks_do_not_see_each_others_keys(state: SharedState) -> None:
    for task_id, key in (("t1", "b"), ("t1", "a:b"), ("t10", "c"), ("t*", "d*")):
        await state.share(task_id, key, 1)
    assert await state.keys("t1") == ["a:b", "b"]
    assert await state.keys("t*") == ["d*"]
    assert await state.keys("t2") == []
    with pytest.raises(MissingKeyError, match="'c'") as caught:
        await state.get("t1", "c")
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("expire_s", [0, -1, MAX_EXPIRE_S + 1])
async def test_nothing_is_kept_for_ever(state: SharedState, expire_s: int) -> None:
    with pytest.raises(UsageError, match=str(MAX_EXPIRE_S)):
        await state.share("t1", "key", 1, expire_s=expire_s)
    assert await state.keys("t1") == []


@pytest.mark.parametrize(
    ("key", "value"), [("", 1), ("k", object()), ("k", "\ud800"), ("\ud800", 1)]
)
async def test_what_cannot_be_shared_is_told(
    state: SharedState, key: str, value: object
) -> None:
    with pytest.raises(UsageError):
        await state.share("t1", key, value)
    assert await state.keys("t1") == []


async def test_a_connection_that_broke_is_made_again(
    board: AgentBoard, state: SharedState, redis: Redis
) -> None:
    await board.publish(STATUS, 60)
    await state.share("t1", "key", 1)
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await board.agents() == [STATUS]
    assert await state.get("t1", "key") == 1


async def test_a_server_that_stays_away_is_told(redis: Redis) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    url = f"redis://:s3cret@127.0.0.1:{port}/0"
    with pytest.raises(NotReadyError) as silent:
        await AgentBoard.connect(url, timeout_s=0.2)
    await listener.aclose()
    with pytest.raises(NotReadyError) as absent:
        await AgentBoard.connect(url, timeout_s=5)
    for error in (silent.value, absent.value):
        assert f"127.0.0.1:{port}" in error.message
        assert "s3cret" not in f"{error} {error.hint} {error.evidence}"
        assert error.hint


async def test_a_socket_without_server_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match=str(tmp_path)):
        await SharedState.connect(f"unix://{tmp_path}/redis.sock")


@pytest.mark.parametrize("url", ["", "here", "http://h/", "redis://[::1/0"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(NotReadyError) as caught:
        await AgentBoard.connect(url)
    assert "redis://host:6379/0" in caught.value.hint


async def test_a_lost_answer_is_asked_for_again(line: Line) -> None:
    board = await AgentBoard.connect(line.url)
    await board.publish(STATUS, 60)
    line.lose_answer()
    assert await board.agents() == [STATUS]
    line.lose_answer()
    await board.publish(IDLE, 60)
    assert await board.agents() == [IDLE]
    assert line.swallowed.is_set()
    await board.close()


async def test_a_server_gone_later_is_an_error_of_the_store(line: Line) -> None:
    board = await AgentBoard.connect(line.url)
    line.lose_answer()
    line.refuses = True
    with pytest.raises(StoreError, match=f"{line.place} failed"):
        await board.publish(STATUS, 60)
    line.refuses = False
    await board.publish(STATUS, 60)
    assert await board.agents() == [STATUS]
    await board.close()


async def test_the_servers_name_and_version_are_told(board: AgentBoard) -> None:
    assert (await board.server_version()).startswith("Valkey ")
