"""Sends requests on to Claude: to api.anthropic.com or wherever it is said to be."""

import logging
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from mas.config import Credentials
from mas.errors import ConfigError
from mas.gateway.access import forwarded_headers
from mas.gateway.exchange import CutError, Headers, Request, Response, UpstreamError

FIRST_PARTY = "https://api.anthropic.com"

_CONNECT_TIMEOUT_S = 15.0
_SEND_TIMEOUT_S = 60.0
_PIECE_BYTES = 256 * 1024
"""What must be sent within that time, so that a slow line takes large requests too."""
SILENCE_TIMEOUT_S = 600.0
"""Without a byte: an answer that is not streamed may take ten minutes."""
_MAX_CONNECTIONS = 200
_REASON_CHARS = 200
_LAST_STATUS = 599
_LEAST_SECRET = 8


# They log the headers of answers, and whatever else came, in which a secret may be.
for _library in ("httpx2", "httpcore2"):
    logging.getLogger(_library).setLevel(logging.WARNING)


class _Pieces(httpx2.AsyncByteStream):
    """A body in pieces, each of which has the time that a write has."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), _PIECE_BYTES):
            yield self._body[at : at + _PIECE_BYTES]


class _Answer:
    """An answer whose status and headers are there."""

    def __init__(self, forward: "Forward", response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers: Headers = tuple(
            (name.lower(), forward.masked(value))
            for name, value in response.headers.raw
        )
        self._forward = forward
        self._response = response

    async def chunks(self) -> AsyncIterator[bytes]:
        stream = self._response.stream  # as it is: nothing is decoded
        assert isinstance(stream, httpx2.AsyncByteStream)
        try:
            async for chunk in stream:
                yield self._forward.masked(chunk)
        except httpx2.HTTPError as error:
            raise CutError(
                f"the answer of {self._forward.where} broke off: "
                f"{self._forward.reason(error)}",
                hint="it is asked again",
            ) from error
        if _has_surplus(self._response):
            # It would be read as the beginning of somebody else's answer.
            await self._response.extensions["network_stream"].aclose()


@asynccontextmanager
async def forwarding(
    credentials: Credentials, *, silence_timeout_s: float = SILENCE_TIMEOUT_S
) -> AsyncIterator["Forward"]:
    """The upstream that is Claude, open until this is left."""
    forward = Forward(credentials, silence_timeout_s=silence_timeout_s)
    try:
        yield forward
    finally:
        await forward.aclose()


class Forward:
    """The upstream that is Claude itself, or a proxy in front of it.

    Connections are kept and used again. Proxies and certificates are taken from the
    environment, as other programs do. An answer of which nothing comes for
    ``silence_timeout_s`` is given up. ConfigError for an address that is none.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
    ) -> None:
        address = _checked(credentials.base_url or FIRST_PARTY)
        self._url = address.copy_with(userinfo=b"")
        self._prefix = self._url.raw_path.rstrip(b"/")
        self._host = self._url.netloc.decode("latin-1")
        self._credentials = _headers(credentials, address)
        self._secrets = _secrets(credentials, address)
        self._silence_timeout_s = silence_timeout_s
        self._client = httpx2.AsyncClient(
            verify=_tls(),
            timeout=httpx2.Timeout(
                silence_timeout_s,
                connect=_CONNECT_TIMEOUT_S,
                write=_SEND_TIMEOUT_S,
                pool=None,
            ),
            limits=httpx2.Limits(
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=_MAX_CONNECTIONS,
                keepalive_expiry=60.0,
            ),
            follow_redirects=False,
        )

    @property
    def where(self) -> str:
        """Where requests go, for people."""
        return f"{self._url.scheme}://{self._host}"

    @property
    def is_paid(self) -> bool:
        return True

    @property
    def is_first_party(self) -> bool:
        """Whether it is Anthropic's own endpoint."""
        return self._url.host == httpx2.URL(FIRST_PARTY).host

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Response]:
        """See ``Upstream.open``."""
        sent = httpx2.Request(
            request.method,
            self._url,
            headers=list(
                forwarded_headers(
                    request, host=self._host, credentials=self._credentials
                )
            ),
            # Not as content: that adds headers.
            stream=_Pieces(request.body),
            # Not in the URL: that quotes anew.
            extensions={"target": self._prefix + request.target},
        )
        try:
            response = await self._client.send(sent, stream=True, auth=None)
        except (httpx2.HTTPError, UnicodeError) as error:  # the latter for odd names
            raise self._unreachable(self.reason(error)) from error
        try:
            if response.status_code > _LAST_STATUS:
                raise self._unreachable(f"it answers with HTTP {response.status_code}")
            yield _Answer(self, response)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    def reason(self, error: Exception) -> str:
        """What went wrong, in the words nearest to the cause, without a secret."""
        match error:
            case httpx2.ConnectTimeout():
                return f"no connection within {_CONNECT_TIMEOUT_S:g} s"
            case httpx2.ReadTimeout():
                return f"nothing came for {self._silence_timeout_s:g} s"
            case httpx2.WriteTimeout():
                return f"it took nothing for {_SEND_TIMEOUT_S:g} s"
        words = " ".join(_words(error).split())
        return self.masked(words.encode()).decode()[:_REASON_CHARS]

    def masked(self, data: bytes) -> bytes:
        """The same without our credentials, as some proxies repeat what they got."""
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data

    def _unreachable(self, reason: str) -> UpstreamError:
        return UpstreamError(
            f"Claude cannot be reached at {self.where}: {reason}",
            hint="check the network and ANTHROPIC_BASE_URL",
        )


