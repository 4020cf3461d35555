"""The first wave of a run: the first request fills the prompt cache for the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import anyio
from msgspec import DecodeError, Raw, Struct, ValidationError, json

from mas.gateway.exchange import Request

_LEAST_BYTES = 4096
"""Claude caches no prefix below 1024 tokens, at about four bytes each."""
_MOST_BYTES = 32 * 2**20
"""Claude takes no larger request."""
_PER_CONVERSATION = b"x-anthropic-billing-header:"
"""Starts a block that the CLI puts first: it differs from prompt to prompt."""


class _Prefix(Struct):
    model: str
    system: Raw = Raw(b"")
    tools: Raw = Raw(b"")


class _Block(Struct):
    text: str = ""


def prefix_key(body: bytes) -> str | None:
    """What requests share that share a cached prefix: model, system and tools, hashed.

    None where there is too little to be cached, or the body is no such request.
    """
    if not _LEAST_BYTES <= len(body) <= _MOST_BYTES:
        return None
    try:
        prefix = json.decode(body, type=_Prefix)
        system = _shared_blocks(prefix.system)
    except (DecodeError, ValidationError, UnicodeDecodeError):
        return None
    if sum(map(len, system)) + len(prefix.tools) < _LEAST_BYTES:
        return None
    parts = (prefix.model.encode(), bytes(prefix.tools), *system)
    return sha256(b"\0".join(parts)).hexdigest()


def _shared_blocks(system: Raw) -> list[bytes]:
    """The blocks of a system prompt, without what is different in each conversation."""
    written = bytes(system)
    if _PER_CONVERSATION not in written or not written.startswith(b"["):
        return [written]
    own = _PER_CONVERSATION.decode()
    return [
        bytes(block)
        for block in json.decode(system, type=list[Raw])
        if not json.decode(block, type=_Block).text.startswith(own)
    ]


class Place:
    """A request's place in the first wave."""

    def __init__(self, opened: anyio.Event | None = None) -> None:
        self._opened = opened

    def began(self) -> None:
        """Its answer has begun: the cache is filled, the others may go."""
        if self._opened is not None:
            self._opened.set()


class FirstWave:
    """Lets the first request of each prefix go ahead, once in a run.

    Those that share its prefix wait until its answer has begun, it has ended in
    whatever way, or ``wait_s`` have passed since it came; later ones do not wait.
    ``wait_s`` 0: nobody waits.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waves: dict[str, _Wave] = {}

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[Place]:
        """Wait for one's turn; leave when the answer has ended, and ``began`` before.

        The first one in reports it; to the others ``began`` means nothing.
        """
        key = self._key(request)
        if key is None:
            yield Place()
            return
        if (wave := self._waves.get(key)) is not None:
            with anyio.CancelScope(deadline=wave.deadline):
                await wave.opened.wait()
            wave.opened.set()
            yield Place()
            return
        wave = self._waves[key] = _Wave(anyio.current_time() + self._wait_s)
        try:
            yield Place(wave.opened)
        finally:
            wave.opened.set()

    def _key(self, request: Request) -> str | None:
        is_message = request.method == "POST" and request.path == "/v1/messages"
        return prefix_key(request.body) if self._wait_s > 0 and is_message else None


class _Wave:
    """Who waits for the first request of a prefix."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.opened = anyio.Event()
