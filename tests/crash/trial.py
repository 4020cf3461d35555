"""One trial: a run that is killed at a point, gone on with, and judged."""

import shutil
import signal
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from mas.keeper import Servers
from mas.testing import ScriptedClaude
from tests.crash.command import Command, Surroundings
from tests.crash.evidence import (
    Recording,
    disconnect_owner,
    executions,
    keys_without_ttl,
    recorded,
)
from tests.crash.points import Point, Side, calls_in
from tests.crash.scenarios import (
    DYING,
    PLANS,
    Scenario,
    configuration,
    expected_of,
    prefixes_of,
    script_of,
)
from tests.crash.verdict import Evidence, Fault, Kind, judge

_MOST_RESUMES = 5
_FIRST_DEATH = Point("mas.supervisor.journal:Journal.append", Side.LEAVES, 4)
"""Where the run dies first whose resumption is what the trial is about."""

_BUSY = "is being worked on"
"""PostgreSQL may need a moment to notice that the owner is gone."""

_LIMITS = {Scenario.TROUBLED: "attempt_timeout_s = 1\n"}


class Arena(Struct, frozen=True, kw_only=True):
    """Servers that trials share, and a folder for what they make."""

    home: Path
    servers: Servers
    folder: Path


class Trial(Struct, kw_only=True):
    """How it went. The folder is kept where there are faults."""

    scenario: Scenario
    point: Point | None
    folder: Path
    reached: bool = False
    seconds: float = 0.0
    calls: Counter[str] = Counter()
    """How often each function was entered, where the process was instrumented."""
    faults: list[Fault] = []
    story: str = ""
    """What mas said, the journal and the ledger, where there are faults."""


def attempt_trial(
    arena: Arena, scenario: Scenario, point: Point | None = None
) -> Trial:
    """Run the scenario, dying at the point; None is the undisturbed run."""
    name = f"{scenario} {point}".replace("/", " ").replace("<locals>", "in")
    folder = arena.folder / f"{name} {uuid.uuid4().hex[:6]}"
    folder.mkdir()
    trial = Trial(scenario=scenario, point=point, folder=folder)
    began = time.monotonic()
    script = script_of(PLANS[scenario], folder / "ledger", real=scenario.is_real)
    with ScriptedClaude(script) as claude:
        where = Surroundings(home=arena.home, folder=folder, claude_url=claude.url)
        run = _Run(arena.servers, trial, where)
        try:
            run.to_its_end()
        except (TimeoutError, ValueError) as error:
            run.blame(Kind.BROKEN, str(error))
        trial.faults += [Fault(Kind.BROKEN, error) for error in claude.errors]
    trial.faults += [Fault(Kind.KEY, key) for key in keys_without_ttl(arena.servers)]
    trial.seconds = time.monotonic() - began
    if trial.faults:
        told = "\n".join([*map(str, trial.faults), trial.story])
        (folder / "story").write_text(told + "\n")
    else:
        shutil.rmtree(folder)
    return trial