def _checked(address: str) -> httpx2.URL:
    hint = f"it must be like {FIRST_PARTY}; unset ANTHROPIC_BASE_URL for that one"
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise ConfigError(
            f"ANTHROPIC_BASE_URL is no address: {error}", hint=hint
        ) from error
    is_port = url.port is None or 0 < url.port < 2**16
    if url.scheme not in ("http", "https") or not url.host or not is_port:
        raise ConfigError("ANTHROPIC_BASE_URL is no address of HTTP", hint=hint)
    return url


def _headers(credentials: Credentials, address: httpx2.URL) -> Headers:
    pairs: list[tuple[bytes, bytes]] = []
    if credentials.api_key:
        pairs.append((b"x-api-key", credentials.api_key.encode("latin-1")))
    if credentials.auth_token:
        bearer = f"Bearer {credentials.auth_token}"
        pairs.append((b"authorization", bearer.encode("latin-1")))
    elif address.userinfo:
        basic = b64encode(f"{address.username}:{address.password}".encode())
        pairs.append((b"authorization", b"Basic " + basic))
    return tuple(pairs)


def _secrets(credentials: Credentials, address: httpx2.URL) -> list[bytes]:
    known = (credentials.api_key, credentials.auth_token, address.password)
    # A shorter one would be found in harmless words.
    return [each.encode() for each in known if each and len(each) >= _LEAST_SECRET]


def _tls() -> ssl.SSLContext | bool:
    """The certificates that SSL_CERT_FILE or NODE_EXTRA_CA_CERTS name, too."""
    extra = os.environ.get("NODE_EXTRA_CA_CERTS")
    if not extra:
        return True
    context = httpx2.create_ssl_context()
    try:
        context.load_verify_locations(extra)
    except OSError as error:
        raise ConfigError(
            f"NODE_EXTRA_CA_CERTS cannot be read: {error}", hint="correct or unset it"
        ) from error
    return context


def _words(error: Exception) -> str:
    """What the system or the library says of the error's first cause."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner
    match cause:  # the numbers of the first two are their own, not the system's
        case ssl.SSLError():
            return f"TLS: {cause.reason or cause}"
        case socket.gaierror():
            return cause.strerror or str(cause)
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
    return str(cause) or str(error) or type(error).__name__


def _has_surplus(response: httpx2.Response) -> bool:
    """Whether more came than the answer's length says."""
    found: Any = response.stream
    for name in (
        *("_stream", "_httpcore_stream", "_stream"),
        "_connection",
        "_h11_state",
    ):
        found = getattr(found, name, None)
    return found is not None and bool(found.trailing_data[0])
