"""The agents' role can work in its schemas, and reaches nothing else."""

import uuid
from collections.abc import AsyncIterator

import anyio
import asyncpg
import pytest

from mas.errors import NotReadyError
from mas.keeper import Servers
from mas.store.address import Address
from mas.store.agents_db import AgentsDatabase, provision
from mas.store.postgres import TaskStore
from tests.store.support import Facts, new_task

SECRET = b"the secret of this home"
TASK = "8b0c6c62-5d5c-4f0e-9d0a-3f7c4d1f2a11"
SCHEMA = "task_8b0c6c625d5c4f0e9d0a3f7c4d1f2a11"

REFUSED_EVERYWHERE = [
    "CREATE TABLE public.mine ()",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY pg_class TO '/tmp/copied'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SET ROLE mas",
    "SET SESSION AUTHORIZATION mas",
    "CREATE ROLE another",
    "CREATE DATABASE another",
    "CREATE EXTENSION dblink",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT 1000",
    "ALTER SYSTEM SET fsync = off",
    "SET temp_file_limit = -1",
    "LOAD '/tmp/library.so'",
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mas'",
    "DROP SCHEMA shared CASCADE",
    "CREATE SCHEMA mine",
]
REFUSED_BESIDE_TASKS = [
    "SELECT * FROM public.tasks",
    "INSERT INTO public.task_events VALUES ('t', 1, now(), 'x', '{}')",
    "UPDATE public.tasks SET owner_epoch = 7",
    "DELETE FROM public.subtask_results",
    "TRUNCATE public.agent_logs",
    "ALTER TABLE public.tasks ADD COLUMN mine integer",
    "DROP TABLE public.tasks",
    "COMMENT ON TABLE public.tasks IS 'mine'",
    "SELECT nextval('public.subtask_results_id_seq')",
]


async def refusals(dsn: str, statements: list[str]) -> dict[str, str]:
    """Run each statement; return what was said to those that were refused."""
    said = {}
    agent = await asyncpg.connect(dsn)
    for statement in statements:
        try:
            await agent.execute(statement)
        except asyncpg.PostgresError as error:
            said[statement] = str(error)
    await agent.close()
    return said


async def work_as_agent(database: AgentsDatabase) -> None:
    """What agents are there to do works."""
    agent = await asyncpg.connect(
        database.dsn, server_settings={"search_path": f"{SCHEMA}, shared"}
    )
    await agent.execute("CREATE TABLE words (word text PRIMARY KEY, count integer)")
    await agent.execute("INSERT INTO words VALUES ('a', 1)")
    await agent.execute("CREATE TABLE shared.for_all AS SELECT * FROM words")
    assert await agent.fetchval(f"SELECT count FROM {SCHEMA}.words") == 1
    assert await agent.fetchval("SELECT count FROM for_all") == 1
    await agent.execute("DROP TABLE shared.for_all")
    await agent.close()


@pytest.fixture
async def embedded(servers: Servers) -> AsyncIterator[AgentsDatabase]:
    """The agents' database on a server that mas owns, with the task's schema."""
    database = await provision(servers.postgres_dsn, owns_server=True, secret=SECRET)
    assert await database.create_task_schema(TASK) == SCHEMA
    yield database
    await database.drop_task_schema(TASK)


@pytest.fixture
async def configured(database: Address) -> AsyncIterator[AgentsDatabase]:
    """The agents' role in a database that mas was given, beside the tasks."""
    store = await TaskStore.connect(database.dsn)
    task = new_task()
    await store.create_task(task, Facts(task).created())
    await store.close()
    agents = await provision(database.dsn, owns_server=False, secret=SECRET)
    await agents.create_task_schema(TASK)
    yield agents
    await agents.drop_task_schema(TASK)
    await drop_role(database, agents.role)


async def drop_role(database: Address, role: str) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await admin.close()


async def test_agents_work_in_a_database_of_their_own(embedded: AgentsDatabase) -> None:
    await work_as_agent(embedded)
    assert Address.parse(embedded.dsn).database == "mas_agents"


async def test_agents_work_in_schemas_of_their_own(configured: AgentsDatabase) -> None:
    await work_as_agent(configured)


