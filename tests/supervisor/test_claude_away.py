"""Claude goes away, limits or refuses in mid-run: the real command, the real CLI."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from mas.keeper import Servers
from mas.model import CallState, ModelCall
from mas.store.postgres import TaskStore
from mas.testing import Conversation, Fault, ScriptedClaude
from tests.benchmarks.upstream import Part, ScriptedProcess, keys_of
from tests.cli.command import Done, Mas, read_until
from tests.scripts import describes, diligent, scripted

_DEADLINE_S = 120
PART = Part(subtasks=5, turns=6)
ONE: tuple[dict[str, Any], ...] = ({"key": "one"},)


@pytest.fixture
def mas(home: Path, servers: Servers, tmp_path: Path, leaves_no_process: None) -> Mas:
    """The command in an empty folder."""
    return Mas(home, tmp_path)


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def attempts(events: list[dict[str, Any]]) -> list[tuple[str, int]]:
    started = of_type(events, "attempt_started")
    return sorted((event["subtask_id"], event["attempt"]) for event in started)


def completed(events: list[dict[str, Any]]) -> list[str]:
    ended = of_type(events, "subtask_finished")
    return sorted(it["subtask_id"] for it in ended if it["status"] == "completed")


def works(event: dict[str, Any]) -> bool:
    return event["type"] == "attempt_progress" and "Write" in event["activity"]


def waits_for_claude(at_least_s: float) -> Callable[[dict[str, Any]], bool]:
    """Whether an event says that Claude is down, and is tried so much later."""

    def waits(event: dict[str, Any]) -> bool:
        if event["type"] != "waiting" or "cannot be reached" not in event["reason"]:
            return False
        left = datetime.fromisoformat(event["until"]) - at(event)
        return left > timedelta(seconds=at_least_s)

    return waits


def at(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


def ledger(servers: Servers, task_id: str) -> list[ModelCall]:
    """The task's calls, by when they were sent."""

    async def read() -> list[ModelCall]:
        store = await TaskStore.connect(servers.postgres_dsn)
        try:
            return await store.calls(task_id)
        finally:
            await store.close()

    return sorted(anyio.run(read), key=lambda call: call.started_at)


def test_an_outage_is_waited_for_and_probed_by_one_at_a_time(
    mas: Mas, servers: Servers
) -> None:
    with ScriptedProcess(PART) as upstream:
        mas.environment["ANTHROPIC_BASE_URL"] = upstream.url
        with mas.start("run", "x", "--json") as process:
            seen = read_until(process, works)
            upstream.kill()
            # Tried after 1 and after 2 s, in vain; 4 s more are to be waited for.
            seen += read_until(process, waits_for_claude(3))
            upstream.start()
            out, err = process.communicate(timeout=_DEADLINE_S)
    done = Done(process.returncode, (seen + out).decode(), err.decode())
    assert done.code == 0, done.err
    assert completed(done.events) == keys_of(PART)
    assert attempts(done.events) == [(key, 1) for key in keys_of(PART)]

    waits = [event for event in done.events if waits_for_claude(0)(event)]
    opened_at = at(waits[0])
    calls = ledger(servers, done.events[0]["task_id"])
    probes = [
        call
        for call in calls
        if call.state is CallState.UNANSWERED and call.started_at > opened_at
    ]
    assert len(probes) == 2
    back_at = min(
        call.started_at
        for call in calls
        if call.started_at > opened_at and call.state is CallState.COMPLETE
    )
    gaps = pairwise([opened_at, *(probe.started_at for probe in probes), back_at])
    waited_s = [(later - earlier).total_seconds() for earlier, later in gaps]
    assert waited_s == pytest.approx([1, 2, 4], abs=0.6)


