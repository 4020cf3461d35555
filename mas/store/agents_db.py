"""The agents' database: a role of their own, and nothing of the supervisor's in reach.

Where mas owns the server it is a database of its own: advisory locks, notifications and
the names in the catalogs are then apart too. In a configured database it is a role with
schemas of its own; the role's name tells apart the homes that share the server.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from mas.errors import NotReadyError
from mas.store.address import Address
from mas.store.agents_role import Role
from mas.store.postgres import Session
from mas.store.sql import Connection, QueryError, identifier, literal

SHARED_SCHEMA = "shared"
"""What the agents of all tasks see, after their task's own schema."""

_DATABASE = "mas_agents"
_TIMEOUT_S = 10.0
_MARK = "agents of mas, form 1"
"""A comment, written last: all that this module makes is there. Count the form up
where that changes."""

_LOCK = """
    SET lock_timeout = '20s';
    SELECT pg_advisory_lock(hashtextextended('agents of mas', 0))
    """
_DATABASE_IS_READY = """
    SELECT FROM pg_database AS database, pg_authid AS role
    WHERE datname = $1 AND shobj_description(database.oid, 'pg_database') = $2
        AND rolname = $3 AND rolpassword = $4
    """
_ROLE_STATE = """
    SELECT
        has_database_privilege(role.oid, current_database(), 'CONNECT') AS may_connect,
        has_schema_privilege(role.oid, shared.oid, 'CREATE') AS may_share,
        NOT EXISTS (
            SELECT FROM pg_namespace AS public
            WHERE public.nspname = 'public'
                AND has_schema_privilege(role.oid, public.oid, 'CREATE')
        ) AS is_kept_out
    FROM pg_roles AS role, pg_namespace AS shared
    WHERE role.rolname = $1 AND shared.nspname = $2
        AND obj_description(shared.oid, 'pg_namespace') = $3
    """
_RIGHTS = """
    SELECT
        rolsuper AS superuser,
        rolsuper OR rolcreaterole AS may_create_roles,
        has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
        EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS role_exists,
        (
            SELECT coalesce(obj_description(oid, 'pg_namespace'), '')
            FROM pg_namespace WHERE nspname = $2
        ) AS shared_comment,
        pg_has_role(datdba, 'USAGE') AS owns_database,
        current_user AS username
    FROM pg_roles, pg_database
    WHERE rolname = current_user AND datname = current_database()
    """


class AgentsDatabase(Struct, frozen=True):
    """Where the agents' SQL runs. ``dsn`` holds the role's password; the repr not."""

    dsn: str
    role: str
    admin: Address
    """The same database, as the supervisor."""

    async def create_task_schema(self, task_id: str) -> str:
        """Make the task's schema, where it is not there, and return its name."""
        name = task_schema(task_id)
        async with _connected(self.admin) as session:
            await session.execute(
                f"CREATE SCHEMA IF NOT EXISTS {identifier(name)} "
                f"AUTHORIZATION {identifier(self.role)}"
            )
        return name

    async def drop_task_schema(self, task_id: str) -> None:
        """Drop the task's schema and all that is in it, where it is there."""
        name = identifier(task_schema(task_id))
        async with _connected(self.admin) as session:
            await session.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")

    def __repr__(self) -> str:
        return f"AgentsDatabase({self.admin!r}, {self.role!r})"


def task_schema(task_id: str) -> str:
    return f"task_{task_id.replace('-', '')}"


async def provision(
    admin_dsn: str, *, owns_server: bool, secret: bytes
) -> AgentsDatabase:
    """Make the agents' role and where it works; one query where all is there already.

    NotReadyError, with the SQL that an administrator can run, where a right is missing.
    """
    admin = Address.parse(admin_dsn)
    role = Role.derive(secret, name_is_shared=not owns_server)
    async with _connected(admin) as session:
        if owns_server:
            admin = admin.with_database(_DATABASE)
            await _provide_database(session, admin, role)
        else:
            await _provide_schemas(session, admin, role)
    agents = admin.with_login(role.name, role.password, admin.database)
    return AgentsDatabase(dsn=agents.dsn, role=role.name, admin=admin)


async def _provide_database(server: Connection, inside: Address, role: Role) -> None:
    wanted = (_DATABASE, _MARK, role.name, role.verifier)
    if await server.fetch(_DATABASE_IS_READY, *wanted):
        return
    await server.execute(_LOCK)
    if await server.fetch(_DATABASE_IS_READY, *wanted):
        return
    exists = await server.fetch("SELECT FROM pg_roles WHERE rolname = $1", role.name)
    await server.execute(role.definition("ALTER" if exists else "CREATE"))
    await server.execute(role.settings(superuser=True))
    names = [row[0] for row in await server.fetch("SELECT datname FROM pg_database")]
    for name in names:
        await server.execute(f"REVOKE ALL ON DATABASE {identifier(name)} FROM PUBLIC")
    if _DATABASE not in names:
        # Not template1: somebody may be connected to it, and then it is no template.
        await server.execute(f"CREATE DATABASE {_DATABASE} TEMPLATE template0")
    await server.execute(
        f"REVOKE ALL ON DATABASE {_DATABASE} FROM PUBLIC;"
        f"GRANT CONNECT ON DATABASE {_DATABASE} TO {role.quoted}"
    )
    async with _connected(inside) as session:
        await session.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await session.execute(f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA}")
        await _grant_shared(session, role)
        await _provide_vector(session)
    await server.execute(f"COMMENT ON DATABASE {_DATABASE} IS {literal(_MARK)}")


