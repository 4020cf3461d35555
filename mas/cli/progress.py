"""The live screen of a run: task, stages, subtasks, subagents. Pure: view → Rich.

A DAG is no tree, so each subtask has one row, stage by stage, and names all that it
needs. Where rows are short those that a person looks for stay; the rest is counted.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from msgspec import Struct
from rich.cells import cell_len
from rich.console import RenderableType

from mas.cli.footer import STYLES, footer
from mas.cli.grid import Cell, Column, Drawing, Line, Lines, arrange
from mas.cli.selection import Row, select
from mas.cli.summary import ended_as, summary
from mas.cli.text import Glyphs, duration, name_some, sentences, span, wait
from mas.cli.usage import cost_cell, tokens_cell
from mas.core.view import AgentState, RunView, State, SubtaskView

__all__ = ["render", "summary"]

_SAMPLE = 200
"""Column widths come from so many subtasks, so that they stay as rows come and go."""

_WIDE, _MEDIUM = 90, 60
"""In fewer cells needs and last are left out; in still fewer agent, tokens, cost."""

_MOVING = (State.RUNNING, State.RETRY)
_TROUBLED = (State.RETRY, State.FAILED, State.BLOCKED)


def render(
    view: RunView,
    *,
    now: datetime,
    width: int,
    height: int,
    glyphs: Glyphs | None = None,
    is_summed_up: bool = False,
) -> RenderableType:
    """The screen of ``view`` at ``now``, at most ``width`` by ``height``.

    Without ``glyphs`` it is drawn with what the console's encoding can show. Where it
    ``is_summed_up`` below the screen, nothing is said here that the summary says.
    """

    def draw(glyphs: Glyphs) -> list[Line]:
        frame = _Frame(view, now, max(1, width), glyphs, is_summed_up)
        return _draw(frame, max(1, height))

    return Lines(draw(glyphs)) if glyphs else Drawing(lambda _, found: draw(found))


def _draw(frame: "_Frame", height: int) -> list[Line]:
    view = frame.view
    if not view.subtasks:
        return [*frame.header(), *frame.notes(), *frame.opening()][:height]
    head = frame.header() if height >= 3 else []
    head += frame.notes()[: max(0, (height - 5) // 3)]
    foot: list[Line] = [[]] if height >= 10 else []
    foot.append(footer(view, frame.now, frame.width, frame.glyphs))
    return [*head, *frame.table(height - len(head) - len(foot)), *foot]


class _Frame(Struct, frozen=True):
    view: RunView
    now: datetime
    width: int
    glyphs: Glyphs
    is_summed_up: bool

    def header(self) -> list[Line]:
        """The task, and its id, by which other commands know it."""
        view = self.view
        words = [view.status.value] if view.status.is_final else []
        words += [ended_as(view)] if view.suspended else []
        words += [view.task_id[:8]] if view.task_id else []
        right = self.glyphs.visible(f" {self.glyphs.dot} ".join(words))
        if self.width < _MEDIUM:
            right = ""
        room = self.width - (cell_len(right) + 2 if right else 0)
        left = self.glyphs.crop(view.description or "task", room)
        return [[(left, "bold"), ("  " if right else "", ""), (right, "dim")]]

    def notes(self) -> list[Line]:
        """What holds for the task as a whole, one line each, worst first."""
        notes = self._now()
        if not self.is_summed_up:
            notes = [*self._end(), *notes, *self._notices()]
        return [self._sentence(f"! {text}", style) for text, style in notes]

    def _end(self) -> list[Cell]:
        """Why it did not end well."""
        view, notes = self.view, list[Cell]()
        if view.error:
            notes.append((view.error, "red"))
        if view.suspended:
            why = f"{ended_as(view)}: {view.suspended.reason}"
            told = sentences(why, view.suspended.hint)
            notes.append((told, "yellow"))
        return notes

    def _now(self) -> list[Cell]:
        """What is waited for, and who is not there."""
        view, notes = self.view, list[Cell]()
        if view.waiting and view.subtasks:
            since = "" if view.waiting_until else f", for {self._waited()}"
            notes.append((f"{self._waiting(view.waiting)}{since}", "yellow"))
        for agent in view.agents.values():
            if agent.state is AgentState.RETIRED:
                told = f"{agent.id} is out of this run: {agent.error}"
                notes.append((told, "red"))
            elif agent.state is AgentState.LOST:
                notes.append((f"{agent.id} starts again: {agent.error}", "yellow"))
        return notes

    def _notices(self) -> list[Cell]:
        texts = [self.view.warning, *(it.text for it in self.view.notices)]
        return [(text, "yellow") for text in texts if text]

    def opening(self) -> list[Line]:
        """What there is to see before there is a plan."""
        view = self.view
        if view.status.is_final or view.suspended:
            return []
        sign = self.glyphs.states[State.RUNNING]
        doing = self._waiting(view.waiting) if view.waiting else "planning"
        if not (view.waiting and view.waiting_until):
            doing += f"{self.glyphs.ellipsis} {self._waited()}"
        ready = [a.id for a in view.agents.values() if a.state is AgentState.READY]
        told = f"{len(ready)} ready: {', '.join(ready)}" if ready else "starting"
        return [
            self._sentence(f"{sign} {doing}", STYLES[State.RUNNING]),
            [("  ", ""), (self.glyphs.crop(f"agents {told}", self.width - 2), "dim")],
        ]

    def _waiting(self, reason: str) -> str:
        until = self.view.waiting_until
        return wait(reason, (until - self.now).total_seconds() if until else None)

    def _waited(self) -> str:
        since = self.view.waiting_since if self.view.waiting else self.view.started_at
        return span((self.now - (since or self.now)).total_seconds())

    def _sentence(self, text: str, style: str) -> Line:
        return [(self.glyphs.crop(text, self.width), style)]

    def table(self, room: int) -> list[Line]:
        """Heading, rows and, where not all fit, what the others do; ``room`` lines."""
        heading = room >= 4
        selection = select(self.view, room - heading)
        columns = _columns(self.view, self.width, self.glyphs)
        titles: list[Cell] = [(column.heading, "dim") for column in columns]
        rows = [titles, *self._rows(selection.rows)]
        lines = arrange(columns, rows, self.width, self.glyphs)[not heading :]
        if selection.folded:
            told = f"{self.glyphs.ellipsis} {selection.folded}"
            lines.append(self._sentence(told, "dim"))
        return lines

    def _rows(self, rows: list[Row]) -> Iterator[Line]:
        """The cells of ``rows``; a bracket holds each stage together."""
        stages = [0, *(row.subtask.stage for row in rows), 0]
        digits = len(str(next(reversed(self.view.subtasks.values())).stage))
        for at, row in enumerate(rows, start=1):
            first, last = stages[at] != stages[at - 1], stages[at] != stages[at + 1]
            number = str(stages[at]) if first else ""
            stage = f"{number:>{digits}} {self.glyphs.bracket(first, last)}"
            cells = self._subagent(row) if row.is_below else self._subtask(row.subtask)
            yield [(stage, "dim"), *cells]

    def _subtask(self, subtask: SubtaskView) -> Line:
        visible, state = self.glyphs.visible, subtask.state
        style, usage = STYLES[state], subtask.usage
        aside = "" if state in _MOVING or state is State.FAILED else "dim"
        took_s = subtask.elapsed_s(self.now)
        last = visible(self.view.last(subtask, self.now))
        troubled = state in _TROUBLED
        told = last if troubled and self.width < _WIDE else visible(subtask.description)
        return [
            (self.glyphs.states[state], style),
            (visible(subtask.id), "bold" if state in _MOVING else ""),
            (told, aside),
            (visible(name_some(subtask.needs, _needs_most(self.width))), "dim"),
            (visible(subtask.agent_id or ""), style if state in _MOVING else ""),
            ("" if took_s is None else duration(took_s), ""),
            (tokens_cell(usage), ""),
            (cost_cell(usage), ""),
            (last, "yellow" if subtask.held else style if troubled else aside),
        ]

    def _subagent(self, row: Row) -> Line:
        glyphs, branch = self.glyphs, self.glyphs.branch
        if row.subagent is None:
            more = f"{row.more} more subagents"
            return [("", ""), (f"{branch} {glyphs.ellipsis}", "dim"), (more, "dim")]
        subagent = row.subagent
        state = _SUBAGENT_STATES.get(subagent.status, State.RUNNING)
        style = STYLES[state] if subagent.is_active else "dim"
        name, activity = map(glyphs.visible, (subagent.id, subagent.activity))
        sign = (f"{branch} {glyphs.states[state]}", style)
        if self.width < _WIDE:
            return [("", ""), sign, (f"{name}: {activity}", "dim")]
        between = [("", "")] * 5
        return [("", ""), sign, (name, "dim"), *between, (activity, "dim")]


_SUBAGENT_STATES = {"completed": State.COMPLETED, "failed": State.FAILED}


def _needs_most(width: int) -> int:
    return max(8, width // 10)


def _columns(view: RunView, width: int, glyphs: Glyphs) -> list[Column]:
    """Columns as wide as the plan asks for, so that rows come and go in place."""
    sample = list(islice(view.subtasks.values(), _SAMPLE))
    wide, medium = width >= _WIDE, width >= _MEDIUM
    name = max(cell_len(glyphs.visible(each.id)) for each in sample)
    told = max(cell_len(glyphs.visible(each.description)) for each in sample)
    needs_most, name_most = _needs_most(width), max(8, width // 5)
    needs = max(cell_len(", ".join(each.needs[:needs_most])) for each in sample)
    last = max(24, width // 3)
    return [
        Column("stage" if wide else "", right=True, gap=1),
        Column(gap=1),
        Column(most=name_most, floor=max(3, min(name, name_most))),
        Column("subtask", floor=told if wide else width, flexible=True, least=8),
        Column("needs", most=needs_most * wide, floor=min(needs, needs_most) * wide),
        Column("agent", most=12 * medium),
        Column("time", right=True, most=7, floor=5, gap=1),
        Column("tokens", right=True, most=7 * medium, gap=1),
        Column("cost", right=True, most=9 * medium, floor=5 * medium),
        Column("last", most=last * wide, floor=last * wide, flexible=True, least=8),
    ]