async def test_vectors_are_there_without_being_searched_for(
    embedded: AgentsDatabase,
) -> None:
    agent = await asyncpg.connect(
        embedded.dsn, server_settings={"search_path": f"{SCHEMA}, shared"}
    )
    distance = "SELECT '[1,2,3]'::vector <-> '[1,2,5]'::vector"
    assert await agent.fetchval(distance) == 2.0
    await agent.close()


async def test_agents_of_an_owned_server_get_no_further(
    servers: Servers, embedded: AgentsDatabase
) -> None:
    supervisor = await asyncpg.connect(servers.postgres_dsn)
    said = await refusals(embedded.dsn, REFUSED_EVERYWHERE)
    assert set(said) == set(REFUSED_EVERYWHERE)
    assert await supervisor.fetchval("SELECT 1") == 1
    await supervisor.close()


async def test_agents_in_a_given_database_get_no_further(
    database: Address, configured: AgentsDatabase
) -> None:
    supervisor = await asyncpg.connect(database.dsn)
    said = await refusals(configured.dsn, REFUSED_EVERYWHERE)
    assert set(said) == set(REFUSED_EVERYWHERE)
    assert await supervisor.fetchval("SELECT count(*) FROM tasks") == 1
    await supervisor.close()


async def test_agents_in_a_given_database_do_not_touch_the_tasks(
    configured: AgentsDatabase,
) -> None:
    said = await refusals(configured.dsn, REFUSED_BESIDE_TASKS)
    for statement in REFUSED_BESIDE_TASKS:
        words = said[statement]
        assert "permission denied" in words or "must be owner" in words, words


@pytest.mark.parametrize("name", ["mas", "template1"])
async def test_agents_cannot_connect_to_other_databases(
    embedded: AgentsDatabase, name: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="CONNECT"):
        await asyncpg.connect(Address.parse(embedded.dsn).with_database(name).dsn)


async def test_agents_have_limits(embedded: AgentsDatabase) -> None:
    agent = await asyncpg.connect(embedded.dsn)
    limits = {
        name: await agent.fetchval(f"SHOW {name}")
        for name in ("statement_timeout", "temp_file_limit")
    }
    connections = await agent.fetchval(
        "SELECT rolconnlimit FROM pg_roles WHERE rolname = CURRENT_USER"
    )
    await agent.close()
    assert limits == {"statement_timeout": "30s", "temp_file_limit": "1GB"}
    assert connections == 50


async def test_a_dropped_schema_takes_its_tables_along(
    embedded: AgentsDatabase,
) -> None:
    await work_as_agent(embedded)
    await embedded.drop_task_schema(TASK)
    await embedded.drop_task_schema(TASK)
    await embedded.create_task_schema(TASK)
    await embedded.create_task_schema(TASK)
    await work_as_agent(embedded)


async def test_another_secret_changes_the_password(
    servers: Servers, embedded: AgentsDatabase
) -> None:
    other = await provision(servers.postgres_dsn, owns_server=True, secret=b"new")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(embedded.dsn)
    agent = await asyncpg.connect(other.dsn)
    await agent.close()


@pytest.mark.parametrize("owns_server", [True, False])
async def test_providing_at_once_and_again_changes_nothing(
    database: Address, servers: Servers, owns_server: bool
) -> None:
    dsn = servers.postgres_dsn if owns_server else database.dsn
    secret = uuid.uuid4().bytes
    made: list[AgentsDatabase] = []

    async def make() -> None:
        made.append(await provision(dsn, owns_server=owns_server, secret=secret))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(make)
    await make()
    assert len({database.dsn for database in made}) == 1
    await made[0].create_task_schema(TASK)
    await work_as_agent(made[0])
    await made[0].drop_task_schema(TASK)
    if not owns_server:
        await drop_role(database, made[0].role)


async def test_homes_that_share_a_server_have_roles_of_their_own(
    configured: AgentsDatabase, database: Address
) -> None:
    other = await provision(database.dsn, owns_server=False, secret=b"another home")
    assert other.role != configured.role
    said = await refusals(other.dsn, [f"SELECT * FROM {SCHEMA}.words"])
    assert said
    await drop_role(database, other.role)


async def test_no_password_shows(embedded: AgentsDatabase) -> None:
    password = Address.parse(embedded.dsn).secrets[0]
    assert password not in repr(embedded)
    assert "agents" in repr(embedded)


