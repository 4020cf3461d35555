"""The judge of disturbed runs: it acquits a good one and sees every fault."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from tests.crash.verdict import Evidence, Execution, Expected, Kind, Row, judge

EXPECTED = Expected(
    status="completed",
    subtasks={"a": "completed", "b": "completed"},
    data={"a": {"n": 1}, "b": {"n": 2}},
    needs={"a": [], "b": ["a"]},
)


def numbered(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"seq": seq} | event for seq, event in enumerate(events, start=1)]


def started(subtask_id: str, attempt: int) -> dict[str, Any]:
    return {"type": "attempt_started", "subtask_id": subtask_id, "attempt": attempt}


def finished(subtask_id: str, attempt: int, number: int | None) -> dict[str, Any]:
    """With the number that it came to; None is a failure."""
    output = None if number is None else {"data": {"n": number}}
    return {
        "type": "attempt_finished",
        "subtask_id": subtask_id,
        "attempt": attempt,
        "status": "failed" if number is None else "completed",
        "output": output,
    }


def done(subtask_id: str) -> dict[str, Any]:
    ended = {"type": "subtask_finished", "status": "completed"}
    return ended | {"subtask_id": subtask_id}


RESULTS = {"a": {"result": {"data": {"n": 1}}}, "b": {"result": {"data": {"n": 2}}}}
END = {"type": "task_finished", "status": "completed", "result": {"subtasks": RESULTS}}
GOOD = [
    {"type": "task_created"},
    started("a", 1),
    finished("a", 1, None),
    {"type": "task_resumed"},
    started("a", 2),
    finished("a", 2, 1),
    done("a"),
    started("b", 1),
    finished("b", 1, 2),
    done("b"),
    END,
]


def evidence(*events: dict[str, Any], **changes: Any) -> Evidence:
    """What there is when these are in the journal, and all else follows from them."""
    journal = numbered(*events)
    ends = [event for event in journal if event["type"] == "attempt_finished"]
    good = Evidence(
        tasks=1,
        status="completed",
        journal=journal,
        rows=[
            Row(
                subtask_id=event["subtask_id"],
                attempt=event["attempt"],
                status=event["status"],
                output=event["output"],
            )
            for event in ends
        ],
        ledger=[
            Execution(event["subtask_id"], event["attempt"], "agent_1", 7)
            for event in journal
            if event["type"] == "attempt_started"
        ],
        shown=journal,
        earlier=[journal[:3], journal[:8]],
    )
    return structs.replace(good, **changes)


def test_a_run_that_was_disturbed_and_has_kept_all_is_acquitted() -> None:
    assert judge(evidence(*GOOD), EXPECTED) == []


def journal_without(*indices: int) -> list[dict[str, Any]]:
    return [event for index, event in enumerate(GOOD) if index not in indices]


def journal_with(index: int, *events: dict[str, Any]) -> list[dict[str, Any]]:
    return [*GOOD[:index], *events, *GOOD[index:]]


def changed(index: int, **fields: Any) -> list[dict[str, Any]]:
    return [*GOOD[:index], GOOD[index] | fields, *GOOD[index + 1 :]]


DOCTORED: dict[str, tuple[list[dict[str, Any]], Kind, str]] = {
    "begun again after its result": (
        journal_with(7, started("a", 3), finished("a", 3, None)),
        Kind.REEXECUTED,
        "a attempt 3 began after the result of it",
    ),
    "completed twice": (
        journal_with(7, started("a", 3), finished("a", 3, 1)),
        Kind.DOUBLED,
        "a attempt 3 completed it once more",
    ),
    "the same attempt begun twice": (
        journal_with(3, started("a", 1), finished("a", 1, None)),
        Kind.DOUBLED,
        "a attempt 1 began twice",
    ),
    "two attempts at once": (
        journal_with(2, started("a", 5)),
        Kind.DOUBLED,
        "a attempt 5 began beside attempt 1",
    ),
    "the same end twice": (
        journal_with(3, finished("a", 1, None)),
        Kind.DOUBLED,
        "a attempt 1 ended, but it was not under way",
    ),
    "an attempt that never ended": (
        journal_without(2),
        Kind.DOUBLED,
        "a attempt 2 began beside attempt 1",
    ),
    "the last attempt without an end": (
        journal_without(8),
        Kind.LOST,
        "b attempt 1 has no end",
    ),
    "begun before what it needs": (
        [*GOOD[:3], *GOOD[7:10], *GOOD[3:7], END],
        Kind.EARLY,
        "b attempt 1 began before ['a']",
    ),
    "no end": (GOOD[:-1], Kind.LOST, "does not end with task_finished"),
    "something after the end": (
        [*GOOD, {"type": "agent_ready"}],
        Kind.LOST,
        "does not end with task_finished",
    ),
    "two ends": ([*GOOD, END], Kind.DOUBLED, "finished more than once"),
    "another end": (changed(10, status="failed"), Kind.LOST, "ended as 'failed'"),
    "a subtask that is not finished": (
        journal_without(9),
        Kind.LOST,
        "b ended as None",
    ),
    "a subtask that is finished twice": (
        journal_with(10, done("b")),
        Kind.DOUBLED,
        "b was finished 2 times",
    ),
    "other data": (
        changed(8, output={"data": {"n": 3}}),
        Kind.LOST,
        "b came to other data",
    ),
    "a result of the task without one subtask's": (
        changed(10, result={"subtasks": {"a": RESULTS["a"]}}),
        Kind.LOST,
        "says something else of b",
    ),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_journal_is_seen_through(name: str) -> None:
    journal, kind, text = DOCTORED[name]
    faults = judge(evidence(*journal), EXPECTED)
    assert any(it.kind is kind and text in it.text for it in faults), faults


Doctor = Callable[[Evidence], dict[str, Any]]
TAMPERED: dict[str, tuple[Doctor, Kind, str]] = {
    "no task": (lambda good: {"tasks": 0}, Kind.LOST, "there are 0 tasks"),
    "two tasks": (lambda good: {"tasks": 2}, Kind.DOUBLED, "there are 2 tasks"),
    "a task in progress": (
        lambda good: {"status": "in_progress"},
        Kind.LOST,
        "the task's row says 'in_progress'",
    ),
    "a hole in the journal": (
        lambda good: {"journal": [*good.journal[:3], *good.journal[4:]]},
        Kind.LOST,
        "a hole or a double",
    ),
    "a row too few": (
        lambda good: {"rows": good.rows[1:]},
        Kind.LOST,
        "a attempt 1 has no row",
    ),
    "a row twice": (
        lambda good: {"rows": [*good.rows, good.rows[-1]]},
        Kind.DOUBLED,
        "b has 2 completed rows",
    ),
    "a row of what never ended": (
        lambda good: {
            "rows": [*good.rows, Row(subtask_id="b", attempt=9, status="failed")]
        },
        Kind.EARLY,
        "b attempt 9 has a row but no end",
    ),
    "a row with another result": (
        lambda good: {
            "rows": [*good.rows[:-1], structs.replace(good.rows[-1], output={})]
        },
        Kind.LOST,
        "row and journal differ: b attempt 1",
    ),
    "shown and then gone": (
        lambda good: {"shown": [{"seq": 99, "type": "agent_ready"}]},
        Kind.LOST,
        "agent_ready was shown as 99",
    ),
    "shown and then another": (
        lambda good: {"shown": [{"seq": 2, "type": "agent_lost"}]},
        Kind.LOST,
        "agent_lost was shown as 2",
    ),
    "a journal that was written anew": (
        lambda good: {"earlier": [[{"seq": 1, "type": "agent_ready"}]]},
        Kind.LOST,
        "not what it was after a death",
    ),
    "executed twice": (
        lambda good: {"ledger": [*good.ledger, good.ledger[0]]},
        Kind.DOUBLED,
        "a attempt 1 was executed 2 times",
    ),
    "executed and never begun": (
        lambda good: {"ledger": [Execution("a", 9, "agent_1", 7)]},
        Kind.EARLY,
        "a attempt 9 was executed and is not in the journal",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_evidence_is_seen_through(name: str) -> None:
    doctor, kind, text = TAMPERED[name]
    good = evidence(*GOOD)
    faults = judge(structs.replace(good, **doctor(good)), EXPECTED)
    assert any(it.kind is kind and text in it.text for it in faults), faults
