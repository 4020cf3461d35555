"""The ledger when a run is killed: what was under way counts, and nothing twice."""

import os
import signal
from typing import Any

import anyio
import pytest

from mas.keeper import Servers
from mas.model import CallState, ModelCall, Usage
from mas.store.postgres import TaskStore
from mas.testing import Fault, ScriptedClaude
from tests.cli.command import Done, Mas, read_until
from tests.scripts import diligent, scripted
from tests.support import until

ONE: tuple[dict[str, Any], ...] = ({"key": "one"},)
BEGUN = 4  # events of an answer, message_start first: its input is known


async def calls_of(servers: Servers, task_id: str) -> list[ModelCall]:
    store = await TaskStore.connect(servers.postgres_dsn)
    try:
        return await store.calls(task_id)
    finally:
        await store.close()


def wait_until_written(servers: Servers, task_id: str) -> ModelCall:
    """The call that is open, as soon as the ledger holds its input."""
    found: list[ModelCall] = []

    async def is_written() -> bool:
        calls = await calls_of(servers, task_id)
        found[:] = [
            it for it in calls if it.state is CallState.OPEN and it.usage.tokens
        ]
        return bool(found)

    async def wait() -> None:
        await until(is_written, "the ledger holds what the open call has used")

    anyio.run(wait)
    return found[0]


def usage_of(calls: list[ModelCall]) -> Usage:
    return sum((call.usage for call in calls), Usage())


@pytest.mark.parametrize("whom", ["supervisor", "agent"])
def test_what_was_cut_by_a_kill_counts(mas: Mas, servers: Servers, whom: str) -> None:
    one = diligent("one", command="true", before=(Fault.hang(after_events=BEGUN),))
    with ScriptedClaude(scripted(ONE, {"one": one})) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        with mas.start("run", "x", "--json") as process:
            pids: dict[str, int] = {}

            def is_under_way(event: dict[str, Any]) -> bool:
                if event["type"] == "agent_ready":
                    pids[event["agent_id"]] = event["pid"]
                return event["type"] == "attempt_progress" and "usage" in event

            seen = read_until(process, is_under_way)
            started = Done(0, seen.decode(), "").events
            task_id = started[0]["task_id"]
            open_call = wait_until_written(servers, task_id)
            if whom == "supervisor":
                process.kill()
                process.communicate()
            else:
                agent = next(it for it in started if it["type"] == "attempt_started")
                os.kill(pids[agent["agent_id"]], signal.SIGKILL)
                out, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
        if whom == "supervisor":
            done = mas.run("resume", task_id, "--json")
            assert done.code == 0, done.err
            ended = done.events[-1]
        else:
            ended = Done(0, (seen + out).decode(), "").events[-1]
        assert claude.errors == []
        answered = [it for it in claude.requests if it.status == 200]
    calls = anyio.run(calls_of, servers, task_id)
    [cut] = [call for call in calls if call.state is CallState.CUT]
    assert cut.id == open_call.id
    assert cut.usage.input_tokens == open_call.usage.input_tokens > 0
    assert cut.usage.estimated_tokens == cut.usage.output_tokens
    assert len(calls) == len(answered)
    total = usage_of(calls)
    assert ended["result"]["usage"]["input_tokens"] == total.input_tokens
    document = mas.run("show", task_id, "--json").document
    rows = {row["attempt"]: row for row in document["subtask_results"]}
    assert rows[1]["usage"]["input_tokens"] == cut.usage.input_tokens