async def _grant_shared(session: Connection, role: Role) -> None:
    # The role may create in it but does not own it: it cannot drop it for everybody.
    await session.execute(
        f"GRANT USAGE, CREATE ON SCHEMA {SHARED_SCHEMA} TO {role.quoted}"
    )


async def _provide_vector(session: Connection) -> None:
    if await session.fetch("SELECT FROM pg_available_extensions WHERE name = 'vector'"):
        await session.execute(
            f"CREATE EXTENSION IF NOT EXISTS vector SCHEMA {SHARED_SCHEMA}"
        )


async def _provide_schemas(session: Connection, admin: Address, role: Role) -> None:
    wanted = (role.name, SHARED_SCHEMA, _MARK)
    state = await session.fetch(_ROLE_STATE, *wanted)
    if state and all(state[0]):
        return
    async with session.transaction():
        await session.execute(_LOCK)
        rights = (await session.fetch(_RIGHTS, role.name, SHARED_SCHEMA))[0]
        if rights["shared_comment"] not in (None, _MARK):
            raise NotReadyError(
                f"the database {admin.database!r} holds a schema {SHARED_SCHEMA} that "
                "is not mas's",
                hint="give mas a database of its own and name it in [postgres] dsn",
            )
        _require(_first_needs(rights, role, admin), rights["username"], admin)
        if not rights["role_exists"]:
            await _create_role(session, role, superuser=rights["superuser"])
        await _try_out(session, role, rights["username"], admin)
        if rights["shared_comment"] is None:
            await session.execute(f"CREATE SCHEMA {SHARED_SCHEMA}")
            await session.execute(
                f"COMMENT ON SCHEMA {SHARED_SCHEMA} IS {literal(_MARK)}"
            )
        await _grant_shared(session, role)
        if rights["owns_database"]:
            name = identifier(admin.database)
            await session.execute(f"GRANT CONNECT ON DATABASE {name} TO {role.quoted}")
    # Committed before it is found wanting: the SQL for the rest names the role.
    state = await session.fetch(_ROLE_STATE, *wanted)
    _require(_last_needs(state[0], role, admin), rights["username"], admin)


async def _create_role(session: Connection, role: Role, *, superuser: bool) -> None:
    await session.execute(role.definition("CREATE"))
    await session.execute(role.settings(superuser=superuser))
    if not superuser:  # or the schemas could not be given to it
        await session.execute(f"GRANT {role.quoted} TO CURRENT_USER")


async def _try_out(
    session: Connection, role: Role, username: str, admin: Address
) -> None:
    """Give the role a schema and take it back, as each task will."""
    name = task_schema(f"trial_{role.name}")
    try:
        await session.execute(
            f"CREATE SCHEMA {name} AUTHORIZATION {role.quoted};"
            f"DROP SCHEMA {name} CASCADE"
        )
    except QueryError as error:
        if not error.is_denied:
            raise
        grant = f"GRANT {role.quoted} TO {identifier(username)}"
        _require({f"to act for the role {role.name}": grant}, username, admin)


def _first_needs(rights: Any, role: Role, admin: Address) -> dict[str, str]:
    """What is missing before anything can be made: the right, and the SQL for it."""
    username = identifier(rights["username"])
    needs = {}
    if not rights["role_exists"] and not rights["may_create_roles"]:
        needs["to create roles"] = (
            f"{role.definition('CREATE')};\n"
            f"{role.settings(superuser=False)};\n"
            f"GRANT {role.quoted} TO {username}"
        )
    if not rights["may_create_schemas"]:
        needs["to create schemas"] = (
            f"GRANT CREATE ON DATABASE {identifier(admin.database)} TO {username}"
        )
    return needs


def _last_needs(state: Any, role: Role, admin: Address) -> dict[str, str]:
    """What keeps the agents out, or lets them in too far, when all else is made."""
    needs = {}
    if not state["may_connect"]:
        database = identifier(admin.database)
        grant = f"GRANT CONNECT ON DATABASE {database} TO {role.quoted}"
        needs[f"to let {role.name} connect"] = grant
    if not state["may_share"]:
        grant = f"GRANT USAGE, CREATE ON SCHEMA {SHARED_SCHEMA} TO {role.quoted}"
        needs[f"to let {role.name} use the schema {SHARED_SCHEMA}"] = grant
    if not state["is_kept_out"]:
        revoke = "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        needs[f"to keep {role.name} out of the schema public"] = revoke
    return needs


def _require(needs: dict[str, str], username: str, admin: Address) -> None:
    if needs:
        raise NotReadyError(
            f"PostgreSQL at {admin.where} does not allow {username!r} "
            + " and ".join(needs),
            hint="let an administrator of the server run this SQL in the database "
            f"{admin.database!r}, then try again",
            evidence="".join(f"{sql};\n" for sql in needs.values()),
        )


@asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[Session]:
    session = await Session.open(address, timeout_s=_TIMEOUT_S, name="mas agents")
    try:
        yield session
    finally:
        await session.close()
