"""Which rows a screen shows where not all fit, and what is said of the others."""

from collections import Counter
from heapq import nlargest

from msgspec import Struct

from mas.core.view import RunView, State, SubagentView, SubtaskView

_SUBAGENTS_SHOWN = 4
"""Of one subtask; where it has more the last of these rows counts them."""

_THEN = (State.READY, State.PENDING, State.BLOCKED)
"""What is shown after all that moves or failed, and before what ended otherwise."""

_WORDS = {State.COMPLETED: "done", State.READY: "queued", State.PENDING: "queued"}


class Row(Struct, frozen=True):
    """A subtask, or below it one of its subagents, or how many more it has."""

    subtask: SubtaskView
    subagent: SubagentView | None = None
    more: int = 0

    @property
    def is_below(self) -> bool:
        return self.subagent is not None or self.more > 0


class Selection(Struct, frozen=True):
    rows: list[Row]
    """Stage by stage."""
    folded: str = ""
    """What those do that have no row: 127 more: 70 done, 57 queued."""


def select(view: RunView, room: int) -> Selection:
    """The rows for ``room`` lines, where one more line tells of those left out."""
    subtasks = list(view.subtasks.values())
    below = {
        subtask.id: _subagents(subtask) for subtask in subtasks if subtask.subagents
    }
    if len(subtasks) + sum(map(len, below.values())) <= room:
        return Selection(_rows(subtasks, below))
    shown, below = _most_wanted(subtasks, below, max(0, room - 1))
    folded = _told([subtask for subtask in subtasks if subtask.id not in shown])
    rows = _rows([subtask for subtask in subtasks if subtask.id in shown], below)
    return Selection(rows, (folded or "more subagents") if room > 0 else "")


def _rows(subtasks: list[SubtaskView], below: dict[str, list[Row]]) -> list[Row]:
    return [
        row
        for subtask in subtasks
        for row in (Row(subtask), *below.get(subtask.id, ()))
    ]


def _most_wanted(
    subtasks: list[SubtaskView], below: dict[str, list[Row]], room: int
) -> tuple[set[str], dict[str, list[Row]]]:
    """The ids of the subtasks that get one of ``room`` rows, and the rows below."""
    by_state: dict[State, list[SubtaskView]] = {state: [] for state in State}
    for subtask in subtasks:
        by_state[subtask.state].append(subtask)
    shown: set[str] = set()

    def show(wanted: list[SubtaskView]) -> None:
        nonlocal room
        taken = wanted[:room]
        shown.update(subtask.id for subtask in taken)
        room -= len(taken)

    show(by_state[State.RUNNING])
    show(by_state[State.RETRY])
    show(nlargest(room, by_state[State.FAILED], key=_ended_at))
    for key, rows in below.items():
        below[key] = rows[: room if key in shown else 0]
        room -= len(below[key])
    for state in _THEN:
        show(by_state[state])
    ended = [*by_state[State.COMPLETED], *by_state[State.CANCELLED]]
    show(nlargest(room, ended, key=_ended_at))
    return shown, below


def _ended_at(subtask: SubtaskView) -> float:
    return subtask.finished_at.timestamp() if subtask.finished_at else 0.0


def _told(hidden: list[SubtaskView]) -> str:
    """What those without a row do."""
    words = Counter(_WORDS.get(each.state, each.state.value) for each in hidden)
    parts = ", ".join(f"{number} {word}" for word, number in words.most_common())
    return f"{len(hidden)} more: {parts}" if hidden else ""


def _subagents(subtask: SubtaskView) -> list[Row]:
    """The rows below ``subtask``: what works is shown before what has ended."""
    subagents = list(subtask.subagents.values())
    if len(subagents) <= _SUBAGENTS_SHOWN:
        return [Row(subtask, subagent) for subagent in subagents]
    wanted = sorted(subagents, key=lambda subagent: not subagent.is_active)
    kept = {subagent.id for subagent in wanted[: _SUBAGENTS_SHOWN - 1]}
    rows = [Row(subtask, each) for each in subagents if each.id in kept]
    return [*rows, Row(subtask, more=len(subagents) - len(rows))]
