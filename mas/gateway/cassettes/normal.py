"""What a recording must not hold, and what differs from run to run. Pure.

Three things happen to a text. Secrets are masked, for good. What this run alone calls
by its name (its folders, its task, its session) becomes a placeholder, which a replay
turns into its own names: exactly reversible. And for comparing two requests, noise is
taken out: dates, ids, durations, the CLI's reminders.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from msgspec import Struct

SECRET = "{secret}"
_KEY_OF_ANTHROPIC = r"sk-ant-[\w-]{8,}"

_MIN_ID_CHARS = 8
"""A shorter id stands in too many words to be taken for one."""

_PLACEHOLDER = re.compile(
    r"\{(=*)(workspace|folder|task|task_hex|session|spilled [1-9]\d*)\}"
)
_SPILLED = re.compile(r"/tool-results/[\w.-]*\w")
"""The file into which the CLI puts a result that is too long; its name is random."""
_BEFORE_SPILLED = re.compile(r".*saved to:? (?=/)")
_MAX_PATH_CHARS = 4_096


class Secrets:
    """Masks what must not be kept: the values it was given, and Anthropic's keys."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values if value for form in _forms(value)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        patterns = [*map(re.escape, longest_first), _KEY_OF_ANTHROPIC]
        self._pattern = re.compile("|".join(patterns))

    def mask(self, text: str) -> str:
        return self._pattern.sub(SECRET, text)

    def are_in(self, data: bytes) -> bool:
        return bool(self._pattern.search(data.decode("utf-8", "replace")))


def _forms(secret: str) -> Iterator[str]:
    """The secret as it stands in a text, in JSON inside of a text, and in a URL."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    for safe in ("", "/"):
        yield quote(secret, safe=safe, errors="replace")


class Names(Struct, frozen=True, kw_only=True):
    """What one run calls what every run has. An empty one is not there."""

    workspace: str = ""
    """Absolute path of the subtask's folder."""
    real_workspace: str = ""
    """The same without symbolic links."""
    task: str = ""
    session: str = ""
    spilled: tuple[str, ...] = ()
    """Files with long results, in the order in which the history names them."""

    def values(self) -> dict[str, str]:
        """The names by their placeholders, without braces."""
        found = {
            "workspace": _path(self.workspace),
            "folder": _parent(self.workspace),
            "task": _id(self.task),
            "task_hex": _id(self.task).replace("-", ""),
            "session": _id(self.session),
            **{f"spilled {at}": path for at, path in enumerate(self.spilled, 1)},
        }
        return {key: value for key, value in found.items() if value}


def spilled(texts: Iterable[str]) -> tuple[str, ...]:
    """The files named in these results of tools, each once."""
    found = (path for text in texts for path in _spilled(text))
    return tuple(dict.fromkeys(found))


def _spilled(text: str) -> Iterator[str]:
    for name in _SPILLED.finditer(text):
        start = max(
            text.rfind("\n", 0, name.start()) + 1, name.start() - _MAX_PATH_CHARS
        )
        if before := _BEFORE_SPILLED.match(text, start, name.start() + 1):
            yield text[before.end() : name.end()]


class Placeholders:
    """Puts placeholders for a run's names, and names for placeholders."""

    def __init__(self, names: Names) -> None:
        self._values = names.values()
        keys = {value: key for key, value in reversed(self._values.items())}
        if real := _path(names.real_workspace):
            keys.setdefault(real, "workspace")
            keys.setdefault(_parent(real), "folder")
        keys.pop("", None)
        self._keys = keys
        # The longest first: a workspace is inside of its task's folder.
        patterns = map(_bounded, sorted(keys, key=len, reverse=True))
        self._names = re.compile("|".join(patterns)) if keys else None

    def put(self, text: str) -> str:
        """Put placeholders for the names; what looks like one is marked with ``=``."""
        if "{" in text:
            text = _PLACEHOLDER.sub(r"{=\1\2}", text)
        if self._names is None:
            return text
        return self._names.sub(lambda found: f"{{{self._keys[found[0]]}}}", text)

    def resolve(self, text: str) -> str:
        """Undo ``put`` with the names of this run; a name it has not stays as it is."""
        return _PLACEHOLDER.sub(self._resolved, text) if "{" in text else text

    def _resolved(self, found: re.Match[str]) -> str:
        marks, key = found.groups()
        if marks:
            return f"{{{marks[1:]}{key}}}"
        return self._values.get(key, found[0])


def _bounded(name: str) -> str:
    # /x/load is not in /y/x/load and not in /x/load_more.
    before, after = (r"(?<![\w.-])", r"(?![\w-])") if name.startswith("/") else ("", "")
    return f"{before}{re.escape(name)}{after}"


def _path(path: str) -> str:
    return path if len(path) > 1 else ""


def _parent(path: str) -> str:
    return _path(str(PurePosixPath(path).parent)) if path else ""


def _id(name: str) -> str:
    return name if len(name) >= _MIN_ID_CHARS else ""


_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
_NOISE: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.DOTALL), instead)
    for pattern, instead in (
        (r"gitStatus:.*", ""),
        (r"\bcc_version=[\w.]+", "cc_version={version}"),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "{uuid}"),
        (r"\b(?:msg|toolu|srvtoolu|mcptoolu|req)_[A-Za-z0-9]+", "{id}"),
        (r"\bagentId: \w+", "agentId: {id}"),
        (r"\b(subagent_tokens|total_tokens|duration_ms): \d+", r"\1: {number}"),
        (r"(127\.0\.0\.1|localhost|\[::1\]):\d+", r"\1:{port}"),
        (
            r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?"
            r"(?:Z|[+-]\d\d:?\d\d)?)?",
            "{date}",
        ),
        (rf"\b{_DAY}{_MONTH} +\d{{1,2}}\b(?:,? \d{{4}}\b)?", "{date}"),
        (rf"\b{_DAY}\d{{1,2}} {_MONTH}(?: \d{{4}})?\b", "{date}"),
        (r"\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?\b", "{time}"),
        (r"\b(pid|process)([ =:#]+)\d+", r"\1\2{pid}"),
        (r"\bPID([ =:#]+)\d+", r"PID\1{pid}"),
        (
            r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|sec|secs|seconds|minutes)\b",
            "{duration}",
        ),
        (r"\b0x[0-9a-fA-F]{6,}\b", "{address}"),
        (r"/tmp/tmp\w{6,}", "/tmp/{temp}"),
    )
]


def without_noise(text: str) -> str:
    """What remains of a text when all is gone that two runs of the same may differ in.

    For comparing alone: a date that means something is noise here as well.
    """
    text = "".join(_without_reminders(text))
    for pattern, instead in _NOISE:
        text = pattern.sub(instead, text)
    return text.strip()


def _without_reminders(text: str) -> Iterator[str]:
    # No pattern: one that looks for the end of each beginning takes for ever.
    opening, closing = "<system-reminder>", "</system-reminder>"
    at = 0
    while (start := text.find(opening, at)) >= 0:
        end = text.find(closing, start)
        if end < 0:
            break
        yield text[at:start]
        at = end + len(closing)
    yield text[at:]


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The JSON value with every string in it changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(each, change) for each in value]
    return value
