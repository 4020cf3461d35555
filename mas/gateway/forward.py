"""Sends requests on to Claude: to api.anthropic.com or wherever it is said to be."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from mas.config import Credentials
from mas.errors import ConfigError
from mas.gateway.access import forwarded_headers
from mas.gateway.exchange import CutError, Headers, Request, Response, UpstreamError

FIRST_PARTY = "https://api.anthropic.com"

_CONNECT_TIMEOUT_S = 15.0
_SEND_TIMEOUT_S = 60.0
_SILENCE_TIMEOUT_S = 600.0
"""Without a byte: an answer that is not streamed may take ten minutes."""
_MAX_CONNECTIONS = 200
_REASON_CHARS = 200


class _Answer:
    def __init__(self, response: httpx2.Response, where: str) -> None:
        self.status = response.status_code
        self.headers: Headers = tuple(
            (name.lower(), value) for name, value in response.headers.raw
        )
        self._response = response
        self._where = where

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except httpx2.HTTPError as error:
            raise CutError(
                f"the answer of {self._where} broke off: {_reason(error)}",
                hint="it is asked again",
            ) from error


@asynccontextmanager
async def forwarding(credentials: Credentials) -> AsyncIterator["Forward"]:
    """The upstream that is Claude, open until this is left."""
    forward = Forward(credentials)
    try:
        yield forward
    finally:
        await forward.aclose()


class Forward:
    """The upstream that is Claude itself, or a proxy in front of it.

    Connections are kept and used again. Proxies and certificates are taken from the
    environment, as other programs do. ConfigError for an address that is none.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._url = _checked(credentials.base_url or FIRST_PARTY)
        self._prefix = self._url.raw_path.rstrip(b"/")
        self._host = self._url.netloc.decode("latin-1").rpartition("@")[2]
        self._credentials = _headers(credentials)
        self._client = httpx2.AsyncClient(
            verify=_tls(),
            timeout=httpx2.Timeout(
                _SILENCE_TIMEOUT_S,
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
            stream=httpx2.ByteStream(request.body),
            # Not in the URL: that quotes anew.
            extensions={"target": self._prefix + request.target},
        )
        try:
            response = await self._client.send(sent, stream=True, auth=None)
        except httpx2.HTTPError as error:
            raise UpstreamError(
                f"Claude cannot be reached at {self.where}: {_reason(error)}",
                hint="check the network and ANTHROPIC_BASE_URL",
            ) from error
        try:
            yield _Answer(response, self.where)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()


def _checked(address: str) -> httpx2.URL:
    hint = f"it must be like {FIRST_PARTY}; unset ANTHROPIC_BASE_URL for that one"
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise ConfigError(
            f"ANTHROPIC_BASE_URL is no address: {error}", hint=hint
        ) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("ANTHROPIC_BASE_URL is no address of HTTP", hint=hint)
    return url


def _headers(credentials: Credentials) -> Headers:
    pairs: list[tuple[bytes, bytes]] = []
    if credentials.api_key:
        pairs.append((b"x-api-key", credentials.api_key.encode("latin-1")))
    if credentials.auth_token:
        bearer = f"Bearer {credentials.auth_token}"
        pairs.append((b"authorization", bearer.encode("latin-1")))
    return tuple(pairs)


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


def _reason(error: Exception) -> str:
    """What went wrong, in the words nearest to the cause."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    words = str(cause) or str(error) or type(error).__name__
    return " ".join(words.split())[:_REASON_CHARS]
