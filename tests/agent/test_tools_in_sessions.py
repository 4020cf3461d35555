"""The four tools, called by the real CLI in a whole attempt."""

import json
from pathlib import Path
from typing import Any

import pytest

from mas.keeper import Servers
from mas.store.agents_db import provision, task_schema
from mas.testing import Conversation, Request, ScriptedClaude, tool_use
from mas.wire.messages import Log, ServiceSettings
from tests.agent.harness import agent
from tests.agent.orders import a_configuration, an_order, result_json

pytestmark = pytest.mark.usefixtures("leaves_no_process")

TASK = "c11"


async def services(servers: Servers) -> ServiceSettings:
    database = await provision(servers.postgres_dsn, owns_server=True, secret=b"test")
    await database.drop_task_schema(TASK)
    await database.create_task_schema(TASK)
    return ServiceSettings(database_dsn=database.dsn, redis_url=servers.redis_url)


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    return tool_use(f"mcp__mas__{tool}", **arguments)


def answers(request: Request) -> list[str]:
    return [str(result) for result in request.tool_results]


async def test_the_tools_work_and_their_errors_do_not_end_the_attempt(
    tmp_path: Path, servers: Servers
) -> None:
    seen: list[str] = []

    def next_turn(*blocks: dict[str, Any]) -> Any:
        def turn(request: Request) -> list[dict[str, Any]]:
            seen.append(request.last_tool_result)
            return list(blocks)

        return turn

    write = f"cat > output/result.json <<'END'\n{result_json()}\nEND"
    turns = [
        [call("query_database", query="CREATE TABLE t (n int)")],
        next_turn(
            call("query_database", query="INSERT INTO t VALUES ($1)", params=[7])
        ),
        next_turn(call("query_database", query="SELECT n, n + 1 AS n FROM t")),
        next_turn(call("query_database", query="SELECT nn FROM t")),
        next_turn(call("query_database", query=5)),
        next_turn(call("share_data", key="rate", value={"eur": 1.5})),
        next_turn(call("get_shared_data", key="rate")),
        next_turn(call("get_shared_data", key="raet")),
        next_turn(call("generate_embedding", texts=["a", "b"])),
        next_turn(tool_use("Bash", command=write)),
        "Done.",
    ]
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        configuration = a_configuration(
            tmp_path / "config", await services(servers), base_url=claude.url
        )
        order = an_order(
            tmp_path / "count", task_id=TASK, database_schema=task_schema(TASK)
        )
        async with agent(configuration) as it:
            done = await it.run(order)
    assert claude.errors == []
    assert (done.failure, done.error) == (None, None)
    created, inserted, selected, refused, invalid, shared, got, missed, embedded = seen
    assert json.loads(created)["status"] == "CREATE TABLE"
    assert json.loads(inserted)["row_count"] == 1
    assert json.loads(selected)["columns"] == ["n", "n"]
    assert json.loads(selected)["rows"] == [[7, 8]]
    assert 'column "nn" does not exist' in refused
    assert "validation error" in invalid
    assert json.loads(shared)["key"] == "rate"
    assert json.loads(got) == {"key": "rate", "value": {"eur": 1.5}}
    assert "'rate'" in missed
    assert "No embedding service is set up" in embedded
    logged = it.said(Log)
    assert "query_database SELECT n, n + 1 AS n FROM t" in [it.message for it in logged]
    assert {log.level for log in logged} == {"info"}
