"""Text as a terminal may get it: made harmless, measured in cells, numbers short.

Descriptions, activities and errors come from a model. Nothing of them is interpreted:
no escape sequence, no markup, no change of direction.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from unicodedata import category

from msgspec import Struct
from msgspec.structs import astuple, replace
from rich.cells import cell_len, chop_cells, set_cell_size

from mas.core.view import State

_MAX_CHARS = 10_000
"""No line shows more; a longer text is cut before it is looked at."""

_JOINERS = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff")
"""Dropped: how wide joined characters are, terminals disagree; apart, they agree."""


class Glyphs(Struct, frozen=True):
    """The signs of a screen, and what else its encoding can take."""

    encoding: str
    states: dict[State, str]
    ellipsis: str
    dot: str
    arrow: str
    done: str
    failed: str
    rest: str
    """The three parts of the bar."""
    only: str
    first: str
    between: str
    end: str
    """A stage's bracket."""
    branch: str
    """Leads to a subagent."""

    def visible(self, text: str) -> str:
        """``text`` as one harmless line that the encoding can take."""
        return visible(text, self.encoding)

    def bracket(self, first: bool, last: bool) -> str:
        """The part of a bracket beside the first row of several, the last, or both."""
        if first:
            return self.only if last else self.first
        return self.end if last else self.between

    def crop(self, text: str, width: int) -> str:
        """``text``, visible, in at most ``width`` cells."""
        return fit(self.visible(text), width, self.ellipsis)


UNICODE = Glyphs(
    encoding="utf-8",
    # None of these is drawn as an emoji, two cells wide, by any terminal: ▶ would be.
    states=dict(zip(State, "·◌○►↻✓✗⊘", strict=True)),
    ellipsis="…",
    dot="·",
    arrow="→",
    done="━",
    failed="╍",
    rest="─",
    only="╶",
    first="┌",
    between="│",
    end="└",
    branch="└",
)

ASCII = Glyphs(
    encoding="ascii",
    states=dict(zip(State, ".:o>~+x-", strict=True)),
    ellipsis="...",
    dot="-",
    arrow="->",
    done="=",
    failed="x",
    rest="-",
    only="|",
    first="|",
    between="|",
    end="|",
    branch="`",
)


@lru_cache(16)
def glyphs_for(encoding: str | None) -> Glyphs:
    """The glyphs that a stream of ``encoding`` can show."""
    name = (encoding or "ascii").lower()
    encoding, states, *others = astuple(UNICODE)
    try:
        "".join([*states.values(), *others]).encode(name)
    except UnicodeEncodeError:
        return replace(ASCII, encoding=name)
    except LookupError:
        return ASCII
    return UNICODE if name in (encoding, "utf8") else replace(UNICODE, encoding=name)


@lru_cache(4096)
def visible(text: str, encoding: str = "utf-8") -> str:
    """``text`` as one harmless line; runs of white space become one space."""
    return " ".join(harmless(text[:_MAX_CHARS], encoding).split())


def harmless(text: str, encoding: str = "utf-8") -> str:
    """``text`` without anything that a terminal would act upon.

    White space becomes blanks, other control characters ``^[``, ``\\x9b``, ``\\u202e``.
    """
    if not text.isprintable() or not _JOINERS.isdisjoint(text):
        text = "".join(map(_shown, text))
    if encoding == "utf-8":
        return text
    return text.encode(encoding, "replace").decode(encoding)


def _shown(char: str) -> str:
    kind = category(char)
    if char in _JOINERS:
        return ""
    if char.isspace() and char not in "\x1c\x1d\x1e\x1f":
        return " "
    if kind == "Cc" and char < "\x80":
        return "^" + chr(ord(char) ^ 0x40)
    # Cf turns the direction of what follows, Cs cannot be encoded.
    return ascii(char)[1:-1] if kind in ("Cc", "Cf", "Cs") else char


def fit(text: str, width: int, ellipsis: str) -> str:
    """``text`` in at most ``width`` cells, with ``ellipsis`` where it is cut."""
    if cell_len(text) <= width:
        return text
    kept = width - len(ellipsis)
    if kept <= 0:
        return set_cell_size(text, max(0, width))
    return set_cell_size(text, kept).rstrip() + ellipsis


def wrap(text: str, width: int) -> list[str]:
    """``text``, visible already, in lines of at most ``width`` cells."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        lines += [line] if line else []
        *full, line = chop_cells(word, max(2, width)) or [""]
        lines += full
    return [*lines, line] if line else lines


def name_some(names: Sequence[str], width: int) -> str:
    """``names`` with commas, as many as fit, then how many more there are."""
    for shown in range(min(len(names), width), 0, -1):
        more = len(names) - shown
        line = ", ".join(names[:shown]) + (f" +{more}" if more else "")
        if shown == 1 or cell_len(line) <= width:
            return line
    return ""


def sentences(*parts: str) -> str:
    """``parts``, those that there are, on one line; each but the first capitalised."""
    first, *others = parts
    capital = (part[:1].upper() + part[1:] for part in others)
    return ". ".join(part.rstrip(". ") for part in (first, *capital) if part)


def duration(seconds: float) -> str:
    """41.2s, then as a clock: at most seven cells for a hundred days."""
    return f"{max(0.0, seconds):.1f}s" if seconds < 59.95 else clock(seconds)


def brief(seconds: float) -> str:
    """The same where less than a second matters: 12 ms, 1.2s."""
    return (
        f"{max(0.0, seconds) * 1000:.0f} ms" if seconds < 0.9995 else duration(seconds)
    )


def clock(seconds: float) -> str:
    """0:41, 1:07, 1:02:03, 4d 4h."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """The same in a sentence, in whole seconds: 12 s, 1 min 7 s, 2 h 5 min, 3 days."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if whole < 48 * 3600:
        hours, rest = divmod(whole // 60, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{whole // 86400} days"


def wait(reason: str, left_s: float | None) -> str:
    """What is waited for and, where that is known, for how long: waiting for x, 38 s.

    Where the time is over it is being tried.
    """
    words = f"waiting for {reason}"
    if left_s is None:
        return words
    return f"{words}, {span(ceil(left_s))}" if left_s > 0 else f"{words}, trying again"


def age(seconds: float) -> str:
    """How long ago, in its largest unit: 12 s, 5 min, 3 h, 2 days."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 48 * 3600 else f"{whole // 86400} days"


def tokens(number: int) -> str:
    """980, 18.4k, 1.2M; nothing for none."""
    if number < 1000:
        return str(number or "")
    if number < 999_950:
        return f"{number / 1000:.1f}k"
    return f"{number / 1_000_000:.1f}M"


def cost(dollars: float) -> str:
    """$0.11; nothing for nothing, and what is less than a cent is not nothing."""
    if dollars <= 0:
        return ""
    return f"${dollars:.2f}" if dollars >= 0.005 else "<$0.01"
