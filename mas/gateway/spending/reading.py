"""What an answer's usage fields say, as they come, and the estimate until they do."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from mas.gateway.spending.prices import TokenCounts

CHARACTERS_PER_TOKEN = 4
"""What the output is estimated by while it streams."""

_MOST = 10**12
"""A count above it is none."""
_ITERATED = ("input", "output", "cache_read", "cache_write")


class UsageReading:
    """Tokens of one answer.

    Input is exact from the start. Output is estimated by its characters until the
    figure comes, which is cumulative; what comes after the figure is estimated again.
    """

    def __init__(self) -> None:
        self._counts = TokenCounts()
        self._parts: tuple[TokenCounts, ...] = ()
        self._is_exact = False
        self._characters = 0.0  # since the last exact figure
        self._block_characters = 0.0
        self.is_fast = False
        """Whether it was served faster, at a price of its own."""

    @property
    def counts(self) -> TokenCounts:
        """What was used so far."""
        return structs.replace(self._counts, output=self._output)

    @property
    def parts(self) -> tuple[TokenCounts, ...]:
        """The same by request to the model: a server's tools make several of one."""
        if self._parts and not self.estimated_output:
            return self._parts
        return (self.counts,)

    @property
    def estimated_output(self) -> int:
        """How much of the output is an estimate."""
        if not self._is_exact:
            return self._output
        return self._output - self._counts.output

    @property
    def _output(self) -> int:
        estimate = -int(-self._characters // CHARACTERS_PER_TOKEN)
        if self._is_exact:
            return self._counts.output + estimate
        return max(self._counts.output, estimate)

    def start(self, usage: Mapping[str, Any]) -> None:
        """The usage of ``message_start``: its output is no more than a beginning."""
        self._counts = _read(usage, TokenCounts())
        self.is_fast = usage.get("speed") == "fast"

    def update(self, usage: Mapping[str, Any]) -> None:
        """A usage with an exact output: of ``message_delta``, or of a whole message."""
        self._counts = _read(usage, self._counts)
        self.is_fast = self.is_fast or usage.get("speed") == "fast"
        self._parts = _iterations(usage.get("iterations"), self._counts)
        if _count(usage.get("output_tokens")) is not None:
            self._is_exact = True
            self._characters = self._block_characters = 0.0

    def next_block(self) -> None:
        """Another block of content begins."""
        self._block_characters = 0.0

    def add_characters(self, characters: float) -> None:
        """So much more of the block has come."""
        self._characters += characters
        self._block_characters += characters

    def add_tokens(self, tokens: float) -> None:
        """So many tokens of thinking were made, unseen, by the API's own estimate."""
        if 0 < tokens <= _MOST:
            self.add_characters(tokens * CHARACTERS_PER_TOKEN)

    def sign(self, characters: int) -> None:
        """The block's signature came; it holds, in base64, thinking that is hidden."""
        hidden = characters * 3 / 4
        if hidden > self._block_characters:
            self.add_characters(hidden - self._block_characters)


def _read(usage: Mapping[str, Any], known: TokenCounts) -> TokenCounts:
    """The counts with those replaced that a usage says; absent, null and odd ones stay.

    A zero replaces none but the output: some servers fill up with zeros what
    ``message_start`` has said already.
    """
    five_minutes, one_hour = _cache_writes(usage, known)
    output = _count(usage.get("output_tokens"))
    tools = usage.get("server_tool_use")
    searches = tools.get("web_search_requests") if isinstance(tools, dict) else None
    return TokenCounts(
        input=_count(usage.get("input_tokens")) or known.input,
        output=known.output if output is None else output,
        cache_read=_count(usage.get("cache_read_input_tokens")) or known.cache_read,
        cache_write_5m=five_minutes,
        cache_write_1h=one_hour,
        web_searches=_count(searches) or known.web_searches,
        is_us_only=known.is_us_only or usage.get("inference_geo") == "us",
    )


def _cache_writes(usage: Mapping[str, Any], known: TokenCounts) -> tuple[int, int]:
    """Tokens written to the cache for five minutes, and for an hour."""
    detail = usage.get("cache_creation")
    by_age = detail if isinstance(detail, dict) else {}
    five_minutes = _count(by_age.get("ephemeral_5m_input_tokens"))
    one_hour = _count(by_age.get("ephemeral_1h_input_tokens"))
    total = _count(usage.get("cache_creation_input_tokens"))
    if total is None:
        total = (five_minutes or 0) + (one_hour or 0)
    if not total:
        return known.cache_write_5m, known.cache_write_1h
    for_an_hour = min(known.cache_write_1h if one_hour is None else one_hour, total)
    return total - for_an_hour, for_an_hour


def _iterations(found: Any, whole: TokenCounts) -> tuple[TokenCounts, ...]:
    """The requests that a usage lists, where they add up to the whole; else none."""
    if not isinstance(found, list):
        return ()
    parts = [
        _read(part, TokenCounts(is_us_only=whole.is_us_only))
        for part in found
        if isinstance(part, dict) and part.get("type") == "message"
    ]
    if not parts or any(
        _sum(parts, kind) != getattr(whole, kind) for kind in _ITERATED
    ):
        return ()
    hours = whole.cache_write_1h - _sum(parts, "cache_write_1h")
    if hours:
        return ()
    first = structs.replace(parts[0], web_searches=whole.web_searches)
    return (first, *parts[1:])


def _sum(parts: Iterable[TokenCounts], kind: str) -> int:
    return sum(getattr(part, kind) for part in parts)


def _count(value: Any) -> int | None:
    """A count of tokens; None where the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= _MOST else None
