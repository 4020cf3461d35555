"""Homes for the tests of the keeper; at the end of each nothing of it runs."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.keeper.support import assert_gone


@contextmanager
def folder_for_homes() -> Iterator[Path]:
    """A folder that root's servers can get to, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="mas-keeper-", dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _common_home() -> Iterator[Path]:
    with folder_for_homes() as folder:
        yield folder / "home"


@pytest.fixture
def home(_common_home: Path) -> Iterator[Path]:
    """A MAS_HOME that other tests use too, after each other."""
    yield _common_home
    assert_gone(_common_home)


@pytest.fixture
def new_home() -> Iterator[Path]:
    """A MAS_HOME that is not there yet."""
    with folder_for_homes() as folder:
        yield folder / "home"
        assert_gone(folder / "home")
