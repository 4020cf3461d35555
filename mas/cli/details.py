"""What ``mas show`` prints of a task: its subtasks, their attempts, errors, results."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath

from rich.console import RenderableType

from mas.cli.footer import STYLES
from mas.cli.grid import Cell, Column, Drawing, Line, table
from mas.cli.spending import Told
from mas.cli.summary import behind, block, file_lines
from mas.cli.text import Glyphs, age, duration, sentences, span
from mas.cli.usage import cost_cell, cost_words, token_words, tokens_cell
from mas.core.result import inside_output
from mas.core.view import RunView, State
from mas.model import ModelCall, Status, Subtask, SubtaskResult, Task, Usage

_TEXT_LINES = 40
"""Of an error or a summary; no person reads more in a terminal."""

_FILES_SHOWN = 50

_STATES = {
    Status.PENDING: State.PENDING,
    Status.IN_PROGRESS: State.RUNNING,
    Status.COMPLETED: State.COMPLETED,
    Status.FAILED: State.FAILED,
    Status.CANCELLED: State.CANCELLED,
}

_COLUMNS = (
    Column(gap=1),
    Column("subtask", flexible=True, least=8),
    Column("status"),
    Column("agent", rank=3),
    Column("time", right=True, rank=1),
    Column("tokens", right=True, rank=4),
    Column("cost", right=True, rank=5),
    Column("result", flexible=True, least=8, rank=2),
)


def shown_status(task: Task) -> tuple[str, State]:
    """The word for a task's status and the state whose sign and colour it gets."""
    word = task.shown_status
    return word, _STATES[task.status] if word == task.status else State.RETRY


def task_details(
    task: Task,
    results: Sequence[SubtaskResult],
    view: RunView,
    *,
    now: datetime,
    folder: Path | None = None,
    calls: Sequence[ModelCall] = (),
    lists_calls: bool = False,
) -> RenderableType:
    """All of a task that a person wants to know; ``results`` has a row an attempt.

    ``view`` is the fold of the task's journal: it says what the subtasks do. ``folder``
    is the task's, absolute. ``calls`` are its calls of Claude, by their start: they are
    added up and, where it ``lists_calls``, listed. Print it with ``crop=False``, for
    the paths' sake.
    """

    def draw(width: int, glyphs: Glyphs) -> list[Line]:
        width = max(20, width)
        told = _Details(task, results, view, now, width, glyphs, calls)
        called = Told(calls, width, glyphs)
        return [
            *told.head(),
            *told.subtasks(),
            *told.errors(),
            *called.sums(),
            *(called.each() if lists_calls else ()),
            *told.results(),
            *told.files(folder),
        ]

    return Drawing(draw)


