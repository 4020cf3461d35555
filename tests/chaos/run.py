"""One run among random faults: started, injured, gone on with, judged."""

import shutil
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

from mas import keeper
from mas.errors import MasError
from mas.keeper import Lease
from mas.testing import Conversation, Script, ScriptedClaude
from tests.chaos.injuries import EXIT_CODES, inflict
from tests.chaos.plans import Course, Injury, Planned, random_course
from tests.chaos.scorecard import Recovery, Result
from tests.crash.command import Command, Surroundings
from tests.crash.evidence import Recording, executions, keys_without_ttl, recorded
from tests.crash.scenarios import (
    Scenario,
    configuration,
    expected_of,
    prefixes_of,
    script_of,
)
from tests.crash.verdict import Evidence, Fault, Kind, judge
from tests.keeper.support import answers, until
from tests.scripts import diligent, scripted

MOST_COMMANDS = 20
"""Far more than there are injuries: who needs more does not come to an end."""

_SERVERS_BACK_S = 60.0
_FAKE_AGENTS = 4
_SETTINGS = """\
heartbeat_s = 0.5
agent_ttl_s = {ttl_s}
max_restarts = 50
outage_timeout_s = 60
"""
_LIMITS = "max_attempts = 6\nattempt_timeout_s = 60\n"
_PROGRESS = ("attempt_started", "attempt_finished", "task_finished")
_NOT_READY, _BUSY, _SUSPENDED = 3, 2, 4


def chaos_run(home: Path, folder: Path, seed: str, *, real: bool) -> Result:
    """Draw a run by its seed, and run it. Its folder is kept where it goes wrong."""
    folder.mkdir()
    course = random_course(Random(seed), real=real)
    result = Result(seed=seed, real=real, story=str(folder))
    with ScriptedClaude(_script(course, folder / "ledger", real=real)) as claude:
        where = Surroundings(home=home, folder=folder, claude_url=claude.url)
        run = _Run(where, course, result)
        try:
            run.to_its_end()
        except (AssertionError, MasError, OSError, ValueError) as error:
            run.blame(Kind.BROKEN, str(error))
        result.faults += [Fault(Kind.BROKEN, error) for error in claude.errors]
    faults = (*course.planner_faults, *course.session_faults)
    result.api_faults = len(faults)
    if result.faults:
        run.tell_story()
    else:
        shutil.rmtree(folder)
    return result


def _script(course: Course, ledger: Path, *, real: bool) -> Script:
    faults = tuple(course.planner_faults)
    if real:
        unlucky = course.subtasks[0]["key"]
        sick = diligent(unlucky, before=tuple(course.session_faults))
        script = scripted(tuple(course.subtasks), {unlucky: sick})
    else:
        script = script_of(course.subtasks, ledger)
    first, *others = script.conversations
    turns = [step.turn for step in first.steps if step.turn is not None]
    return Script([Conversation(first.match, [*faults, *turns]), *others])