class _Run:
    """A task from its first command to its end, however many it takes."""

    def __init__(self, servers: Servers, trial: Trial, where: Surroundings) -> None:
        self._servers = servers
        self._trial = trial
        self._where = where
        self._description = f"crash {trial.folder.name}"
        self._earlier: list[Recording] = []
        self._commands: list[Command] = []
        self._calls = where.folder / "calls"
        self._is_disturbed = False

    def to_its_end(self) -> None:
        """Start, die, go on, and judge."""
        trial = self._trial
        self._configure()
        if trial.scenario.kills_agent:
            code = self._call(("mas",), self._beginning())
            self._expect(code, trial.scenario.exit_code)
            trial.reached = (self._where.folder / "died").exists()
        else:
            following = self._beginning()
            if trial.scenario is Scenario.RESUMED:
                self._die(_FIRST_DEATH, following)
                following = self._continuation() or following
            trial.reached = self._die(trial.point, following)
        for _ in range(_MOST_RESUMES):
            arguments = self._continuation()
            if arguments is None:
                break
            code = self._call(("mas",), arguments)
            if _BUSY not in self._commands[-1].said:
                self._expect(code, 0)
        if self._calls.exists():
            trial.calls = calls_in(self._calls.read_text())
        self._judge()

    def blame(self, kind: Kind, text: str) -> None:
        self._trial.faults.append(Fault(kind, text))

    def _configure(self) -> None:
        scenario, folder = self._trial.scenario, self._where.folder
        point = self._trial.point
        dying = ["--once", str(folder / "died"), "--calls", str(folder / "calls")]
        prefixes = prefixes_of(
            scenario, 1 if scenario.is_real else 3, dying=[*dying, str(point or "-")]
        )
        text = configuration(prefixes, limits=_LIMITS.get(scenario, ""))
        (folder / "mas.toml").write_text(text)

    def _beginning(self) -> list[str]:
        return ["run", self._description, "--json"]

    def _continuation(self) -> list[str] | None:
        """What to call next; None where the task is finished."""
        found = recorded(self._servers, self._description)
        if found.is_final:
            return None
        if not found.tasks:
            return self._beginning()
        self._earlier.append(found)
        return ["resume", found.id, "--json"]

    def _die(self, point: Point | None, arguments: Sequence[str]) -> bool:
        """Run to the point; whether it was reached."""
        calls = ["--calls", str(self._calls)] if point is None else []
        dying = [*calls, str(point) if point else "-", "--", *arguments]
        code = self._call(DYING, dying)
        if code != -signal.SIGKILL:
            self._expect(code, self._trial.scenario.exit_code)
        return code == -signal.SIGKILL

    def _call(self, runner: Sequence[str], arguments: Sequence[str]) -> int:
        command = Command(self._where, arguments, runner)
        self._commands.append(command)
        is_first = len(self._commands) == 1
        code = command.follow(partial(self._disturb, command) if is_first else _nothing)
        # Going on at once, while something of the former run is still there, is tried
        # by one half of the points, and after it by the other.
        if self._trial.point is None or self._trial.point.side is Side.ENTERS:
            self._look_behind(command)
        return code

    def _disturb(self, command: Command, event: dict[str, Any]) -> None:
        """Do, at an event of its first command, what the scenario says."""
        kind = event["type"]
        match self._trial.scenario:
            case Scenario.INTERRUPTED:
                is_time = kind == "attempt_started" and event["subtask_id"] == "slow"
            case Scenario.AGENT_INTERRUPTED:
                is_time = kind == "attempt_progress"
            case Scenario.DISCONNECTED:
                is_time = kind == "attempt_finished" and event["subtask_id"] == "top"
            case _:
                return
        if self._is_disturbed or not is_time:
            return
        self._is_disturbed = True
        if self._trial.scenario is Scenario.DISCONNECTED:
            disconnect_owner(self._servers, event["task_id"])
        else:
            command.process.send_signal(signal.SIGINT)

    def _look_behind(self, command: Command) -> None:
        for left in command.left_behind():
            self.blame(Kind.ORPHAN, left)

    def _expect(self, code: int, expected: int) -> None:
        if code != expected:
            said = self._commands[-1].said.strip()
            self.blame(Kind.BROKEN, f"exit code {code}, not {expected}: {said}")

    def _judge(self) -> None:
        for command in self._commands:
            self._look_behind(command)
        final = recorded(self._servers, self._description)
        plan = PLANS[self._trial.scenario]
        shown = [it for command in self._commands for it in command.events]
        evidence = Evidence(
            tasks=final.tasks,
            status=final.status,
            journal=final.journal,
            rows=final.rows,
            ledger=executions(self._where.folder / "ledger"),
            shown=[it for it in shown if "seq" in it],
            earlier=[recording.journal for recording in self._earlier],
        )
        expected = expected_of(plan, real=self._trial.scenario.is_real)
        faults = judge(evidence, expected)
        self._trial.faults += faults
        if self._trial.faults:
            said = "\n".join(command.said for command in self._commands)
            story = "\n".join(map(str, [*final.journal, *evidence.ledger]))
            self._trial.story = f"{said}\n{story}"


def _nothing(event: dict[str, Any]) -> None:
    """Later commands are left alone."""