class Tenant:
    """A user of a database who may do little there, as on a hosted server."""

    def __init__(self, database: Address) -> None:
        self.name = f"tenant_{database.database}"
        self.address = database.with_login(self.name, "pw", database.database)
        self.database = database

    async def provide(self) -> AgentsDatabase:
        return await provision(self.address.dsn, owns_server=False, secret=SECRET)

    async def refusal(self) -> NotReadyError:
        with pytest.raises(NotReadyError) as caught:
            await self.provide()
        return caught.value


@pytest.fixture
async def tenant(database: Address) -> AsyncIterator[Tenant]:
    tenant = Tenant(database)
    await as_admin(database, f"CREATE ROLE {tenant.name} LOGIN PASSWORD 'pw'")
    yield tenant
    await as_admin(
        database, f"DROP OWNED BY {tenant.name} CASCADE; DROP ROLE {tenant.name}"
    )


async def as_admin(database: Address, sql: str) -> None:
    admin = await asyncpg.connect(database.dsn)
    await admin.execute(sql)
    await admin.close()


async def test_a_missing_right_comes_with_the_sql_that_mends_it(
    tenant: Tenant,
) -> None:
    error = await tenant.refusal()
    assert f"does not allow '{tenant.name}' to create roles" in error.message
    assert "and to create schemas" in error.message
    assert "CREATE ROLE" in error.evidence
    await as_admin(tenant.database, error.evidence)
    agents = await tenant.provide()
    assert await agents.create_task_schema(TASK) == SCHEMA
    await work_as_agent(agents)
    await agents.drop_task_schema(TASK)
    await drop_role(tenant.database, agents.role)


async def test_the_right_to_create_roles_and_schemas_is_enough(tenant: Tenant) -> None:
    await as_admin(
        tenant.database,
        f"ALTER ROLE {tenant.name} CREATEROLE;"
        f"GRANT CREATE ON DATABASE {tenant.database.database} TO {tenant.name}",
    )
    agents = await tenant.provide()
    await agents.create_task_schema(TASK)
    await work_as_agent(agents)
    await agents.drop_task_schema(TASK)
    await drop_role(tenant.database, agents.role)


async def test_a_role_that_is_not_ours_to_give_schemas_to_is_told(
    tenant: Tenant,
) -> None:
    error = await tenant.refusal()
    without_grant = "\n".join(
        line for line in error.evidence.splitlines() if 'GRANT "mas_agent' not in line
    )
    await as_admin(tenant.database, without_grant)
    again = await tenant.refusal()
    assert "to act for the role mas_agent_" in again.message
    await as_admin(tenant.database, again.evidence)
    agents = await tenant.provide()
    await drop_role(tenant.database, agents.role)


async def test_a_schema_public_open_to_all_is_refused(database: Address) -> None:
    await as_admin(database, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    with pytest.raises(NotReadyError) as caught:
        await provision(database.dsn, owns_server=False, secret=SECRET)
    assert "out of the schema public" in caught.value.message
    await as_admin(database, caught.value.evidence)
    agents = await provision(database.dsn, owns_server=False, secret=SECRET)
    await drop_role(database, agents.role)


async def test_a_closed_database_is_opened_by_its_owner(database: Address) -> None:
    name = database.database
    await as_admin(database, f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    agents = await provision(database.dsn, owns_server=False, secret=SECRET)
    await agents.create_task_schema(TASK)
    await work_as_agent(agents)
    await agents.drop_task_schema(TASK)
    await drop_role(database, agents.role)


async def test_a_closed_database_of_somebody_else_is_told(tenant: Tenant) -> None:
    name = tenant.database.database
    await as_admin(
        tenant.database,
        f"ALTER ROLE {tenant.name} CREATEROLE;"
        f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;"
        f"GRANT CONNECT, CREATE ON DATABASE {name} TO {tenant.name}",
    )
    error = await tenant.refusal()
    assert "connect" in error.message
    await as_admin(tenant.database, error.evidence)
    agents = await tenant.provide()
    await agents.create_task_schema(TASK)
    await work_as_agent(agents)
    await agents.drop_task_schema(TASK)
    await drop_role(tenant.database, agents.role)


async def test_a_schema_shared_of_somebody_else_is_left_alone(
    database: Address,
) -> None:
    await as_admin(database, "CREATE SCHEMA shared")
    with pytest.raises(NotReadyError, match="schema shared that is not mas's"):
        await provision(database.dsn, owns_server=False, secret=SECRET)
