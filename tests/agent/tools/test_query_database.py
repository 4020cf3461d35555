"""query_database on a real PostgreSQL, under the agents' role."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from mas.agent.tools.database import Database
from mas.agent.tools.query_database import MAX_BYTES, MAX_ROWS, run_statement
from mas.keeper import Servers
from mas.store.agents_db import AgentsDatabase, task_schema
from tests.agent.orders import TASK_ID


@pytest.fixture
async def database(agents_database: AgentsDatabase) -> AsyncIterator[Database]:
    database = Database(agents_database.dsn, task_schema(TASK_ID))
    yield database
    await database.close()


async def rows(database: Database, query: str, *params: Any) -> list[list[Any]]:
    return (await ran(database, query, *params))["rows"]  # type: ignore[no-any-return]


async def ran(database: Database, query: str, *params: Any) -> dict[str, Any]:
    reply = await run_statement(database, query, list(params))
    text = reply["content"][0]["text"]
    assert not reply.get("is_error"), text
    answer: dict[str, Any] = json.loads(text)
    return answer


async def refused(database: Database, query: str, *params: Any) -> str:
    reply = await run_statement(database, query, list(params))
    assert reply.get("is_error"), reply
    text: str = reply["content"][0]["text"]
    return text


async def test_a_table_is_made_filled_and_read(database: Database) -> None:
    created = await ran(database, "CREATE TABLE t (id int PRIMARY KEY, name text)")
    assert (created["status"], created["rows"]) == ("CREATE TABLE", [])
    filled = await ran(database, "INSERT INTO t VALUES ($1, $2), (2, 'b')", 1, "a")
    assert (filled["status"], filled["row_count"]) == ("INSERT 0 2", 2)
    back = await ran(database, "UPDATE t SET name = upper(name) RETURNING *")
    assert back["rows"] == [[1, "A"], [2, "B"]]
    read = await ran(database, "SELECT * FROM t ORDER BY id")
    assert read == {
        "columns": ["id", "name"],
        "rows": [[1, "A"], [2, "B"]],
        "row_count": 2,
        "status": "2 rows",
        "note": None,
    }


async def test_unqualified_names_are_in_the_tasks_schema(database: Database) -> None:
    await ran(database, "CREATE TABLE mine ()")
    query = "SELECT table_schema FROM information_schema.tables WHERE table_name=$1"
    assert await rows(database, query, "mine") == [[task_schema(TASK_ID)]]


async def test_the_shared_schema_and_vectors_are_in_reach(database: Database) -> None:
    query = "SELECT $1::vector <-> '[1,2]'"
    assert await rows(database, query, [1, 4]) == [[2.0]]
    assert await rows(database, query, "[1,4]") == [[2.0]]


async def test_columns_of_the_same_name_stay_apart(database: Database) -> None:
    answer = await ran(database, "SELECT 1 AS a, 2 AS a")
    assert (answer["columns"], answer["rows"]) == (["a", "a"], [[1, 2]])


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("1.10::numeric", "1.10"),
        ("'NaN'::float8", "NaN"),
        ("9007199254740993::int8", 9007199254740993),
        ("'\\xdead'::bytea", "3q0="),
        ("'a'::\"char\"", "a"),
        ('\'{"b": 1.10, "a": [1e30]}\'::jsonb', {"b": 1.1, "a": [10**30]}),
        ("array['a', 'b']::\"char\"[]", ["a", "b"]),
        ("array['{\"a\": 1}'::jsonb, null]", [{"a": 1}, None]),
        ("array[array[1, 2], array[3, 4]]", [[1, 2], [3, 4]]),
        ("'9999-12-31'::date", "9999-12-31"),
        ("'infinity'::date", "infinity"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'12020-02-29'::date", "12020-02-29"),
        ("'2020-01-01 10:00+02'::timestamptz", "2020-01-01 08:00:00+00"),
        ("'infinity'::timestamptz", "infinity"),
        ("'0044-03-15 10:00 BC'::timestamp", "0044-03-15 10:00:00 BC"),
        ("'24:00'::time", "24:00:00"),
        ("'12:00+02'::timetz", "12:00:00+02"),
        ("'12:00-03:30'::timetz", "12:00:00-03:30"),
        ("'1 mon 2 days 3.5 sec'::interval", "1 mons 2 days 00:00:03.5"),
        ("'-infinity'::interval", "-infinity"),
        ("daterange('2020-01-01', 'infinity')", "[2020-01-01,infinity)"),
        ("array['2020-01-01'::date, 'infinity']", ["2020-01-01", "infinity"]),
        ("int4multirange(int4range(1, 3), int4range(5, 8))", ["[1,3)", "[5,8)"]),
        ("B'10101010101'", "10101010101"),
        ("'10.0.0.0/8'::cidr", "10.0.0.0/8"),
        ("'1.50'::money", "$1.50"),
        ("point(1, 2)", [1.0, 2.0]),
        ("circle(point(0, 0), 2)", [[0.0, 0.0], 2.0]),
        ("'((0,0),(1,1))'::path", [[0.0, 0.0], [1.0, 1.0]]),
        ("row(1, 'x')", [1, "x"]),
        ("'[1,2,3]'::vector", "[1,2,3]"),
        ("pg_sleep(0)", None),
        ("to_tsvector('simple', 'a b')", "'a':1 'b':2"),
    ],
)
async def test_values_are_shown_without_loss(
    database: Database, expression: str, shown: Any
) -> None:
    assert await rows(database, f"SELECT {expression}") == [[shown]]


async def test_a_composite_becomes_an_object(database: Database) -> None:
    await ran(database, "CREATE TYPE pair AS (a int, b jsonb, c date)")
    shown = await rows(database, "SELECT (1, '{\"k\": 2}', 'infinity')::pair")
    assert shown == [[{"a": 1, "b": {"k": 2}, "c": "infinity"}]]


@pytest.mark.parametrize(
    ("type_", "value", "shown"),
    [
        ("int", "42", 42),
        ("int", 42, 42),
        ("bool", "yes", True),
        ("text", 5, "5"),
        ("text", {"a": 1}, '{"a": 1}'),
        ("numeric", 1.5, "1.5"),
        ("numeric", "0.1000", "0.1000"),
        ("float8", 3, 3.0),
        ("float8", "NaN", "NaN"),
        ("timestamptz", "2020-01-01T10:00:00Z", "2020-01-01 10:00:00+00"),
        ("date", "9999-12-31", "9999-12-31"),
        ("date", "infinity", "infinity"),
        ("time", "24:00", "24:00:00"),
        ("interval", "1 month", "1 mons"),
        ("uuid", str(UUID(int=7)), str(UUID(int=7))),
        ("jsonb", {"a": [1]}, {"a": [1]}),
        ("jsonb", '{"a": 1}', {"a": 1}),
        ("jsonb", "words", "words"),
        ("jsonb", [1, None], [1, None]),
        ("bytea", "\\xdead", "3q0="),
        ("int[]", [1, None, "3"], [1, None, 3]),
        ("text[]", ['a"b', "c,d", "é"], ['a"b', "c,d", "é"]),
        ("date[]", ["2020-01-01"], ["2020-01-01"]),
        ("jsonb[]", [{"a": 'q"'}, [1], "w"], [{"a": 'q"'}, [1], "w"]),
        ("int[]", "{1,2}", [1, 2]),
        ("inet", "10.0.0.1", "10.0.0.1"),
        ("int4range", "[1,5)", "[1,5)"),
        ("tsrange", "[2020-01-01,infinity)", "[2020-01-01 00:00:00,infinity)"),
        ("text", None, None),
    ],
)
async def test_json_serves_for_parameters_of_every_type(
    database: Database, type_: str, value: Any, shown: Any
) -> None:
    assert await rows(database, f"SELECT $1::{type_}", value) == [[shown]]


async def test_enums_and_domains_are_parameters_too(database: Database) -> None:
    await ran(database, "CREATE TYPE mood AS ENUM ('ok', 'bad')")
    await ran(database, "CREATE DOMAIN age AS int CHECK (value > 0)")
    await ran(database, "CREATE TABLE t (m mood, ms mood[], a age)")
    await ran(database, "INSERT INTO t VALUES ($1, $2, $3)", "ok", ["bad"], "3")
    assert await rows(database, "SELECT * FROM t") == [["ok", ["bad"], 3]]
    assert "age" in await refused(database, "INSERT INTO t (a) VALUES ($1)", -1)


async def test_a_value_that_is_none_of_the_type_says_so(database: Database) -> None:
    error = await refused(database, "SELECT $1::date", "yesterdayish")
    assert "'yesterdayish' is no date" in error
    assert "invalid input syntax" in error


async def test_a_wrong_number_of_params_says_so(database: Database) -> None:
    error = await refused(database, "SELECT $1::int + $2::int", 1)
    assert "takes 2 params, 1 were given" in error


async def test_a_long_result_is_cut_and_says_how_to_go_on(database: Database) -> None:
    answer = await ran(database, "SELECT generate_series(1, 1e9::int8)")
    assert len(answer["rows"]) == MAX_ROWS
    assert f"OFFSET {MAX_ROWS}" in answer["note"]


async def test_a_result_of_just_the_limit_is_not_called_cut(database: Database) -> None:
    answer = await ran(database, f"SELECT generate_series(1, {MAX_ROWS})")
    assert (answer["row_count"], answer["note"]) == (MAX_ROWS, None)


async def test_a_wide_result_is_cut_by_its_bytes(database: Database) -> None:
    query = "SELECT repeat('x', 20000) FROM generate_series(1, 50)"
    reply = await run_statement(database, query, [])
    text = reply["content"][0]["text"]
    assert len(text) < MAX_BYTES + 1000
    assert json.loads(text)["row_count"] == 2


async def test_one_huge_value_is_cut_and_says_so(database: Database) -> None:
    query = "SELECT 7 AS a, repeat('ä', 9000000) AS b"
    reply = await run_statement(database, query, [])
    text = reply["content"][0]["text"]
    assert len(text.encode()) < MAX_BYTES + 1000
    row = json.loads(text)["rows"][0]
    assert row[0] == 7
    assert row[1].startswith("ääää")
    assert "use substring()" in row[1]


async def test_a_faulty_statement_is_explained(database: Database) -> None:
    error = await refused(database, "SELECT nmae FROM (SELECT 1 AS name) AS t")
    assert 'column "nmae" does not exist' in error
    assert "t.name" in error
    assert "position: 8" in error
    assert "information_schema.columns" in error


async def test_a_missing_table_says_where_to_look(database: Database) -> None:
    assert "current_schemas" in await refused(database, "SELECT * FROM gone")


async def test_two_statements_in_one_text_are_refused(database: Database) -> None:
    assert "one statement a call" in await refused(database, "SELECT 1; SELECT 2")


async def test_a_constraints_detail_is_told(database: Database) -> None:
    await ran(database, "CREATE TABLE t (id int PRIMARY KEY)")
    error = await refused(database, "INSERT INTO t VALUES (1), (1)")
    assert "Key (id)=(1) already exists" in error


async def test_the_supervisors_tables_are_out_of_reach(database: Database) -> None:
    tables = "SELECT * FROM pg_database_size('mas')"
    assert "permission denied" in await refused(database, tables)
    assert "does not exist" in await refused(database, "SELECT * FROM tasks")
    assert "permission denied" in await refused(database, "CREATE ROLE me SUPERUSER")


async def test_a_transaction_does_not_outlive_its_call(database: Database) -> None:
    await ran(database, "CREATE TABLE t ()")
    assert "rolled back" in (await ran(database, "BEGIN"))["note"]
    await ran(database, "DROP TABLE t")
    await ran(database, "ROLLBACK")
    assert "does not exist" in await refused(database, "SELECT FROM t")


async def test_settings_do_not_outlive_their_call(database: Database) -> None:
    await ran(database, "SET statement_timeout = 0")
    await ran(database, "SET search_path = pg_catalog")
    assert await rows(database, "SHOW statement_timeout") == [["30s"]]
    assert task_schema(TASK_ID) in (await rows(database, "SHOW search_path"))[0][0]


async def test_a_statement_that_runs_too_long_is_ended(
    agents_database: AgentsDatabase,
) -> None:
    database = Database(agents_database.dsn, "public", statement_timeout_s=0.2)
    error = await refused(database, "SELECT pg_sleep(30)")
    assert "statement timeout" in error
    assert "narrow it" in error
    assert await rows(database, "SELECT 1") == [[1]]
    await database.close()


async def test_calls_at_the_same_time_wait_for_each_other(database: Database) -> None:
    found: list[Any] = []

    async def ask(number: int) -> None:
        query = "SELECT $1::int, pg_sleep(0.01)"
        found.extend(await rows(database, query, number))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(ask, number)
    assert sorted(number for number, _ in found) == [0, 1, 2, 3, 4]


async def test_a_cancelled_call_leaves_nothing_for_the_next(database: Database) -> None:
    await ran(database, "CREATE TABLE t ()")
    with anyio.move_on_after(0.2) as scope:
        await run_statement(
            database, "WITH a AS (SELECT pg_sleep(30)) SELECT FROM a", []
        )
    assert scope.cancelled_caught
    assert await rows(database, "SELECT 1") == [[1]]


async def test_a_connection_lost_in_the_middle_is_told_and_made_anew(
    database: Database,
) -> None:
    suicide = "SELECT pg_terminate_backend(pg_backend_pid(), 5000)"
    assert "look before you repeat it" in await refused(database, suicide)
    assert await rows(database, "SELECT 1") == [[1]]


async def test_a_connection_lost_between_calls_is_made_anew(
    database: Database, servers: Servers
) -> None:
    pid = (await rows(database, "SELECT pg_backend_pid()"))[0][0]
    admin = await asyncpg.connect(servers.postgres_dsn)
    await admin.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await admin.close()
    assert await rows(database, "SELECT 1") == [[1]]


async def test_a_server_that_is_not_there_is_an_error_to_go_on_from() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", "task")
    error = await refused(database, "SELECT 1")
    assert "cannot be reached" in error
    assert "go on without it" in error
    await database.close()


async def test_a_wrong_password_is_an_error_too(
    agents_database: AgentsDatabase,
) -> None:
    database = Database(agents_database.dsn.replace("mas_agent:", "mas_agent:0"), "t")
    assert "password authentication failed" in await refused(database, "SELECT 1")


@pytest.mark.parametrize(
    "query", ["COPY t TO STDOUT", "-- in\n /* bulk */ copy t FROM STDIN"]
)
async def test_copy_is_refused_and_nothing_hangs(
    database: Database, query: str
) -> None:
    await ran(database, "CREATE TABLE t (a int)")
    with anyio.fail_after(5):
        assert "COPY does not work here" in await refused(database, query)
    assert await rows(database, "SELECT 1") == [[1]]


async def test_many_comments_do_not_stop_the_agent(database: Database) -> None:
    with anyio.fail_after(5):
        query = "/* a */ -- b\n" * 200 + "SELECT 1"
        assert await rows(database, query) == [[1]]


async def test_an_address_that_is_none_is_an_error_too() -> None:
    assert "cannot be reached" in await refused(Database("nonsense", "t"), "SELECT 1")
