"""Files that are stale, damaged or cannot be written: mended, or told with evidence."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from mas.errors import NotReadyError
from mas.keeper import Servers, join, join_running
from mas.keeper.locks import EXCLUSIVE, FileLock
from mas.keeper.paths import Layout, account_for_servers
from tests.keeper.support import (
    answers,
    assert_ended,
    assert_gone,
    processes,
    query,
    the,
    until,
)

_JOIN_WITHIN_A_QUOTA = """
import json, resource, sys
from pathlib import Path
from mas.errors import NotReadyError
from mas.keeper import join
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
try:
    join(Path(sys.argv[1]))
except NotReadyError as error:
    print(json.dumps([error.message, error.hint, error.evidence]))
"""


@pytest.fixture
def foreign_pid() -> Iterator[int]:
    """A process of the servers' user that is none of ours."""
    account = account_for_servers()
    uid = account.uid if account else None
    with subprocess.Popen(["sleep", "60"], user=uid) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize("kind", ["dead", "foreign", "empty", "garbage"])
def test_a_stale_process_id_keeps_no_server_away(
    home: Path, foreign_pid: int, kind: str
) -> None:
    join(home).close()
    assert_gone(home)
    layout = Layout(home)
    pid = {"dead": "4194303", "foreign": str(foreign_pid), "garbage": "?"}.get(kind)
    text = f"{pid}\n{layout.postgres_data}\n0\n5432\n" if pid else ""
    layout.make_sockets_folder(account_for_servers())
    (layout.postgres_data / "postmaster.pid").write_text(text)
    (layout.sockets / ".s.PGSQL.5432.lock").write_text(text)
    layout.valkey_socket.write_text(text)
    with join(home) as lease:
        assert answers(lease.servers)


def test_a_stale_process_id_keeps_no_restarted_server_away(
    home: Path, foreign_pid: int
) -> None:
    layout = Layout(home)
    text = f"{foreign_pid}\n{layout.postgres_data}\n0\n5432\n"
    with join(home) as lease:
        (layout.postgres_data / "postmaster.pid").write_text(text)
        (layout.sockets / ".s.PGSQL.5432.lock").write_text(text)
        the(home, "postgres").kill()
        until(lambda: answers(lease.servers), "postgres is back")


@pytest.mark.parametrize("text", ["", "not a password"])
def test_a_damaged_password_is_replaced(home: Path, text: str) -> None:
    with join(home) as lease:
        old = lease.servers
        query(old, "create table if not exists kept_4 as select 42 as x")
    assert_gone(home)
    Layout(home).password.write_text(text)
    with join(home) as lease:
        assert query(lease.servers, "select x from kept_4") == 42
        stale = Servers(old.postgres_dsn, lease.servers.redis_url)
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(stale, "select 1")


def test_a_password_lost_while_the_servers_run_is_told(home: Path) -> None:
    with join(home):
        Layout(home).password.unlink()
        for attempt in (join, join_running):
            with pytest.raises(NotReadyError, match="password") as caught:
                attempt(home)
            assert "end every mas" in caught.value.hint
    assert_gone(home)
    join(home).close()


def test_a_failed_initdb_is_told_with_what_it_said(new_home: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", _JOIN_WITHIN_A_QUOTA, str(new_home)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    message, hint, evidence = json.loads(found.stdout)
    assert "did not start: initdb failed" in message
    assert "disk is full" in hint
    assert "File too large" in evidence
    assert processes(new_home) == []


def test_a_database_that_does_not_start_is_told_with_what_it_said(
    new_home: Path,
) -> None:
    join(new_home).close()
    assert_gone(new_home)
    (Layout(new_home).postgres_data / "PG_VERSION").write_text("damaged\n")
    with pytest.raises(NotReadyError, match="postgres ended again and again") as caught:
        join(new_home)
    assert "PG_VERSION" in caught.value.evidence
    assert caught.value.hint


def test_a_server_that_dies_again_and_again_ends_its_keeper(new_home: Path) -> None:
    layout = Layout(new_home)
    with join(new_home):
        (layout.postgres_data / "global" / "pg_control").unlink()
        the(new_home, "postgres").kill()
        with FileLock(layout.keeper_lock) as alive:
            assert alive.lock(EXCLUSIVE, timeout_s=10)
        assert_gone(new_home)
    assert "failed: postgres ended again and again" in layout.log.read_text()


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_a_home_removed_under_the_servers_keeps_nothing_running(new_home: Path) -> None:
    with join(new_home):
        running = processes(new_home)
        # The servers remove files of theirs meanwhile, under rmtree's hands.
        until(lambda: _removed(new_home), "the home is removed")
    assert_ended(running)
    assert not Layout(new_home).sockets.exists()
