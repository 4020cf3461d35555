"""Servers that go away in the midst of a run, and come back or do not."""

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from mas.config import Config, Postgres
from mas.config import Supervisor as SupervisorSettings
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptStarted,
    Recorded,
    SubtaskFinished,
    TaskFinished,
    TaskSuspended,
    Waiting,
)
from mas.keeper import Servers
from mas.model import Status
from mas.store.address import Address
from mas.supervisor.relay import Relay
from mas.supervisor.services import open_store
from mas.supervisor.supervisor import Supervisor
from tests.keeper.conftest import folder_for_homes
from tests.keeper.support import assert_gone, kill_keeper, the
from tests.store.support import Line, line_to
from tests.support import GoOn, Run, RunPlan

SETTINGS = SupervisorSettings(
    shutdown_grace_s=2, handshake_timeout_s=30, outage_timeout_s=60
)


class Gate:
    """A named pipe at which fake agents wait until it is opened, then never more."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR)

    def open(self) -> None:
        os.write(self._fd, b"!" * 10)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


@contextmanager
def own_home() -> Iterator[Path]:
    """A home with embedded servers that no other test uses."""
    with folder_for_homes() as folder:
        yield folder / "home"
        assert_gone(folder / "home")


def held(gate: Gate) -> tuple[dict[str, Any], ...]:
    """A subtask that waits at the gate, one that needs it, and one that does not."""
    return (
        {"key": "held", "input_data": {"acts": [f"gate:{gate.path}", "ok"]}},
        {"key": "after", "dependencies": ["held"]},
        {"key": "aside"},
    )


def assert_all_is_there(run: Run, journal: list[Recorded]) -> None:
    """It is completed, each subtask once, and the journal is what was shown."""
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.COMPLETED
    done = [it.subtask_id for it in run.events(SubtaskFinished)]
    assert sorted(done) == ["after", "aside", "held"]
    assert journal == [it for it in run.shown if it.seq is not None]
    assert [it.seq for it in journal] == list(range(1, len(journal) + 1))


def kill_postgres(home: Path) -> None:
    the(home, "postgres").kill()


def kill_valkey(home: Path) -> None:
    the(home, "valkey-server").kill()


@pytest.mark.parametrize("kill", [kill_postgres, kill_valkey, kill_keeper])
async def test_a_run_goes_on_when_an_embedded_server_is_killed(
    run_plan: RunPlan, config: Config, gate: Gate, kill: Callable[[Path], None]
) -> None:
    with own_home() as home:

        def show(supervisor: Supervisor, recorded: Recorded) -> None:
            event = recorded.event
            if isinstance(event, AttemptStarted) and event.subtask_id == "held":
                kill(home)
                gate.open()

        run = await run_plan(*held(gate), show=show, home=home, supervisor=SETTINGS)
        async with open_store(structs.replace(config, home=home)) as store:
            journal = await store.events(run.supervisor.task_id)
    assert_all_is_there(run, journal)


@pytest.fixture
async def line(servers: Servers) -> AsyncIterator[Line]:
    """A line to PostgreSQL that can be made to fail."""
    address = Address.parse(servers.postgres_dsn)
    login = address.dsn.removeprefix("postgresql://").partition("@")[0]
    url = f"postgresql://{login}@{{place}}/{address.database}"
    async with line_to(address.where, url) as line:
        yield line


def hang_up(line: Line) -> None:
    """From now on the server is gone: nothing open answers, nobody is let in."""
    line.refuses = True
    line.lose_answer()


async def test_facts_wait_in_order_while_postgresql_is_away(
    run_plan: RunPlan, config: Config, gate: Gate, line: Line
) -> None:
    waited_for: list[str] = []

    def show(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AttemptStarted) and event.subtask_id == "held":
            hang_up(line)
        elif isinstance(event, Waiting) and line.refuses:
            waited_for.append(event.reason)
            gate.open()
            line.refuses = False

    run = await run_plan(
        *held(gate), show=show, postgres=Postgres(dsn=line.url), supervisor=SETTINGS
    )
    assert len(waited_for) == 1 and "PostgreSQL" in waited_for[0]
    assert Waiting(reason="") in run.events(Waiting)
    async with open_store(config) as store:
        journal = await store.events(run.supervisor.task_id)
    assert_all_is_there(run, journal)


async def test_an_outage_longer_than_allowed_suspends_the_task(
    run_plan: RunPlan, go_on: GoOn, gate: Gate, line: Line
) -> None:
    def show(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AttemptStarted) and event.subtask_id == "held":
            hang_up(line)
            gate.open()

    run = await run_plan(
        *held(gate),
        show=show,
        postgres=Postgres(dsn=line.url),
        supervisor=structs.replace(SETTINGS, outage_timeout_s=1),
    )
    assert isinstance(run.outcome, TaskSuspended) and not run.outcome.interrupted
    assert "PostgreSQL" in run.outcome.reason
    assert "mas resume" in run.outcome.hint
    again = await go_on(run.supervisor.task_id)
    assert isinstance(again.outcome, TaskFinished)
    assert again.outcome.status is Status.COMPLETED


async def test_an_interruption_does_not_wait_for_postgresql(
    run_plan: RunPlan, gate: Gate, line: Line
) -> None:
    def show(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AttemptStarted) and event.subtask_id == "held":
            hang_up(line)
        elif isinstance(event, Waiting) and line.refuses:
            supervisor.interrupt("interrupted by the test")

    run = await run_plan(
        *held(gate),
        show=show,
        postgres=Postgres(dsn=line.url),
        supervisor=structs.replace(SETTINGS, outage_timeout_s=600),
    )
    assert isinstance(run.outcome, TaskSuspended) and run.outcome.interrupted


async def test_an_attempt_whose_agent_died_before_it_was_recorded_is_not_sent(
    run_plan: RunPlan, line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's successor has the same name, and must not get it."""
    ready: list[AgentReady] = []
    killed: list[AgentReady] = []
    tell = Relay.agent_changed

    def note(relay: Relay, event: AgentReady | AgentLost) -> None:
        tell(relay, event)
        if isinstance(event, AgentReady):
            ready.append(event)
            if killed and len(ready) == 2 * len(killed):
                line.refuses = False  # with all their successors there

    def show(supervisor: Supervisor, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, AttemptStarted) and event.subtask_id == "first":
            hang_up(line)
        elif isinstance(event, Waiting) and line.refuses and not killed:
            killed.extend(ready)
            for agent in killed:
                os.kill(agent.pid, signal.SIGKILL)

    monkeypatch.setattr(Relay, "agent_changed", note)
    ledger = tmp_path / "ledger"
    given = {"acts": ["ok"], "ledger": str(ledger)}
    run = await run_plan(
        {"key": "first", "input_data": given},
        {"key": "second", "input_data": given, "dependencies": ["first"]},
        show=show,
        postgres=Postgres(dsn=line.url),
        supervisor=SETTINGS,
    )
    assert isinstance(run.outcome, TaskFinished)
    assert run.outcome.status is Status.COMPLETED
    executed = [json.loads(text) for text in ledger.read_text().splitlines()]
    done = [(it["subtask_id"], it["attempt"]) for it in executed]
    assert done == [("first", 1), ("second", 2)], done
