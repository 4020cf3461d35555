"""The storm: five agents against an upstream that counts, with the gateway and without.

    python -m tests.benchmarks.storm [--agents 5] [--calls 200] [--rate N]

Real agents and CLIs play scripted subtasks whose turns take no time, so that five
agents ask as fast as they can. The upstream, a process of its own, answers everything
beyond N requests a second with 429. N is a third of what the five reach unhindered, if
nothing else is said.

With the gateway it is ``python -m mas run``. Without, the same agents and CLIs ask the
upstream directly: each CLI tries again by itself, as it always does, and a subtask has
three attempts, as in mas.
"""

import argparse
import json
import shutil
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from msgspec import Struct, structs

from mas import keeper
from mas.core.policy import is_retryable, resumes_session, retry_delay_s
from mas.model import Subtask
from mas.wire.messages import (
    AttemptDone,
    ClaudeSettings,
    Configure,
    RunAttempt,
    ServiceSettings,
)
from tests.agent.harness import Agent, agent
from tests.benchmarks.upstream import (
    Figures,
    Part,
    ScriptedProcess,
    figures,
    keys_of,
)
from tests.cli.command import Mas

_SUBTASKS_PER_AGENT = 2
_ATTEMPTS = 3
_DEADLINE_S = 1800
_SHARE_OF_FULL_SPEED = 1 / 3
_MEASURED_TURNS = 8

_NO_SERVICES = ServiceSettings(
    database_dsn="postgresql://nobody@127.0.0.1:1/nothing",
    redis_url="redis://127.0.0.1:1/0",
)


class Outcome(Struct, frozen=True, kw_only=True):
    """How one storm went."""

    subtasks: int
    at_first: int
    """Completed at the first attempt."""
    completed: int
    attempts: int
    seen: Figures


def with_gateway(home: Path, folder: Path, part: Part, *, agents: int = 5) -> Outcome:
    """``mas run``, with all that it does."""
    roster = (
        f'[agents.agent_{i + 1}]\ncapabilities = ["code_generation"]\n'
        for i in range(agents)
    )
    (folder / "mas.toml").write_text("".join(roster))
    with ScriptedProcess(part) as upstream:
        command = Mas(home, folder, ANTHROPIC_BASE_URL=upstream.url)
        with command.start("run", "weather the storm", "--json") as process:
            out, err = process.communicate(timeout=_DEADLINE_S)
        calls = upstream.calls
    assert process.returncode in (0, 1, 4), err.decode()
    events = [json.loads(line) for line in out.splitlines()]
    ended = [event for event in events if event["type"] == "subtask_finished"]
    completed = {it["subtask_id"] for it in ended if it["status"] == "completed"}
    started = [event for event in events if event["type"] == "attempt_started"]
    again = {event["subtask_id"] for event in started if event["attempt"] > 1}
    return Outcome(
        subtasks=part.subtasks,
        at_first=len(completed - again),
        completed=len(completed),
        attempts=len(started),
        seen=figures(calls),
    )


def without_gateway(folder: Path, part: Part, *, agents: int) -> Outcome:
    """The same agents and CLIs, each on its own."""
    with ScriptedProcess(part) as upstream:
        drive = _Drive(folder, part, upstream.url)
        anyio.run(drive.run, agents)
        calls = upstream.calls
    return Outcome(
        subtasks=part.subtasks,
        at_first=sum(drive.tries[key] == 1 for key in drive.completed),
        completed=len(drive.completed),
        attempts=sum(drive.tries.values()),
        seen=figures(calls),
    )


