"""Connecting: it works whatever the environment says, or the reason is told."""

import anyio
import asyncpg
import pytest

from mas.errors import NotReadyError
from mas.keeper import Servers
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import Line

HOSTILE = {
    "PGHOST": "nowhere.invalid",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGDATABASE": "nothing",
    "PGTARGETSESSIONATTRS": "standby",
    "PGSSLMODE": "require",
    "PGSSLNEGOTIATION": "direct",
    "PGGSSLIB": "nonsense",
    "PGSERVICE": "nonsense",
}


async def refusal(dsn: str, timeout_s: float = 5) -> NotReadyError:
    with pytest.raises(NotReadyError) as caught:
        await TaskStore.connect(dsn, timeout_s=timeout_s)
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    return error


async def test_variables_meant_for_another_server_do_no_harm(
    database: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    store = await TaskStore.connect(database.dsn)
    assert await store.tasks() == []
    await store.close()


async def test_a_socket_without_server_is_named(tmp_path: object) -> None:
    error = await refusal(f"postgresql://mas:s3cret@/mas?host={tmp_path}&port=5999")
    assert f"{tmp_path}/.s.PGSQL.5999" in error.message
    assert "No such file" in error.message
    assert "s3cret" not in f"{error} {error.hint} {error.evidence}"


async def test_a_port_without_server_is_named() -> None:
    error = await refusal("postgresql://mas:s3cret@127.0.0.1:9/mas")
    assert "127.0.0.1:9 cannot be used: Connection refused" in error.message


async def test_a_server_that_says_nothing_is_waited_for_no_longer_than_allowed() -> (
    None
):
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    with anyio.fail_after(5):
        error = await refusal(f"postgresql://u@127.0.0.1:{port}/db", timeout_s=0.2)
    assert "no answer within 0.2 s" in error.message
    await listener.aclose()


async def test_something_that_is_not_postgresql_is_told(line: Line) -> None:
    line.refuses = True
    error = await refusal(line.url)
    assert line.place in error.message


async def test_a_wrong_password_is_not_repeated(servers: Servers) -> None:
    address = Address.parse(servers.postgres_dsn)
    error = await refusal(address.with_login("mas", "opensesame", "mas").dsn)
    assert "password authentication failed" in error.message
    assert "user and password" in error.hint
    assert "opensesame" not in f"{error} {error.hint} {error.evidence}"


async def test_a_missing_database_is_named(servers: Servers) -> None:
    address = Address.parse(servers.postgres_dsn).with_database("not_there")
    error = await refusal(address.dsn)
    assert "not_there" in error.message
    assert "createdb not_there" in error.hint


async def test_a_bad_option_in_the_address_is_told(database: Address) -> None:
    error = await refusal(f"{database.dsn}&no_such_setting=1")
    assert "no_such_setting" in error.message


async def test_migrating_happens_once(database: Address) -> None:
    async def connect() -> None:
        store = await TaskStore.connect(database.dsn)
        await store.close()

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(connect)
    admin = await asyncpg.connect(database.dsn)
    rows = await admin.fetch("SELECT version, name FROM mas_schema_versions")
    await admin.close()
    assert [tuple(row) for row in rows] == [
        (1, "0001_initial.sql"),
        (2, "0002_commands.sql"),
        (3, "0003_model_calls.sql"),
    ]


async def test_tables_of_somebody_else_are_left_alone(database: Address) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("CREATE TABLE tasks (theirs integer)")
    error = await refusal(database.dsn)
    assert "tables that are not mas's: tasks" in error.message
    assert not await admin.fetchval("SELECT to_regclass('mas_schema_versions')")
    await admin.close()


async def test_the_tables_of_a_newer_mas_are_left_alone(
    store: TaskStore, database: Address
) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute("INSERT INTO mas_schema_versions VALUES (99, '0099_new.sql')")
    await admin.close()
    error = await refusal(database.dsn)
    assert "newer mas" in error.message
    assert "99" in error.message
    assert "upgrade" in error.hint


async def test_a_missing_right_is_told(database: Address) -> None:
    name = f"visitor_{database.database}"
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    try:
        error = await refusal(database.with_login(name, "pw", database.database).dsn)
    finally:
        await admin.execute(f"DROP ROLE {name}")
        await admin.close()
    assert "may not create its tables" in error.message
