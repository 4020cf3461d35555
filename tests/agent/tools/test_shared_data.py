"""share_data and get_shared_data on a real Redis."""

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from mas.agent.tools.get_shared_data import get_shared_data
from mas.agent.tools.replies import Reply
from mas.agent.tools.share_data import share_data
from mas.agent.tools.shared import Shared
from mas.keeper import Servers


@pytest.fixture
async def shared(servers: Servers) -> AsyncIterator[Shared]:
    shared = Shared(servers.redis_url, "7f0c")
    yield shared
    await shared.close()


def text_of(reply: Reply) -> str:
    text: str = reply["content"][0]["text"]
    return text


@pytest.mark.parametrize("value", [{"a": [1, "ü"]}, "words", 0, None, False])
async def test_what_is_shared_can_be_read(shared: Shared, value: object) -> None:
    await share_data(shared).handler({"key": "rate", "value": value})
    reply = await get_shared_data(shared).handler({"key": "rate"})
    assert json.loads(text_of(reply)) == {"key": "rate", "value": value}


async def test_a_key_that_is_not_there_names_those_that_are(shared: Shared) -> None:
    await share_data(shared).handler({"key": "rate", "value": 1})
    reply = await get_shared_data(shared).handler({"key": "raet"})
    assert reply["is_error"]
    assert "'rate'" in text_of(reply)


async def test_another_task_sees_nothing_of_it(
    shared: Shared, servers: Servers
) -> None:
    await share_data(shared).handler({"key": "rate", "value": 1})
    other = Shared(servers.redis_url, "another")
    reply = await get_shared_data(other).handler({"key": "rate"})
    assert "Nothing is shared for this task yet" in text_of(reply)
    await other.close()


async def test_a_shared_value_has_its_time(shared: Shared) -> None:
    arguments = {"key": "brief", "value": 1, "expire_seconds": 5}
    reply = await share_data(shared).handler(arguments)
    assert json.loads(text_of(reply))["expire_seconds"] == 5


async def test_reads_at_the_same_time_share_one_connection(shared: Shared) -> None:
    states = []

    async def ask() -> None:
        states.append(await shared.state())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert len({id(state) for state in states}) == 1


async def test_redis_down_is_an_error_to_go_on_from() -> None:
    shared = Shared("redis://127.0.0.1:1/0", "7f0c")
    written = await share_data(shared).handler({"key": "rate", "value": 1})
    read = await get_shared_data(shared).handler({"key": "rate"})
    for reply in (written, read):
        assert reply["is_error"]
        assert "Go on without it" in text_of(reply)
    await shared.close()
