"""The command line; and the script without the CLI, on the session's servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mas.keeper import Servers
from tests.cli.command import Mas
from tests.demo.workshop import Workshop


@pytest.fixture
def mas(home: Path, servers: Servers, tmp_path: Path, leaves_no_process: None) -> Mas:
    """The command in an empty folder."""
    return Mas(home, tmp_path)


@pytest.fixture(scope="module")
def workshop(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    with Workshop(
        servers.postgres_dsn, tmp_path_factory.mktemp("workshop")
    ) as workshop:
        yield workshop