class _Details:
    def __init__(
        self,
        task: Task,
        results: Sequence[SubtaskResult],
        view: RunView,
        now: datetime,
        width: int,
        glyphs: Glyphs,
        calls: Sequence[ModelCall],
    ) -> None:
        self.task = task
        self.calls = calls
        self.view = view
        self.statuses = view.statuses()
        self.now = now
        self.width = width
        self.glyphs = glyphs
        self.planned = task.plan.subtasks if task.plan else ()
        self.attempts: dict[str, list[SubtaskResult]] = {}
        for result in sorted(results, key=lambda result: result.attempt):
            self.attempts.setdefault(result.subtask_id, []).append(result)

    def head(self) -> Iterator[Line]:
        task, (status, state) = self.task, shown_status(self.task)
        yield from self._text("", "", task.description, "bold")
        parts = [
            status,
            f"created {age((self.now - task.created_at).total_seconds())} ago",
        ]
        if task.finished_at:
            took_s = (task.finished_at - task.created_at).total_seconds()
            parts.append(f"took {span(took_s)}")
        total = self._total()
        if total.tokens:
            parts.append(token_words(total, self.view.budget_tokens))
            parts.append(cost_words(total, self.view.budget_usd))
        text = f" {self.glyphs.dot} ".join(part for part in parts if part)
        yield from self._text(self.glyphs.states[state], STYLES[state], text, "")
        yield from self._text("", "", task.id, "dim")
        if task.error:
            yield from self._text("!", "red", task.error, "red")
        if state is State.RETRY:
            told = sentences(task.suspended or "", *self._hints())
            yield from self._text("!", "yellow", told, "yellow")

    def _hints(self) -> list[str]:
        """What to do about a task that nobody works on any more."""
        said = self.view.suspended.hint if self.view.suspended else ""
        go_on = f"go on with mas resume {self.task.id}"
        return [said] if "mas resume" in said else [said, go_on]

    def _total(self) -> Usage:
        """What the task took; of one without recorded calls what its attempts say."""
        attempts = (each for all_ in self.attempts.values() for each in all_)
        return sum((each.usage for each in self.calls or attempts), Usage())

    def subtasks(self) -> Iterator[Line]:
        """A row a subtask; below it one an attempt, where there were several."""
        rows: list[Line] = []
        for subtask in self.planned:
            attempts = self.attempts.get(subtask.id, [])
            rows.append(self._row(subtask, attempts))
            if len(attempts) > 1:
                rows += [self._attempt(attempt) for attempt in attempts]
        yield []
        if rows:
            yield from table(_COLUMNS, rows, self.width, self.glyphs)
        else:
            yield [(self.glyphs.crop("there is no plan yet", self.width), "dim")]

    def _row(self, subtask: Subtask, attempts: list[SubtaskResult]) -> list[Cell]:
        status, state = self._status(subtask.id)
        used = sum((each.usage for each in attempts), Usage())
        latest = attempts[-1] if attempts else None
        return [
            (self.glyphs.states[state], STYLES[state]),
            (subtask.id, "bold"),
            (status, STYLES[state] if state is not State.COMPLETED else ""),
            (latest.agent_id if latest else "", ""),
            (self._took(latest) if latest else "", ""),
            (tokens_cell(used), ""),
            (cost_cell(used), ""),
            (_said(latest) if latest else subtask.description, "dim"),
        ]

    def _attempt(self, attempt: SubtaskResult) -> list[Cell]:
        texts = [
            f"{self.glyphs.branch} try {attempt.attempt}",
            attempt.status.value,
            attempt.agent_id,
            self._took(attempt),
            tokens_cell(attempt.usage),
            cost_cell(attempt.usage),
            _said(attempt),
        ]
        return [("", ""), *((text, "dim") for text in texts)]

    def _took(self, attempt: SubtaskResult) -> str:
        if attempt.execution_time is not None:
            return duration(attempt.execution_time)
        if (
            attempt.finished_at is None
            and shown_status(self.task)[1] is not State.RUNNING
        ):
            return ""
        end = attempt.finished_at or self.now
        return duration((end - attempt.started_at).total_seconds())

    def _status(self, subtask_id: str) -> tuple[str, State]:
        """What a subtask does, with the sign of one that nobody works on any more."""
        status, state = self.statuses[subtask_id], self.view.subtasks[subtask_id].state
        if state is State.RUNNING and self.task.owner_alive is False:
            state = State.RETRY
        return status.value, state

    def errors(self) -> Iterator[Line]:
        """Why subtasks failed, or are to be tried again, in full."""
        told: list[Line] = []
        for key, attempts in self.attempts.items():
            state, latest = self.view.subtasks[key].state, attempts[-1]
            if not latest.error or state not in (State.FAILED, State.RETRY):
                continue
            again = f"try {latest.attempt} failed, another follows: "
            why = f"{again if state is State.RETRY else ''}{latest.error}"
            sign = self.glyphs.states[state]
            told += self._text(sign, STYLES[state], f"{key}: {why}", "")
        if told:
            yield []
            yield from told

    def results(self) -> Iterator[Line]:
        """The task's result in words."""
        said = (self.task.result or {}).get("summary")
        if isinstance(said, str) and said.strip():
            yield []
            yield from self._text("", "", said, "")

    def files(self, folder: Path | None) -> Iterator[Line]:
        """Where everything is that the subtasks made."""
        home = PurePosixPath(folder) if folder else None
        paths = (self.task.result or {}).get("files") or self._created(home)
        if paths:
            yield []
            shown = [str(path) for path in paths]
            yield from file_lines(shown, self.glyphs, most=_FILES_SHOWN)
        elif home and self.attempts:
            yield []
            yield from file_lines([str(home)], self.glyphs, most=1)

    def _created(self, home: PurePosixPath | None) -> list[PurePosixPath]:
        """The files that completed subtasks name, while the task has no result."""
        found = []
        for key, attempts in self.attempts.items():
            named = (attempts[-1].output or {}).get("files_created")
            if home is None or not isinstance(named, list):
                continue
            output = home / key / "output"
            inside = (inside_output(str(path), output) for path in named)
            found += [output / path for path in inside if path]
        return found

    def _text(self, sign: str, style: str, text: str, text_style: str) -> list[Line]:
        lines = block(text, self.width - 2, self.glyphs, most=_TEXT_LINES)
        return behind(sign, style, lines, text_style)


def _said(attempt: SubtaskResult) -> str:
    """The attempt's own words, or why it has none."""
    said = (attempt.output or {}).get("summary")
    return said if isinstance(said, str) and not attempt.error else attempt.error or ""
