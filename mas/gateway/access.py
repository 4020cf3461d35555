"""Who may call what, and as whom a call goes on to Claude: tokens, paths, headers."""

import hashlib
import secrets
from urllib.parse import unquote

from mas.gateway.exchange import Caller, Headers, Request, header

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding"),
        *(b"upgrade", b"expect"),
    }
)
"""Headers about one connection: each end writes its own."""

_CREDENTIALS = frozenset({b"x-api-key", b"authorization"})
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_TOKEN_BYTES = 32

_BEYOND_A_CALL = (
    *("messages/batches", "files", "organizations", "skills", "agents", "sessions"),
    *("environments", "vaults", "deployments", "memory_stores", "complete"),
    *("workflows", "oauth"),
)
"""What the account's key opens besides calling a model. A batch, or an agent hosted
elsewhere, would spend where no budget holds; the others reach other people's data."""


class DeniedError(Exception):
    """Not let through: an HTTP status and a line that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Tokens:
    """The tokens that are good now: one for each caller, random, for loopback alone."""

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}
        self._ended: dict[str, str] = {}
        """Who a token was good for, by its hash: it is told from one made up."""

    def issue(self, caller: Caller) -> str:
        """A token that is good for this caller until it is revoked."""
        token = f"mas-{secrets.token_urlsafe(_TOKEN_BYTES)}"
        self._callers[token] = caller
        return token

    def revoke(self, token: str) -> None:
        """It is good for nothing from now on; twice is once."""
        if caller := self._callers.pop(token, None):
            self._ended[_hash(token)] = named(caller)

    def caller(self, headers: Headers) -> Caller:
        """Whose request this is; DeniedError where nobody's that may ask now."""
        token = _token(headers)
        if caller := self._callers.get(token):
            return caller
        if ended := self._ended.get(_hash(token)):
            raise DeniedError(401, f"the token of {ended} is not good any more")
        raise DeniedError(401, "a token that this run did not give out" if token else
                          "no token was sent")  # fmt: skip


def _token(headers: Headers) -> str:
    sent = dict(reversed(headers))
    bearer = sent.get(b"authorization", b"").decode("latin-1")
    return sent.get(b"x-api-key", b"").decode("latin-1") or bearer.removeprefix(
        "Bearer "
    )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("latin-1", "replace")).hexdigest()


def named(caller: Caller) -> str:
    """The caller in words, for logs and errors."""
    if caller.subtask_id is None:
        return f"the {caller.agent_id}"
    return f"{caller.agent_id}, attempt {caller.attempt} at {caller.subtask_id}"


def check_place(target: bytes, headers: Headers) -> None:
    """DeniedError for a request to another host, or for more than a model's call."""
    host, _, port = header(headers, b"host").casefold().rpartition(":")
    if not target.startswith(b"/") or (host or port) not in _LOOPBACK:
        raise DeniedError(
            403, "requests to other hosts do not pass; the gateway is for Claude alone"
        )
    path = f"/{'/'.join(_segments(target))}/"
    for closed in _BEYOND_A_CALL:
        if f"/{closed}/" in path:
            raise DeniedError(
                403, f"/v1/{closed} is not for agents: their token is for model calls"
            )


def _segments(target: bytes) -> list[str]:
    """The path as the server may resolve it, however it is written.

    DeniedError where it leaves what the base URL stands for.
    """
    path = unquote(target.partition(b"?")[0].decode("latin-1")).partition("?")[0]
    parts: list[str] = []
    for written in path.casefold().replace("\\", "/").split("/"):
        part = written.partition(";")[0].strip()
        if part == "..":
            if not parts:
                raise DeniedError(403, "a path that climbs above its root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return parts


def forwarded_headers(request: Request, *, host: str, credentials: Headers) -> Headers:
    """The request's headers as they go on, in order, with our credentials for theirs.

    Only what concerns the two connections is changed: ``host`` is the upstream's, and
    hop-by-hop headers are left out.
    """
    dropped = _about_the_connection(request.headers)
    kept: list[tuple[bytes, bytes]] = []
    ours = list(credentials)
    for name, value in request.headers:
        if name == b"host":
            kept.append((name, host.encode("latin-1")))
        elif name in _CREDENTIALS:
            kept += ours
            ours = []
        elif name not in dropped:
            kept.append((name, value))
    if request.header(b"transfer-encoding"):  # it came in chunks
        kept.append((b"content-length", b"%d" % len(request.body)))
    return (*kept, *ours)


def answered_headers(headers: Headers) -> Headers:
    """An answer's headers as they go back to the client."""
    dropped = _about_the_connection(headers)
    return tuple((k, v) for k, v in headers if k not in dropped)


def _about_the_connection(headers: Headers) -> frozenset[bytes]:
    """The names of those that do not go on."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            named |= {each.strip().lower() for each in value.split(b",")}
    named.discard(b"content-length")  # no header can take the frame away
    if header(headers, b"transfer-encoding"):
        named.add(b"content-length")  # which that overrules
    return _HOP_BY_HOP | named
