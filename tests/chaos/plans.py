"""Random plans for fake agents, and what may befall a run. Pure, given the dice."""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import Any

from msgspec import Struct

from mas.testing import Fault

_FATAL_ACTS = ("crash", "leave", "garbage", "bad_text", "stop")
"""The agent is lost."""
_FAILED_ACTS = ("fail", "no_result", "bad_result")
"""The attempt fails, and the next one waits a second."""
_MOST_FATAL, _MOST_FAILED = 4, 3


class Injury(StrEnum):
    """What is done to a run while it works."""

    KILL_SUPERVISOR = "kill -9 supervisor"
    INTERRUPT = "SIGINT"
    INTERRUPT_TWICE = "SIGINT twice"
    TERMINATE = "SIGTERM"
    HANG_UP = "SIGHUP"
    KILL_AGENT = "kill -9 agent"
    STOP_AGENT = "SIGSTOP agent"
    GARBAGE = "garbage on an agent's pipe"
    KILL_CLAUDE = "kill -9 Claude CLI"
    KILL_POSTMASTER = "kill -9 postmaster"
    KILL_BACKEND = "kill -9 PostgreSQL backend"
    KILL_VALKEY = "kill -9 valkey"
    KILL_KEEPER = "kill -9 keeper"

    @property
    def ends_the_run(self) -> bool:
        return self in _ENDING

    @property
    def hits_an_agent(self) -> bool:
        return self in _AT_AGENTS

    @property
    def hits_a_server(self) -> bool:
        return not self.ends_the_run and not self.hits_an_agent


_ENDING = (
    Injury.KILL_SUPERVISOR,
    Injury.INTERRUPT,
    Injury.INTERRUPT_TWICE,
    Injury.TERMINATE,
    Injury.HANG_UP,
)
_AT_AGENTS = (
    Injury.KILL_AGENT,
    Injury.STOP_AGENT,
    Injury.GARBAGE,
    Injury.KILL_CLAUDE,
)
_AT_REAL_AGENTS = (Injury.KILL_AGENT, Injury.KILL_CLAUDE, Injury.STOP_AGENT)


class Planned(Struct, frozen=True):
    """An injury, and when: so many events after the beginning, and a moment later."""

    injury: Injury
    after_events: int
    delay_s: float


class Course(Struct, frozen=True, kw_only=True):
    """All that is decided about a run before it begins."""

    subtasks: Sequence[dict[str, Any]]
    injuries: Sequence[Planned]
    planner_faults: Sequence[Fault]
    session_faults: Sequence[Fault]
    """Before the first turn of one session, where agents are real."""


def random_course(dice: Random, *, real: bool) -> Course:
    """Draw a run. Every subtask of it succeeds in the end, whatever happens.

    So at most one act and one injury take its agent from a subtask: at the third loss
    it would fail, rightly.
    """
    subtasks = _subtasks(dice, dice.randint(2, 4) if real else dice.randint(5, 25))
    if not real:
        _spread(dice, subtasks, _FATAL_ACTS, dice.randint(0, _MOST_FATAL))
        _spread(dice, subtasks, _FAILED_ACTS, dice.randint(0, _MOST_FAILED))
    others = [it for it in Injury if not it.hits_an_agent]
    kinds = dice.choices(others, k=dice.randint(1, 4))
    if dice.random() < 0.5:
        at_agents = _AT_REAL_AGENTS if real else _AT_AGENTS[:-1]
        kinds.append(dice.choice(at_agents))
    events = 4 + 3 * len(subtasks)
    injuries = [
        Planned(kind, dice.randint(1, events), round(dice.uniform(0, 0.4), 3))
        for kind in kinds
    ]
    return Course(
        subtasks=subtasks,
        injuries=sorted(injuries, key=lambda planned: planned.after_events),
        planner_faults=_faults(dice, 0.2),
        session_faults=_faults(dice, 0.7) if real else [],
    )


def _subtasks(dice: Random, number: int) -> list[dict[str, Any]]:
    subtasks: list[dict[str, Any]] = []
    for index in range(number):
        earlier = [subtask["key"] for subtask in subtasks]
        needs = dice.sample(earlier, min(index, dice.choice((0, 1, 1, 2, 3))))
        act = dice.choice(("ok", f"slow:{dice.randint(20, 800)}"))
        subtasks.append(
            {"key": f"s{index}", "dependencies": needs, "input_data": {"acts": [act]}}
        )
    return subtasks


def _spread(
    dice: Random, subtasks: Sequence[dict[str, Any]], acts: Sequence[str], number: int
) -> None:
    """Put an act before the good ones of so many subtasks that have none yet."""
    spared = [task for task in subtasks if len(task["input_data"]["acts"]) == 1]
    for task in dice.sample(spared, min(number, len(spared))):
        task["input_data"]["acts"].insert(0, dice.choice(acts))


def _faults(dice: Random, likelihood: float) -> list[Fault]:
    """Nothing, or what Claude's API may do."""
    if dice.random() >= likelihood:
        return []
    return [
        dice.choice(
            (
                Fault.status(529),
                Fault.status(500),
                Fault.status(429, retry_after_s=1),
                Fault.cut(after_events=2),
            )
        )
    ]
