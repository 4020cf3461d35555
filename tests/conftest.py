"""What every test shares."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mas import keeper
from mas.keeper import Servers

MARK = "MAS_TEST_MARK"
_GONE_S = 5.0


@pytest.fixture
def anyio_backend() -> str:
    """asyncpg and the supervisor run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _no_home_of_ones_own() -> Iterator[None]:
    """Shells that the tests start, and kill, must not run the user's start-up files."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", folder)
        yield


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A MAS_HOME for the whole session; root's servers run as another user."""
    path = Path(tempfile.mkdtemp(prefix="mas-test-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(home: Path) -> Iterator[Servers]:
    """The embedded PostgreSQL and Valkey, started once."""
    with keeper.join(home) as lease:
        yield lease.servers


@pytest.fixture
def leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that the test starts is gone at its end, or within five seconds."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    yield
    _, alive = psutil.wait_procs(_marked(mark), timeout=_GONE_S)
    left = [" ".join(process.cmdline()) for process in alive]
    assert not left, f"the test left processes behind: {left}"


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK) == mark
        except (psutil.Error, OSError):
            continue
        if marked and process.pid != os.getpid():
            found.append(process)
    return found