class _Run:
    """A run; its injuries come when so many events have been seen, in all commands."""

    def __init__(self, where: Surroundings, course: Course, result: Result) -> None:
        self._where = where
        self._course = course
        self._result = result
        self._dice = Random(result.seed + " victims")
        self._description = f"chaos {where.folder}"
        self._waiting = list(course.injuries)
        self._began = time.monotonic()
        self._seen = 0
        self._notes: list[str] = []
        self._commands: list[Command] = []
        self._earlier: list[Recording] = []
        self._behind: list[threading.Thread] = []
        self._open: list[tuple[Injury, float]] = []
        """Injuries after which no progress has been seen yet, and when they came."""
        self._lock = threading.Lock()

    def to_its_end(self) -> None:
        """Call mas until the task is finished, and judge what has become of it."""
        self._configure()
        arguments: list[str] | None = ["run", self._description, "--json"]
        with _joined(self._where.home):
            while arguments is not None and len(self._commands) < MOST_COMMANDS:
                self._call(arguments)
                arguments = self._following()
            for thread in self._behind:
                thread.join()
            self._judge()

    def blame(self, kind: Kind, text: str) -> None:
        with self._lock:
            self._result.faults.append(Fault(kind, text))

    def tell_story(self) -> None:
        """Write down what happened, in order, next to the workspaces."""
        seed = f"seed {self._result.seed!r}, real: {self._result.real}"
        faults = [str(fault) for fault in self._result.faults]
        said = [command.said for command in self._commands]
        story = "\n".join([seed, *faults, "", *self._notes, "", *said])
        self._result.told = story
        (self._where.folder / "story").write_text(story + "\n")

    def _configure(self) -> None:
        real = self._result.real
        scenario = Scenario.REAL if real else Scenario.PLAIN
        text = configuration(
            prefixes_of(scenario, 2 if real else _FAKE_AGENTS),
            settings=_SETTINGS.format(ttl_s=15 if real else 5),
            limits=_LIMITS,
        )
        (self._where.folder / "mas.toml").write_text(text)

    def _call(self, arguments: list[str]) -> None:
        """Run one command to its end, with the injuries that fall into its time."""
        self._note(f"mas {' '.join(arguments)}")
        command = Command(self._where, arguments, ("mas",))
        self._commands.append(command)
        inflicted: list[Injury] = []
        timers: list[threading.Timer] = []

        def note(event: dict[str, Any]) -> None:
            self._seen += 1
            self._note(str(event))
            if event["type"] in _PROGRESS:
                self._recovered()
            while self._waiting and self._waiting[0].after_events <= self._seen:
                planned = self._waiting.pop(0)
                timers.append(self._set(planned, command, inflicted))

        code = command.follow(note)
        for timer in timers:
            timer.cancel()
            timer.join()
        self._note(f"exit code {code}")
        self._check_code(code, command, inflicted)
        if self._dice.random() < 0.5:
            self._look_behind(command)
        else:  # meanwhile it is gone on with
            thread = threading.Thread(target=self._look_behind, args=[command])
            thread.start()
            self._behind.append(thread)

    def _set(
        self, planned: Planned, command: Command, inflicted: list[Injury]
    ) -> threading.Timer:
        def strike() -> None:
            pid = command.process.pid
            greeted = {
                event["pid"]
                for event in list(command.events)
                if event["type"] == "agent_ready"
            }
            home = self._where.home
            done = inflict(planned.injury, pid, greeted, home, self._dice)
            if done is None:
                return
            self._note(done)
            inflicted.append(planned.injury)
            with self._lock:
                self._result.injuries.append(planned.injury)
                self._open.append((planned.injury, time.monotonic()))

        timer = threading.Timer(planned.delay_s, strike)
        timer.start()
        return timer

    def _recovered(self) -> None:
        with self._lock:
            since, self._open = self._open, []
        now = time.monotonic()
        self._result.recoveries += [Recovery(it, now - at) for it, at in since]

    def _check_code(self, code: int, command: Command, done: list[Injury]) -> None:
        """An exit code must be one that something that was done can explain."""
        allowed = {0}
        for injury in done:
            if injury in EXIT_CODES:
                # Before mas takes a signal over, it ends by the signal itself.
                allowed |= {EXIT_CODES[injury], 128 - EXIT_CODES[injury]}
        if any(it.hits_a_server for it in self._result.injuries):
            allowed |= {_NOT_READY, _SUSPENDED}  # a server was just being started
        if code == _BUSY and "is being worked on" in command.said:
            return  # PostgreSQL has not noticed yet that the owner is gone
        if code not in allowed:
            self.blame(Kind.BROKEN, f"exit code {code}: {command.said.strip()}")

    def _look_behind(self, command: Command) -> None:
        for left in command.left_behind():
            self.blame(Kind.ORPHAN, left)

    def _following(self) -> list[str] | None:
        """What to call next; None where the task is finished."""
        with _joined(self._where.home) as lease:
            found = recorded(lease.servers, self._description)
        if found.is_final:
            return None
        if not found.tasks:
            return ["run", self._description, "--json"]
        self._earlier.append(found)
        return ["resume", found.id, "--json"]

    def _judge(self) -> None:
        with _joined(self._where.home) as lease:
            final = recorded(lease.servers, self._description)
            keys = keys_without_ttl(lease.servers)
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
        expected = expected_of(self._course.subtasks, real=self._result.real)
        self._result.faults += judge(evidence, expected)
        self._result.faults += [Fault(Kind.KEY, key) for key in keys]
        self._result.commands = len(self._commands)
        self._result.completed = len(
            {row.subtask_id for row in final.rows if row.status == "completed"}
        )

    def _note(self, text: str) -> None:
        self._notes.append(f"{time.monotonic() - self._began:8.3f}  {text}")


def _joined(home: Path) -> Lease:
    """The home's servers, as soon as they answer: they may just have been killed."""

    def answer() -> bool:
        with keeper.join(home) as lease:
            return answers(lease.servers)

    until(answer, "the servers answer again", timeout_s=_SERVERS_BACK_S)
    return keeper.join(home)
