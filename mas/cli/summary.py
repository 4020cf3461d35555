"""What is said at the end of a run, left in the scrollback: outcome, results, files."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from os.path import commonpath, relpath

from rich.console import RenderableType

from mas.cli.footer import STYLES, counts_in_words
from mas.cli.grid import Drawing, Line, Lines
from mas.cli.text import Glyphs, harmless, sentences, span, wrap
from mas.cli.usage import cache_share, cache_words, cost_words, token_words
from mas.core.view import RunView, State
from mas.model import Status

_FILES_SHOWN = 12
_FAILURES_SHOWN = 10
_NOTICES_SHOWN = 10
_LINES_SHOWN = 8
"""Of one text that a model wrote; the rest is behind ``mas show``."""

_STATES = {
    Status.COMPLETED: State.COMPLETED,
    Status.FAILED: State.FAILED,
    Status.CANCELLED: State.CANCELLED,
}


def summary(
    view: RunView, *, now: datetime, width: int, glyphs: Glyphs | None = None
) -> RenderableType:
    """How the run ended. Lines fit ``width``; only a path is never broken or cut.

    Print it with ``crop=False``, for the paths' sake. Without ``glyphs`` it is drawn
    with what the console's encoding can show.
    """

    def draw(glyphs: Glyphs) -> list[Line]:
        told = _Summary(view, now, max(10, width), glyphs)
        return [*told.outcome(), *told.failures(), *told.results(), *told.files()]

    return Lines(draw(glyphs)) if glyphs else Drawing(lambda _, found: draw(found))


def ended_as(view: RunView) -> str:
    """The word for how a run ended, also where the task did not."""
    if view.status.is_final:
        return view.status.value
    by_itself = view.suspended and not view.suspended.interrupted
    return "suspended" if by_itself else "interrupted"


class _Summary:
    def __init__(
        self, view: RunView, now: datetime, width: int, glyphs: Glyphs
    ) -> None:
        self.view = view
        self.now = now
        self.width = width
        self.glyphs = glyphs

    def outcome(self) -> Iterator[Line]:
        """What became of the task, in how long and for how much, and why not better."""
        view = self.view
        state = _STATES.get(view.status, State.READY)
        parts = [f"{ended_as(view)} after {span(view.elapsed_s(self.now))}"]
        if view.subtasks:
            done = view.counts[State.COMPLETED]
            others = "".join(text for text, _ in counts_in_words(view, self.glyphs))
            parts += [f"{done} of {len(view.subtasks)} subtasks done", others]
        if view.usage.tokens:
            cached = cache_words(cache_share(view.usage))
            taken = token_words(view.usage, view.budget_tokens)
            parts.append(f"{taken} ({cached})" if cached else taken)
            parts.append(cost_words(view.usage, view.budget_usd))
        text = f" {self.glyphs.dot} ".join(part for part in parts if part)
        style = "yellow" if view.suspended else STYLES[state]
        yield from self._block(self.glyphs.states[state], style, text, "bold")
        if view.error:
            yield from self._block("", "", view.error, "")
        if view.suspended:
            told = sentences(view.suspended.reason, view.suspended.hint)
            yield from self._block("", "", told, "")
        notices = [notice.text for notice in view.notices[:_NOTICES_SHOWN]]
        for note in (view.warning, *notices):
            yield from self._block("!", "yellow", note or "", "yellow")

    def failures(self) -> Iterator[Line]:
        """Each subtask that failed, and why."""
        subtasks = self.view.subtasks.values()
        failed = [each for each in subtasks if each.state is State.FAILED]
        sign, style = self.glyphs.states[State.FAILED], STYLES[State.FAILED]
        for subtask in failed[:_FAILURES_SHOWN]:
            reason = self.view.last(subtask, self.now) or "no reason was given"
            yield from self._block(sign, style, f"{subtask.id}: {reason}", "")
        if more := len(failed[_FAILURES_SHOWN:]):
            yield from self._block(self.glyphs.ellipsis, "dim", f"{more} more", "dim")

    def results(self) -> Iterator[Line]:
        """What those subtasks say of their results that no other needs."""
        needed = {need for each in self.view.subtasks.values() for need in each.needs}
        ends = [key for key in self.view.subtasks if key not in needed]
        told = [(key, text) for key in ends if (text := self._said(key))]
        for key, text in told[:_FAILURES_SHOWN]:
            yield []
            if len(told) > 1:
                yield from self._block("", "", key, "bold")
            yield from self._block("", "", text, "")

    def _said(self, key: str) -> str:
        """The summary in the result of the subtask ``key``, where there is one."""
        found: object = self.view.result
        for name in ("subtasks", key, "result", "summary"):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, str) else ""

    def files(self) -> Iterator[Line]:
        """Where the files are."""
        if self.view.files:
            yield []
            yield from file_lines(self.view.files, self.glyphs, most=_FILES_SHOWN)

    def _block(self, sign: str, style: str, text: str, text_style: str) -> list[Line]:
        lines = block(text, self.width - 2, self.glyphs, most=_LINES_SHOWN)
        return behind(sign, style, lines, text_style)


def block(text: str, width: int, glyphs: Glyphs, *, most: int) -> list[str]:
    """``text`` wrapped, at most so many lines; its own line breaks stay."""
    lines = [
        line
        for paragraph in text.splitlines()
        for line in wrap(glyphs.visible(paragraph), width)
    ]
    return lines if len(lines) <= most else [*lines[: most - 1], glyphs.ellipsis]


def behind(sign: str, style: str, lines: Sequence[str], text_style: str) -> list[Line]:
    """``lines`` with ``sign`` before the first and two blanks before the others."""
    return [
        [(f"{'' if at else sign:<2}", style), (line, text_style)]
        for at, line in enumerate(lines)
    ]


def file_lines(paths: Sequence[str], glyphs: Glyphs, *, most: int) -> Iterator[Line]:
    """Where files are: their folder once, then each below it. Paths are never cut."""
    folder = _folder(paths)
    yield [("files", "dim"), (f"  {_path(folder, glyphs)}" if folder else "", "")]
    for path in paths[:most]:
        shown = relpath(path, folder) if folder else path
        yield [("  ", ""), (_path(shown, glyphs), "")]
    if more := len(paths[most:]):
        where = f" in {_path(folder, glyphs)}" if folder else ""
        yield [("  ", ""), (f"{glyphs.ellipsis} and {more} more{where}", "dim")]


def _path(path: str, glyphs: Glyphs) -> str:
    return harmless(path, glyphs.encoding)


def _folder(paths: Sequence[str]) -> str:
    """The folder that all ``paths`` are in; nothing where there is none."""
    if len(paths) < 2 or not all(path.startswith("/") for path in paths):
        return ""
    return commonpath(paths)