def test_an_outage_that_lasts_suspends_and_resume_goes_on(mas: Mas) -> None:
    (mas.folder / "mas.toml").write_text("[gateway]\nlongest_wait_s = 3\n")
    with ScriptedProcess(PART) as upstream:
        mas.environment["ANTHROPIC_BASE_URL"] = upstream.url
        with mas.start("run", "x", "--json") as process:
            seen = read_until(process, works)
            upstream.kill()
            out, err = process.communicate(timeout=_DEADLINE_S)
        away = Done(process.returncode, (seen + out).decode(), err.decode())
        assert away.code == 4, away.err
        last = away.events[-1]
        assert last["type"] == "task_suspended"
        assert "Claude could not be reached for 3 s" in last["reason"]
        assert f"mas resume {last['task_id']}" in last["hint"]
        assert not of_type(away.events, "attempt_finished")

        upstream.start()
        calls_before = len(upstream.calls)
        done = mas.run("resume", "-", "--json")
        calls = len(upstream.calls) - calls_before
    assert done.code == 0, done.err
    assert completed(done.events) == keys_of(PART)
    assert all(it["resumes"] for it in of_type(done.events, "attempt_started"))
    assert attempts(done.events) == [(key, 2) for key in keys_of(PART)]
    # They go on where they were: what was answered is not asked for again.
    assert calls < PART.subtasks * PART.turns


def one(*faults: Fault) -> ScriptedClaude:
    """Plays a single subtask, with these faults before its second turn."""
    first, *rest = [step.turn for step in diligent("one", command="true").steps]
    turns = [turn for turn in rest if turn is not None]
    assert first is not None
    conversation = Conversation(describes("one"), [first, *faults, *turns], name="one")
    return ScriptedClaude(scripted(ONE, {"one": conversation}))


def test_a_long_limit_suspends_with_its_end_and_the_session_goes_on_later(
    mas: Mas,
) -> None:
    with one(Fault.status(429, retry_after_s=7200)) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        limited = mas.run("run", "x", "--json")
        assert limited.code == 4, limited.err
        last = limited.events[-1]
        until = at(last).astimezone() + timedelta(hours=2)
        assert last["type"] == "task_suspended"
        assert last["reason"].startswith("the rate limit lasts until ")
        assert last["reason"].endswith(" (2 h)")
        moments = [until, until - timedelta(minutes=1), until + timedelta(minutes=1)]
        said = [f"go on after {it:%Y-%m-%d %H:%M} with mas resume" for it in moments]
        assert any(words in last["hint"] for words in said), last["hint"]
        [started] = of_type(limited.events, "attempt_started")
        # It is told at once, not after the CLI's patience.
        assert at(last) - at(started) < timedelta(seconds=30)

        done = mas.run("resume", "-", "--json")
    assert done.code == 0, done.err
    assert completed(done.events) == ["one"]
    [again] = of_type(done.events, "attempt_started")
    assert (again["attempt"], again["resumes"]) == (2, True)
    sessions = {request.session_id for request in claude.requests if request.session_id}
    assert len(sessions) == 1
    assert claude.errors == []


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_suspend_with_that_reason(
    mas: Mas, status: int
) -> None:
    with one(Fault.status(status, times=None)) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        refused = mas.run("run", "x", "--json")
    assert refused.code == 4, refused.err
    last = refused.events[-1]
    assert last["type"] == "task_suspended"
    assert "Claude refused the credentials" in last["reason"]
    assert "ANTHROPIC_API_KEY" in last["hint"]


def test_a_request_that_is_held_fails_neither_by_silence_nor_by_its_deadline(
    mas: Mas,
) -> None:
    (mas.folder / "mas.toml").write_text(
        "[limits]\ninactivity_timeout_s = 3\nattempt_timeout_s = 6\n"
    )
    with one(Fault.status(429, retry_after_s=8)) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        done = mas.run("run", "x", "--json")
    assert done.code == 0, json.dumps(done.events[-1])
    [ended] = of_type(done.events, "attempt_finished")
    [started] = of_type(done.events, "attempt_started")
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert at(ended) - at(started) > timedelta(seconds=8)
    assert "the rate limit" in [it["reason"] for it in of_type(done.events, "waiting")]
