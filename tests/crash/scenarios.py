"""The runs that are killed: their plans, who works on them, how each would end."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from mas.testing import Conversation, Script, plan, planner
from mas.testing.fake_agent import digest
from tests.crash.verdict import Expected
from tests.scripts import scripted

DYING = ("tests.crash.dying",)
"""The module that runs mas to a point; ``python -m`` it."""

_FAKE = (sys.executable, "-m", "tests.crash.stand_in")


class Scenario(StrEnum):
    """What happens in a run besides its death."""

    PLAIN = "plain"
    """The supervisor dies; one subtask fails at first."""
    TROUBLED = "troubled"
    """The supervisor dies, and agents crash and hang as well."""
    RESUMED = "resumed"
    """It has died before, and dies again while it goes on."""
    INTERRUPTED = "interrupted"
    """It is asked to stop, and dies meanwhile."""
    DISCONNECTED = "disconnected"
    """PostgreSQL ends its connection in the midst of it."""
    REAL = "real"
    """The supervisor dies; its agents and their Claude CLI are the real ones."""
    AGENT = "agent"
    """The same, but it is an agent that dies."""
    AGENT_INTERRUPTED = "agent interrupted"
    """An agent dies while the supervisor, asked to stop, wants it to end."""

    @property
    def kills_agent(self) -> bool:
        return self in (Scenario.AGENT, Scenario.AGENT_INTERRUPTED)

    @property
    def is_real(self) -> bool:
        return self is Scenario.REAL or self.kills_agent

    @property
    def exit_code(self) -> int:
        """Of the first command, where nothing dies."""
        stopped = (Scenario.INTERRUPTED, Scenario.AGENT_INTERRUPTED)
        return 130 if self in stopped else 0


Subtasks = Sequence[Mapping[str, Any]]


def _does(key: str, *needs: str, acts: Sequence[str] = ("ok",)) -> dict[str, Any]:
    return {"key": key, "dependencies": list(needs), "input_data": {"acts": acts}}


_PLAIN = (
    _does("top"),
    _does("left", "top"),
    _does("right", "top"),
    _does("join", "left", "right"),
    _does("report", "join"),
    _does("aside", acts=["fail", "ok"]),
)
"""A diamond, a chain behind it, and one that stands alone and needs a second try."""

_TROUBLED = (
    _does("top", acts=["crash", "ok"]),
    _does("left", "top", acts=["leave", "ok"]),
    _does("right", "top"),
    _does("join", "left", "right"),
    _does("aside", acts=["deaf", "ok"]),
)
_INTERRUPTED = (_does("top"), _does("slow", "top", acts=["slow:2000", "ok"]))
_REAL = ({"key": "first"}, {"key": "second", "dependencies": ["first"]})

PLANS: Mapping[Scenario, Subtasks] = {
    Scenario.PLAIN: _PLAIN,
    Scenario.TROUBLED: _TROUBLED,
    Scenario.RESUMED: _PLAIN,
    Scenario.INTERRUPTED: _INTERRUPTED,
    Scenario.DISCONNECTED: _PLAIN,
    Scenario.REAL: _REAL,
    Scenario.AGENT: _REAL,
    Scenario.AGENT_INTERRUPTED: _REAL,
}


def script_of(subtasks: Subtasks, ledger: Path, *, real: bool = False) -> Script:
    """Who answers the planner and, where the agents are real, their sessions."""
    if real:
        return scripted(tuple(map(dict, subtasks)), {})
    noted = [
        {"description": f"do {task['key']}"}
        | dict(task)
        | {"input_data": {"ledger": str(ledger)} | task.get("input_data", {})}
        for task in subtasks
    ]
    return Script([Conversation(planner, [[plan(noted)]])])


def expected_of(subtasks: Subtasks, *, real: bool = False) -> Expected:
    """How a plan ends of which each subtask succeeds sooner or later."""
    needs = {task["key"]: list(task.get("dependencies", ())) for task in subtasks}
    digests: dict[str, str] = {}
    while missing := [key for key in needs if key not in digests]:
        for key in missing:
            if all(needed in digests for needed in needs[key]):
                digests[key] = digest(key, (digests[it] for it in needs[key]))
    return Expected(
        status="completed",
        subtasks=dict.fromkeys(needs, "completed"),
        data={key: {} if real else {"digest": digests[key]} for key in needs},
        needs=needs,
    )


def configuration(
    prefixes: Mapping[str, Sequence[str]], *, settings: str = "", limits: str = ""
) -> str:
    """A mas.toml whose agents are started with these prefixes."""
    agents = "".join(
        f'[agents.{name}]\ncapabilities = ["code_generation"]\n'
        f"command = {json.dumps(list(prefix))}\n"
        for name, prefix in prefixes.items()
    )
    supervisor = f"[supervisor]\nshutdown_grace_s = 1.5\n{settings}"
    return f"{agents}{supervisor}\n[limits]\n{limits}"


def prefixes_of(
    scenario: Scenario, number: int, dying: Sequence[str] = ()
) -> dict[str, Sequence[str]]:
    """Each agent's command prefix; ``dying`` is what follows DYING for an agent."""
    if scenario.kills_agent:
        return {"agent_1": [sys.executable, "-m", *DYING, *dying, "--"]}
    prefix = () if scenario is Scenario.REAL else _FAKE
    return {f"agent_{index}": prefix for index in range(1, number + 1)}
