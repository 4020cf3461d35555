"""The agents' database as the tools reach it."""

import pytest

from mas.keeper import Servers
from mas.store.agents_db import AgentsDatabase, provision
from tests.agent.orders import TASK_ID


@pytest.fixture
async def agents_database(servers: Servers) -> AgentsDatabase:
    """The agents' database, with an empty schema for the task ``TASK_ID``."""
    database = await provision(servers.postgres_dsn, owns_server=True, secret=b"test")
    await database.drop_task_schema(TASK_ID)
    await database.create_task_schema(TASK_ID)
    return database
