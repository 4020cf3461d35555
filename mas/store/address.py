"""Where a PostgreSQL server is: a DSN made complete, and safe to talk about. Pure."""

from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from msgspec import Struct

from mas.errors import NotReadyError

_DEFAULT_PORT = "5432"
_SCHEMES = ("postgresql", "postgres")

# What a DSN leaves open, asyncpg takes from PGPORT, PGTARGETSESSIONATTRS and so on:
# variables meant for another server would break the connection to ours. How TLS is
# done stays the environment's business, except on a socket, where there is none.
_SETTLED = {"target_session_attrs": "any", "gsslib": "gssapi"}
_SETTLED_ON_A_SOCKET = {"sslmode": "disable", "sslnegotiation": "postgres"}

_LOGIN_KEYS = frozenset({"user", "password", "passfile", "service"})
_DATABASE_KEYS = frozenset({"dbname", "database"})


class Address(Struct, frozen=True):
    """A server, a login and a database. Its repr is safe to print."""

    dsn: str
    """Complete: the environment cannot lead it elsewhere."""
    where: str
    """For people: ``host:port``, or the socket's path."""
    database: str
    secrets: tuple[str, ...] = ()

    @classmethod
    def parse(cls, dsn: str) -> "Address":
        """Understand a DSN; NotReadyError, which does not repeat it, where it is none.

        It has a scheme, and a host before the path or in the query.
        """
        try:
            parts = urlsplit(dsn)
            query = dict(parse_qsl(parts.query))
            password = parts.password or query.get("password", "")
        except ValueError:
            raise _not_an_address() from None
        if parts.scheme not in _SCHEMES:
            raise _not_an_address()
        hosts = _hosts(parts.netloc, query)
        if not hosts and "host" not in query:
            raise _not_an_address()
        database = unquote(parts.path.removeprefix("/"))
        return cls(
            dsn=_complete(parts, hosts, query),
            where=", ".join(map(unquote, hosts)) or _where(query),
            database=database or query.get("dbname") or query.get("database", ""),
            secrets=tuple({password, unquote(password)} - {""}),
        )

    def with_database(self, database: str) -> "Address":
        """The same server and login, in another database."""
        login, at, _ = urlsplit(self.dsn).netloc.rpartition("@")
        return self._changed(login + at, database, _DATABASE_KEYS)

    def with_login(self, user: str, password: str, database: str) -> "Address":
        """The same server, as another user in another database."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@"
        return self._changed(login, database, _LOGIN_KEYS | _DATABASE_KEYS)

    def scrub(self, text: str) -> str:
        """``text`` without the password."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def _changed(self, login: str, database: str, drop: frozenset[str]) -> "Address":
        parts = urlsplit(self.dsn)
        hosts = parts.netloc.rpartition("@")[2]
        kept = {key: v for key, v in parse_qsl(parts.query) if key not in drop}
        path = quote(database, safe="")
        return Address.parse(f"postgresql://{login}{hosts}/{path}?{urlencode(kept)}")

    def __repr__(self) -> str:
        return f"Address({self.where!r}, {self.database!r})"


def _not_an_address() -> NotReadyError:
    return NotReadyError(
        "the address of PostgreSQL cannot be understood",
        hint="write [postgres] dsn or DATABASE_URL as "
        "postgresql://user:password@host:5432/database",
    )


def _hosts(netloc: str, query: dict[str, str]) -> list[str]:
    """The hosts named before the path, each with its port."""
    port = query.get("port", _DEFAULT_PORT)
    named = netloc.rpartition("@")[2].split(",")
    return [
        host if ":" in host.rpartition("]")[2] else f"{host}:{port}"
        for host in named
        if host
    ]


def _complete(parts: SplitResult, hosts: list[str], query: dict[str, str]) -> str:
    query = _SETTLED | query
    if hosts:
        query.pop("port", None)
    else:
        query.setdefault("port", _DEFAULT_PORT)
        if query["host"].startswith("/"):
            query = _SETTLED_ON_A_SOCKET | query
    login, at, _ = parts.netloc.rpartition("@")
    place = login + at + ",".join(hosts)
    return f"postgresql://{place}{parts.path}?{urlencode(query)}"


def _where(query: dict[str, str]) -> str:
    host, port = query["host"], query.get("port", _DEFAULT_PORT)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else f"{host}:{port}"
