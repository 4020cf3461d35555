"""Servers that are there when one joins, are shared, and go with the last user."""

import os
import pwd
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
import redis

from mas.errors import NotReadyError
from mas.keeper import join, join_running
from mas.keeper.paths import Layout
from tests.keeper.support import (
    User,
    answers,
    assert_gone,
    processes,
    query,
    the,
)


def test_joining_gives_a_database_with_vectors_and_a_redis(new_home: Path) -> None:
    with join(new_home) as lease:
        query(lease.servers, "create extension vector")
        assert query(lease.servers, "select '[1,2]'::vector <-> '[1,1]'") == 1
        assert query(lease.servers, "select current_database() || current_user")
        with redis.Redis.from_url(lease.servers.redis_url) as client:
            assert client.set("key", "value")
            assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_no_server_listens_on_the_network(home: Path) -> None:
    with join(home):
        for process in processes(home):
            assert process.net_connections("inet") == []


def test_another_password_does_not_open_the_database(home: Path) -> None:
    with join(home) as lease:
        password = Layout(home).read_password()
        assert password is not None
        dsn = lease.servers.postgres_dsn.replace(password, "0" * 64)
        stranger = type(lease.servers)(dsn, lease.servers.redis_url)
        with pytest.raises(asyncpg.InvalidPasswordError):
            query(stranger, "select 1")


def test_facts_are_durable_and_text_is_utf8(home: Path) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "restart_after_crash": "on",
        "max_connections": "200",
        "server_encoding": "UTF8",
        "data_checksums": "on",
    }
    with join(home) as lease:
        for name, value in expected.items():
            assert query(lease.servers, f"show {name}") == value


def test_the_users_environment_does_not_reach_the_servers(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {"TZ": "Asia/Tokyo", "PGOPTIONS": "-c x=y", "LC_ALL": "tr_TR.UTF-8"}
    for name, value in (foreign | {"ANTHROPIC_API_KEY": "secret"}).items():
        monkeypatch.setenv(name, value)
    with join(home):
        for kind in ("postgres", "valkey-server"):
            environment = the(home, kind).environ()
            assert not foreign.items() & environment.items()
        assert "ANTHROPIC_API_KEY" not in the(home, "keeper").environ()


def test_all_who_join_share_the_servers(home: Path) -> None:
    with join(home) as first, join(home) as second, User(home) as third:
        assert first.servers == second.servers == third.servers()
        assert len(processes(home, "keeper", "valkey-server")) == 2


def test_many_who_start_at_once_get_one_keeper(new_home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        users = list(pool.map(User, [new_home] * 8))
    assert len({user.servers().postgres_dsn for user in users}) == 1
    assert len(processes(new_home, "keeper", "valkey-server")) == 2
    for user in users:
        user.leave()


def test_the_servers_stay_until_the_last_user_leaves(home: Path) -> None:
    first, second = join(home), join(home)
    first.close()
    first.close()
    assert answers(second.servers)
    second.close()
    assert_gone(home)


def test_data_outlive_the_servers(home: Path) -> None:
    with join(home) as lease:
        query(lease.servers, "create table kept as select 42 as answer")
        with redis.Redis.from_url(lease.servers.redis_url) as client:
            client.set("answer", 42)
    assert_gone(home)
    with join(home) as lease:
        assert query(lease.servers, "select answer from kept") == 42
        with redis.Redis.from_url(lease.servers.redis_url) as client:
            assert client.get("answer") == b"42"


def test_who_joins_while_the_servers_stop_gets_new_ones(home: Path) -> None:
    for _ in range(4):
        with join(home) as lease:
            assert answers(lease.servers)


def test_joining_what_runs_starts_nothing(new_home: Path) -> None:
    assert join_running(new_home) is None
    assert not new_home.exists()
    with join(new_home) as lease:
        running = join_running(new_home)
        assert running is not None
        assert running.servers == lease.servers
    assert answers(running.servers)
    running.close()
    assert_gone(new_home)
    assert join_running(new_home) is None
    assert processes(new_home) == []


def test_a_home_may_be_relative_and_have_an_odd_name(new_home: Path) -> None:
    odd = new_home.parent / "it's a home of 100% ünïcode"
    with (
        User(odd.name, cwd=new_home.parent) as user,
        join(odd) as lease,
    ):
        assert user.servers() == lease.servers
        assert answers(lease.servers)
    assert_gone(odd)


def test_neither_a_fork_nor_a_child_of_a_user_is_a_user(home: Path) -> None:
    then = """
import os, subprocess
child = subprocess.Popen(["cat"], stdin=sys.stdin, close_fds=False)
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
lease.close()
"""
    with User(home, then=then) as user:
        user.servers()
        assert_gone(home)


def test_a_join_that_takes_too_long_is_given_up(new_home: Path) -> None:
    with pytest.raises(NotReadyError, match="not ready in the time allowed") as caught:
        join(new_home, timeout_s=0.01)
    assert caught.value.hint
    assert_gone(new_home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers are another user's")
def test_a_home_out_of_the_servers_reach_is_refused_by_name(
    new_home: Path,
) -> None:
    locked = new_home.parent / "locked"
    locked.mkdir(mode=0o700)
    with pytest.raises(NotReadyError, match=f"cannot enter {locked}") as caught:
        join(locked / "home")
    assert "MAS_HOME" in caught.value.hint
    assert locked.stat().st_mode & 0o777 == 0o700
    assert processes(locked / "home") == []


def test_an_ordinary_users_servers_are_that_users(new_home: Path) -> None:
    uid = os.geteuid()
    prefix: tuple[str, ...] = ()
    if uid == 0:
        # Reads what root reads, so that it finds Python, but is not root.
        right = "+dac_read_search"
        nobody = pwd.getpwnam("nobody")
        ids = ("--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid))
        rights = ("--inh-caps", right, "--ambient-caps", right)
        bits = ("--clear-groups", "--securebits", "+no_setuid_fixup")
        uid, prefix = nobody.pw_uid, ("setpriv", *ids, *rights, *bits)
        os.chown(new_home.parent, nobody.pw_uid, nobody.pw_gid)
    with User(new_home, prefix=prefix) as user:
        assert answers(user.servers())
        running = processes(new_home)
        assert {process.uids().effective for process in running} == {uid}
        assert not Layout(new_home).binaries.exists()
    assert_gone(new_home)