class _Drive:
    """Gives agents the subtasks, one after the other, and those that failed again."""

    def __init__(self, folder: Path, part: Part, url: str) -> None:
        self._folder = folder
        self._url = url
        self._left = deque(keys_of(part))
        self.completed: list[str] = []
        self.tries = dict.fromkeys(self._left, 0)

    async def run(self, agents: int) -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(agents):
                tasks.start_soon(self._work, number)

    async def _work(self, number: int) -> None:
        settings = ClaudeSettings(
            model="claude-sonnet-5-5",
            permission_mode="acceptEdits",
            max_turns=200,
            inactivity_timeout_s=300.0,
            config_dir=str(self._folder / "config"),
            base_url=self._url,
        )
        configuration = Configure(
            supervisor="storm",
            claude=settings,
            services=_NO_SERVICES,
            heartbeat_s=10,
        )
        async with agent(configuration) as started:
            while self._left:
                await self._subtask(started, self._left.popleft())

    async def _subtask(self, started: Agent, key: str) -> None:
        order = RunAttempt(
            task_id="storm",
            task_description="weather the storm",
            subtask=Subtask(id=key, description=f"do {key}"),
            attempt=1,
            session_id=str(uuid.uuid4()),
            workspace=str(self._folder / key),
            database_schema="task_storm",
            token="any",
        )
        while True:
            self.tries[key] += 1
            await started.send(structs.replace(order, attempt=self.tries[key]))
            done = await started.next(AttemptDone, deadline_s=_DEADLINE_S)
            if done.failure is None:
                self.completed.append(key)
                return
            if not is_retryable(done.failure) or self.tries[key] == _ATTEMPTS:
                return
            await anyio.sleep(retry_delay_s(self.tries[key]))
            goes_on = resumes_session(done.failure)
            session_id = order.session_id if goes_on else str(uuid.uuid4())
            order = structs.replace(order, resumes=goes_on, session_id=session_id)


def full_speed_per_s(folder: Path, *, agents: int) -> float:
    """Requests a second of five agents that nobody holds up, at their best second."""
    part = Part(subtasks=agents, turns=_MEASURED_TURNS)
    outcome = without_gateway(folder, part, agents=agents)
    return float(outcome.seen.most_in_a_second)


def table(per_s: float, bare: Outcome, gateway: Outcome) -> str:
    """Both runs side by side."""
    shown: dict[str, Callable[[Outcome], str]] = {
        "subtasks completed": lambda it: f"{it.completed} of {it.subtasks}",
        "  at the first attempt": lambda it: f"{it.at_first} of {it.subtasks}",
        "attempts": lambda it: f"{it.attempts}",
        "calls at the upstream": lambda it: f"{it.seen.calls}",
        "rejected": lambda it: f"{it.seen.rejected}",
        "share rejected": lambda it: f"{it.seen.rejected_share:.1%}",
        "from first call to last": lambda it: f"{it.seen.span_s:.0f} s",
        f"answered a second, of {per_s:g}": lambda it: f"{it.seen.answered_per_s:.1f}",
    }
    rows = [("", "without", "with the gateway")]
    rows += [(name, show(bare), show(gateway)) for name, show in shown.items()]
    return "\n".join(f"{a:<28}{b:>12}{c:>18}" for a, b, c in rows)


@contextmanager
def own_places() -> Iterator[tuple[Path, Path]]:
    """A home with servers, and a folder; both are gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="mas-storm-", dir="/var/tmp"))
    home.chmod(0o755)  # as root, the servers' user must reach it
    try:
        with tempfile.TemporaryDirectory() as folder, keeper.join(home):
            yield home, Path(folder)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.storm")
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rate", type=float, help="requests a second; a third of full")
    parser.add_argument("--counter", default="sliding", help="sliding, fixed, bucket")
    parser.add_argument("--retry-after", type=int, default=1, help="seconds; 0: unsaid")
    return parser.parse_args()


def main() -> int:
    """Print the table; 1 where the gateway does not keep what it promises."""
    arguments = _arguments()
    subtasks = arguments.agents * _SUBTASKS_PER_AGENT
    with own_places() as (home, folder):
        full = full_speed_per_s(folder / "measured", agents=arguments.agents)
        per_s = arguments.rate or max(1.0, round(full * _SHARE_OF_FULL_SPEED))
        part = Part(
            subtasks=subtasks,
            turns=arguments.calls // subtasks,
            per_s=per_s,
            counter=arguments.counter,
            retry_after_s=arguments.retry_after,
        )
        sys.stdout.write(
            f"{arguments.agents} agents, {subtasks} subtasks of {part.turns} calls; "
            f"unhindered they make up to {full:.0f} calls a second, answered are "
            f"{per_s:g} ({part.counter}, retry-after {part.retry_after_s} s)\n\n"
        )
        bare = without_gateway(folder / "bare", part, agents=arguments.agents)
        (folder / "with").mkdir()
        gateway = with_gateway(home, folder / "with", part, agents=arguments.agents)
    sys.stdout.write(table(per_s, bare, gateway) + "\n")
    kept = gateway.completed == subtasks and gateway.seen.rejected_share < 0.05
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
