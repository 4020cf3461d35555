"""File locks: who gets them, when, and when they go."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mas.keeper.locks import EXCLUSIVE, SHARED, FileLock

HOLD = """
import sys
from pathlib import Path
from mas.keeper.locks import EXCLUSIVE, FileLock
assert FileLock(Path(sys.argv[1])).try_lock(EXCLUSIVE)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


@pytest.fixture
def held(path: Path) -> Iterator[FileLock]:
    with FileLock(path) as lock:
        assert lock.try_lock(EXCLUSIVE)
        yield lock


def test_shared_locks_go_together_and_keep_an_exclusive_one_out(path: Path) -> None:
    with FileLock(path) as one, FileLock(path) as two, FileLock(path) as three:
        assert one.try_lock(SHARED)
        assert two.try_lock(SHARED)
        assert not three.try_lock(EXCLUSIVE)
        one.close()
        two.close()
        assert three.try_lock(EXCLUSIVE)
        with FileLock(path) as four:
            assert not four.try_lock(SHARED)


def test_waiting_ends_when_the_holder_lets_go(path: Path, held: FileLock) -> None:
    with FileLock(path) as lock:
        threading.Timer(0.05, held.close).start()
        assert lock.lock(EXCLUSIVE, timeout_s=10)


def test_a_wait_given_up_never_locks_later(path: Path, held: FileLock) -> None:
    given_up = FileLock(path)
    assert not given_up.lock(EXCLUSIVE, timeout_s=0.02)
    with FileLock(path) as next_one:
        held.close()
        assert next_one.lock(EXCLUSIVE, timeout_s=10)


def test_a_deadline_in_the_past_still_takes_a_free_lock(path: Path) -> None:
    with FileLock(path) as lock:
        assert lock.lock(EXCLUSIVE, timeout_s=-1)


def test_a_killed_holder_lets_go_even_as_a_zombie(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with FileLock(path) as lock:
            assert not lock.try_lock(SHARED)
            holder.kill()
            assert lock.lock(EXCLUSIVE, timeout_s=10)
            assert holder.returncode is None  # nobody has reaped it


def test_a_child_that_inherits_a_lock_holds_it_to_its_end(
    path: Path, held: FileLock
) -> None:
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()]
    ) as child:
        held.close()
        with FileLock(path) as lock:
            assert not lock.try_lock(SHARED)
            assert child.stdin is not None
            child.stdin.close()
            assert lock.lock(SHARED, timeout_s=10)


def test_a_child_that_is_not_given_a_lock_does_not_hold_it(
    path: Path, held: FileLock
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False):
        held.close()
        with FileLock(path) as lock:
            assert lock.try_lock(EXCLUSIVE)


def test_a_lock_file_is_for_its_owner_only(path: Path) -> None:
    FileLock(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lock_file_need_not_be_made(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(path, create=False)
