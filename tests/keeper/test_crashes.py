"""What is left, and what is back, after somebody was killed."""

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from mas.keeper import join, launcher
from mas.keeper.binaries import Binaries, find_binaries
from mas.keeper.launcher import Launcher
from mas.keeper.locks import EXCLUSIVE, FileLock
from mas.keeper.log import Log
from mas.keeper.paths import Layout, account_for_servers
from mas.keeper.servers import Spec, postgres_spec, valkey_spec
from tests.keeper.support import (
    User,
    answers,
    assert_ended,
    assert_gone,
    kill_keeper,
    processes,
    query,
    the,
    until,
)


def test_all_goes_when_the_last_user_is_killed(home: Path) -> None:
    with User(home) as user:
        user.servers()
        user.kill()
        assert_gone(home)


def test_all_stays_when_one_of_two_users_is_killed(home: Path) -> None:
    with join(home) as lease:
        keeper = the(home, "keeper")
        with User(home) as user:
            user.servers()
            user.kill()
        assert answers(lease.servers)
        assert the(home, "keeper") == keeper


def test_all_goes_when_the_starter_is_killed_while_it_starts(new_home: Path) -> None:
    with User(new_home) as user:
        until(lambda: bool(processes(new_home, "initdb")), "initdb runs")
        user.kill()
        assert_gone(new_home)


def test_a_killed_keeper_takes_the_servers_along(home: Path) -> None:
    with join(home):
        running = processes(home)
        the(home, "keeper").kill()
        assert_ended(running)
    join(home).close()


def test_joining_after_the_keeper_was_killed_starts_another(home: Path) -> None:
    with join(home) as orphaned:
        query(orphaned.servers, "create table if not exists kept_1 as select 42 as x")
        with redis.Redis.from_url(orphaned.servers.redis_url) as client:
            client.set("kept", "1")
        kill_keeper(home)
        with join(home) as lease:
            assert lease.servers == orphaned.servers
            assert query(lease.servers, "select x from kept_1") == 42
            with redis.Redis.from_url(lease.servers.redis_url) as client:
                assert client.get("kept") == b"1"
        # Whoever joined the killed one is still a user of the new one.
        assert answers(orphaned.servers)


def test_a_killed_server_is_restarted_with_its_data(home: Path) -> None:
    with join(home) as lease:
        query(lease.servers, "create table if not exists kept_2 as select 42 as x")
        with redis.Redis.from_url(lease.servers.redis_url) as client:
            client.set("kept", "2")
        for kind in ("postgres", "valkey-server"):
            killed = the(home, kind)
            killed.kill()
            until(lambda: answers(lease.servers), f"{kind} is back")
            assert the(home, kind) != killed
        assert query(lease.servers, "select x from kept_2") == 42
        with redis.Redis.from_url(lease.servers.redis_url) as client:
            assert client.get("kept") == b"2"


def test_a_child_that_does_not_notice_keeps_no_new_server_away(home: Path) -> None:
    busy = "do $$ begin loop end loop; end $$"
    sees = f"select count(*) from pg_stat_activity where query = '{busy}'"
    with join(home) as lease, ThreadPoolExecutor(1) as pool:
        lost = pool.submit(query, lease.servers, busy)
        until(lambda: query(lease.servers, sees) == 1, "the busy query runs")
        the(home, "postgres").kill()
        until(lambda: answers(lease.servers), "postgres is back")
        assert isinstance(lost.exception(timeout=0), asyncpg.PostgresError)
        assert query(lease.servers, sees) == 0


def test_nothing_is_lost_when_everything_is_killed(home: Path) -> None:
    with User(home) as user:
        servers = user.servers()
        query(servers, "create table if not exists kept_3 as select 42 as x")
        running = processes(home)
        user.kill()
        for process in running:
            with suppress(psutil.NoSuchProcess):  # it went with its parent
                process.kill()
        assert_ended(running)
    with join(home) as lease:
        assert query(lease.servers, "select x from kept_3") == 42


def test_a_keeper_killed_over_a_half_made_database_leaves_none(new_home: Path) -> None:
    with User(new_home) as user:
        until(lambda: bool(processes(new_home, "initdb")), "initdb runs")
        the(new_home, "keeper").kill()
        user.kill()
    layout = Layout(new_home)
    assert layout.postgres_data.with_suffix(".new").exists()
    assert not layout.postgres_data.exists()
    with join(new_home) as lease:
        assert answers(lease.servers)
    assert not layout.postgres_data.with_suffix(".new").exists()


def test_a_keeper_asked_to_stop_stops_the_servers_cleanly(home: Path) -> None:
    with join(home):
        the(home, "keeper").terminate()
        assert_gone(home)
    assert "database system is shut down" in Layout(home).log.read_text()
    join(home).close()


@pytest.mark.parametrize("make_spec", [postgres_spec, valkey_spec])
def test_servers_that_outlive_their_keeper_are_stopped_before_new_ones_start(
    home: Path,
    make_spec: Callable[[Layout, Binaries], Spec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    join(home).close()
    assert_gone(home)
    old = start_without_keeper(home, make_spec, monkeypatch)
    with join(home) as lease:
        assert old.wait(timeout=0) == 0  # it was asked, not killed
        old.communicate()
        assert answers(lease.servers)


def test_an_old_server_that_does_not_stop_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(home).close()
    assert_gone(home)
    old = start_without_keeper(home, valkey_spec, monkeypatch)
    old.send_signal(signal.SIGSTOP)
    with join(home) as lease:
        assert old.wait(timeout=0) == -signal.SIGKILL
        old.communicate()
        assert answers(lease.servers)


def start_without_keeper(
    home: Path,
    make_spec: Callable[[Layout, Binaries], Spec],
    monkeypatch: pytest.MonkeyPatch,
) -> "subprocess.Popen[bytes]":
    """A server as a killed keeper leaves it where children do not die with parents."""
    monkeypatch.setattr(launcher, "_die_with_keeper", lambda number: None)
    layout = Layout(home)
    account = account_for_servers()
    layout.make_sockets_folder(account)
    spec = make_spec(layout, find_binaries(layout, account))
    with FileLock(spec.lock) as family:
        assert family.try_lock(EXCLUSIVE)
        server = Launcher(account, Log(layout.log)).spawn(
            spec.command, on_keeper_death=signal.SIGTERM, family=family
        )
    assert server.stdout is not None
    assert any(spec.ready_text in line.decode() for line in server.stdout)
    return server
