"""A DSN is made complete, and can be talked about without its password."""

import pytest

from mas.errors import NotReadyError
from mas.store.address import Address

SOCKET = "postgresql://mas:s%40crt@/mas?host=/run/mas&port=5433"


@pytest.mark.parametrize(
    ("dsn", "where"),
    [
        ("postgresql://u@h/db", "h:5432"),
        ("postgres://u:p@h:6000/db", "h:6000"),
        ("postgresql://u@[::1]/db", "[::1]:5432"),
        ("postgresql://u@a:1,b/db", "a:1, b:5432"),
        ("postgresql://u@h/db?port=7000", "h:7000"),
        (SOCKET, "/run/mas/.s.PGSQL.5433"),
        ("postgresql://u@/db?host=/run/mas", "/run/mas/.s.PGSQL.5432"),
    ],
)
def test_it_says_where_the_server_is(dsn: str, where: str) -> None:
    assert Address.parse(dsn).where == where


@pytest.mark.parametrize(
    "dsn",
    ["", "mas", "mysql://u@h/db", "postgresql:///db", "postgresql://u:pw@[::1/db"],
)
def test_what_is_no_address_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(NotReadyError) as caught:
        Address.parse(dsn)
    assert "postgresql://user:password@host:5432/database" in caught.value.hint
    assert "pw@" not in str(caught.value)


def test_parsing_what_was_completed_changes_nothing() -> None:
    once = Address.parse(SOCKET)
    assert Address.parse(once.dsn) == once


def test_the_password_shows_nowhere() -> None:
    address = Address.parse(SOCKET)
    assert "crt" not in repr(address) + address.where
    assert address.scrub("no s@crt, no s%40crt") == "no ***, no ***"


def test_another_login_takes_the_old_one_out() -> None:
    address = Address.parse(f"{SOCKET}&user=x&password=hidden&dbname=y")
    other = address.with_login("agent", "p/w@:", "data base")
    assert "hidden" not in other.dsn
    assert other.dsn.startswith("postgresql://agent:p%2Fw%40%3A@/data%20base?")
    assert (other.where, other.database) == (address.where, "data base")


def test_another_database_keeps_the_login() -> None:
    other = Address.parse(SOCKET).with_database("other")
    assert other.dsn.startswith("postgresql://mas:s%40crt@/other?")
    assert other.database == "other"
