"""Where deaths are died: the session's servers, a folder that other users may enter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mas.keeper import Servers
from tests.crash.matrix import Survey, survey
from tests.crash.scenarios import Scenario
from tests.crash.trial import Arena
from tests.keeper.conftest import folder_for_homes

SURVEYED = (
    Scenario.PLAIN,
    Scenario.TROUBLED,
    Scenario.RESUMED,
    Scenario.DISCONNECTED,
    Scenario.AGENT,
)


@pytest.fixture(scope="session")
def arena(home: Path, servers: Servers) -> Iterator[Arena]:
    with folder_for_homes() as folder:
        yield Arena(home=home, servers=servers, folder=folder)


@pytest.fixture(scope="session")
def undisturbed(arena: Arena) -> Survey:
    """The scenarios of the sample, run to their ends without a death."""
    return survey(arena, SURVEYED)
