"""The tables that commands print: agents, tasks, a task, the doctor's checks. Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from msgspec import Struct
from rich.cells import cell_len
from rich.console import RenderableType

from mas.cli.details import shown_status, task_details
from mas.cli.footer import STYLES
from mas.cli.grid import Column, Drawing, Line, table
from mas.cli.summary import block
from mas.cli.text import Glyphs, age, duration
from mas.core.view import State
from mas.model import AgentStatus, Status, Task

__all__ = [
    "Check",
    "CheckState",
    "agents_table",
    "doctor_table",
    "task_details",
    "tasks_table",
]

_LATE_S = 30
"""A heartbeat this old is coloured: three were due."""

_LEAST_DETAIL = 24
"""In fewer cells a check's detail goes below its name."""

_ALL = 1000
"""Lines: what the doctor says is not shortened."""

_AGENT_COLUMNS = (
    Column("agent"),
    Column("pid", right=True, rank=4),
    Column("state"),
    Column("subtask", flexible=True, least=8),
    Column("capabilities", flexible=True, least=10, rank=5),
    Column("CPU", right=True, rank=2),
    Column("memory", right=True, rank=1),
    Column("done", right=True, rank=3),
    Column("heartbeat", right=True),
)

_TASK_COLUMNS = (
    Column(gap=1),
    Column("task"),
    Column("status"),
    Column("age", right=True, rank=1),
    Column("time", right=True, rank=2),
    Column("description", flexible=True, least=8),
)


class CheckState(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Check(Struct, frozen=True):
    """One thing that ``mas doctor`` looked at, and what to do where it is not well."""

    name: str
    state: CheckState
    detail: str
    hint: str = ""


def agents_table(agents: Sequence[AgentStatus], *, now: datetime) -> RenderableType:
    """Every agent, under its supervisor where there are several supervisors."""
    ordered = sorted(
        agents, key=lambda each: (each.supervisor, _counted(each.agent_id))
    )
    groups = [
        list(group) for _, group in groupby(ordered, lambda each: each.supervisor)
    ]

    def draw(width: int, glyphs: Glyphs) -> list[Line]:
        rows = [_agent(agent, now) for agent in ordered]
        heading, *lines = table(_AGENT_COLUMNS, rows, width, glyphs)
        if not ordered:
            return [heading, [(glyphs.crop("no agent is running", width), "dim")]]
        if len(groups) < 2:
            return [heading, *lines]
        shown = [heading]
        for group in groups:
            shown.append([(glyphs.crop(group[0].supervisor, width), "bold")])
            shown += lines[: len(group)]
            del lines[: len(group)]
        return shown

    return Drawing(draw)


def _counted(agent_id: str) -> list[tuple[int, str]]:
    """Sorts agent_10 behind agent_9."""
    parts = re.findall(r"\d+|\D+", agent_id)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _agent(agent: AgentStatus, now: datetime) -> Line:
    busy = agent.current_task is not None or not agent.is_available
    silent_s = (now - agent.last_heartbeat).total_seconds()
    memory = agent.memory_usage
    return [
        (agent.agent_id, "bold" if busy else ""),
        (str(agent.pid), ""),
        ("busy" if busy else "idle", STYLES[State.RUNNING] if busy else ""),
        (agent.current_task or "", ""),
        (", ".join(agent.capabilities), "dim"),
        (f"{agent.cpu_usage:.0f}%", ""),
        (f"{memory:.0f} MiB" if memory < 1000 else f"{memory / 1024:.1f} GiB", ""),
        (str(agent.tasks_completed), ""),
        (f"{age(silent_s)} ago", "yellow" if silent_s > _LATE_S else ""),
    ]


def tasks_table(tasks: Iterable[Task], *, now: datetime) -> RenderableType:
    """Every task, newest first."""
    ordered = sorted(tasks, key=lambda task: task.created_at, reverse=True)

    def draw(width: int, glyphs: Glyphs) -> list[Line]:
        rows = [_task(task, now, glyphs) for task in ordered]
        lines = table(_TASK_COLUMNS, rows, width, glyphs)
        if not rows:
            lines.append([(glyphs.crop("no task is recorded", width), "dim")])
        return lines

    return Drawing(draw)


def _task(task: Task, now: datetime, glyphs: Glyphs) -> Line:
    status, state = shown_status(task)
    return [
        (glyphs.states[state], STYLES[state]),
        (task.id[:8], "bold" if state is State.RUNNING else ""),
        (status, STYLES[state] if state is not State.COMPLETED else ""),
        (age((now - task.created_at).total_seconds()), ""),
        (_time(task, now), ""),
        (task.description, ""),
    ]


def _time(task: Task, now: datetime) -> str:
    """From its creation to its end, or as far as it has come."""
    status = task.shown_status
    if task.status is Status.PENDING:
        return ""
    end = now if status == Status.IN_PROGRESS else task.finished_at or task.updated_at
    return duration((end - task.created_at).total_seconds())


def doctor_table(checks: Sequence[Check]) -> RenderableType:
    """Every check with what was found, below it what to do, and the verdict."""

    def draw(width: int, glyphs: Glyphs) -> list[Line]:
        names = max((cell_len(glyphs.visible(each.name)) for each in checks), default=0)
        indent = names + 4 if width - names - 4 >= _LEAST_DETAIL else 2
        lines = [
            line for each in checks for line in _check(each, indent, width, glyphs)
        ]
        verdict = block(_verdict(checks), width, glyphs, most=_ALL)
        return [*lines, [], *([(text, "bold")] for text in verdict)]

    return Drawing(draw)


_CHECK_STATES = {
    CheckState.OK: State.COMPLETED,
    CheckState.WARNING: State.RETRY,
    CheckState.WRONG: State.FAILED,
}


def _check(check: Check, indent: int, width: int, glyphs: Glyphs) -> list[Line]:
    """A check, its texts ``indent`` cells from the left, and nothing left out."""
    state = _CHECK_STATES[check.state]
    warning = check.state is CheckState.WARNING
    sign = "!" if warning else glyphs.states[state]
    name = glyphs.crop(check.name, width - 2)
    head: Line = [(f"{sign} ", STYLES[state]), (name, "bold")]
    told = [
        (text, "") for text in block(check.detail, width - indent, glyphs, most=_ALL)
    ]
    if check.hint and check.state is not CheckState.OK:
        hint = block(f"{glyphs.arrow} {check.hint}", width - indent, glyphs, most=_ALL)
        told += [(text, STYLES[state]) for text in hint]
    lines: list[Line] = [[(" " * indent, ""), cell] for cell in told]
    if indent == 2 or not lines:
        return [head, *lines]
    padding = " " * (indent - 2 - cell_len(name))
    return [[*head, (padding, ""), told[0]], *lines[1:]]


def _verdict(checks: Sequence[Check]) -> str:
    wrong = sum(check.state is CheckState.WRONG for check in checks)
    if wrong:
        return f"Not ready: {wrong} of {len(checks)} must be mended before mas can run."
    return "Ready: mas can run."
