"""A fresh database for each test, and the store over it."""

import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from mas.keeper import Servers
from mas.store.address import Address
from mas.store.postgres import TaskStore
from tests.store.support import Door, Line, door_to, line_to


@pytest.fixture
async def database(servers: Servers) -> AsyncIterator[Address]:
    """A new, empty database. The test leaves no connection to it, or this fails."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(servers.postgres_dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield Address.parse(servers.postgres_dsn).with_database(name)
        await admin.execute(f"DROP DATABASE {name}")
    finally:
        await admin.close()


@pytest.fixture
async def store(database: Address) -> AsyncIterator[TaskStore]:
    store = await TaskStore.connect(database.dsn)
    yield store
    await store.close()


@pytest.fixture
async def line(database: Address) -> AsyncIterator[Line]:
    """A line to the test's database that can be made to fail."""
    login = database.dsn.removeprefix("postgresql://").partition("@")[0]
    url = f"postgresql://{login}@{{place}}/{database.database}"
    async with line_to(database.where, url) as line:
        yield line


@pytest.fixture
async def door(database: Address) -> AsyncIterator[Door]:
    """A way to the test's database that can be shut."""
    async with door_to(database) as door:
        yield door
