"""The command line, with the session's servers."""

from pathlib import Path

import pytest

from mas.keeper import Servers
from tests.cli.command import Mas


@pytest.fixture
def mas(home: Path, servers: Servers, tmp_path: Path, leaves_no_process: None) -> Mas:
    """The command in an empty folder."""
    return Mas(home, tmp_path)
