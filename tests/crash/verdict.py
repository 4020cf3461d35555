"""What a run that was disturbed owes, and whether it has kept it. Pure.

The evidence is the journal and the rows as they are in the database at the end, what
was shown before, and the ledger of what agents really executed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

Event = Mapping[str, Any]
"""A fact as JSON: ``seq``, ``type`` and its own fields."""


class Kind(StrEnum):
    """What went wrong; each must never be."""

    REEXECUTED = "re-executed"
    """Work was begun again after its result was committed."""
    LOST = "lost"
    """A committed result is gone or another, or the run does not come to its end."""
    DOUBLED = "doubled"
    """The same is there, or was done, twice."""
    EARLY = "early"
    """An effect came before its fact, or a subtask before what it needs."""
    ORPHAN = "orphan"
    """A process was left behind."""
    KEY = "key"
    """A key in Redis has no TTL."""
    BROKEN = "broken"
    """mas did not do what it was asked, or said what is not so."""


class Fault(Struct, frozen=True):
    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Execution(Struct, frozen=True):
    """A line of the ledger: an agent began to work on this."""

    subtask_id: str
    attempt: int
    agent_id: str
    pid: int


class Row(Struct, frozen=True, kw_only=True):
    """A row of subtask_results."""

    subtask_id: str
    attempt: int
    status: str
    output: Mapping[str, Any] | None = None


class Expected(Struct, frozen=True, kw_only=True):
    """How the run ends when nothing disturbs it."""

    status: str
    subtasks: Mapping[str, str]
    """The status of each subtask."""
    data: Mapping[str, Any]
    """The ``data`` of each completed subtask's result."""
    needs: Mapping[str, Sequence[str]]


class Evidence(Struct, frozen=True, kw_only=True):
    """All that is known of a run at its end."""

    tasks: int
    """How many tasks of this description there are."""
    status: str
    """That of the task's row."""
    journal: Sequence[Event]
    rows: Sequence[Row]
    ledger: Sequence[Execution] = ()
    shown: Sequence[Event] = ()
    """Every fact that was shown by any of its runs."""
    earlier: Sequence[Sequence[Event]] = ()
    """The journal as it was read before, after each death."""


def judge(evidence: Evidence, expected: Expected) -> list[Fault]:
    """Every fault there is; empty where all is well."""
    return [
        *_task(evidence, expected),
        *_order(evidence.journal),
        *_attempts(evidence.journal, expected),
        *_outcome(evidence.journal, expected),
        *_rows(evidence),
        *_acknowledged(evidence),
        *_executions(evidence),
    ]


def _task(evidence: Evidence, expected: Expected) -> Iterator[Fault]:
    if evidence.tasks != 1:
        kind = Kind.DOUBLED if evidence.tasks else Kind.LOST
        yield Fault(kind, f"there are {evidence.tasks} tasks")
    if evidence.status != expected.status:
        told = f"the task's row says {evidence.status!r}, not {expected.status!r}"
        yield Fault(Kind.LOST, told)


def _order(journal: Sequence[Event]) -> Iterator[Fault]:
    numbers = [event["seq"] for event in journal]
    if numbers != list(range(1, len(numbers) + 1)):
        yield Fault(Kind.LOST, f"the journal has a hole or a double: {numbers}")
    ends = [it["seq"] for it in journal if it["type"] == "task_finished"]
    if len(ends) > 1:
        yield Fault(Kind.DOUBLED, f"the task was finished more than once: {ends}")
    if not ends or ends[-1] != numbers[-1]:
        yield Fault(Kind.LOST, "the journal does not end with task_finished")


def _attempts(journal: Sequence[Event], expected: Expected) -> Iterator[Fault]:
    """Walk through the journal: who may begin, and who may end."""
    live: dict[str, int] = {}
    begun: set[tuple[str, int]] = set()
    completed: set[str] = set()
    for event in journal:
        name, attempt = event.get("subtask_id", ""), event.get("attempt", 0)
        shown = f"{name} attempt {attempt}"
        if event["type"] == "attempt_started":
            if name in completed:
                yield Fault(Kind.REEXECUTED, f"{shown} began after the result of it")
            if name in live:
                yield Fault(Kind.DOUBLED, f"{shown} began beside attempt {live[name]}")
            if (name, attempt) in begun:
                yield Fault(Kind.DOUBLED, f"{shown} began twice")
            if missing := set(expected.needs.get(name, ())) - completed:
                yield Fault(Kind.EARLY, f"{shown} began before {sorted(missing)}")
            live[name] = attempt
            begun.add((name, attempt))
        elif event["type"] == "attempt_finished":
            if live.pop(name, None) != attempt:
                yield Fault(Kind.DOUBLED, f"{shown} ended, but it was not under way")
            if event["status"] == "completed":
                if name in completed:
                    yield Fault(Kind.DOUBLED, f"{shown} completed it once more")
                completed.add(name)
    for name, attempt in live.items():
        yield Fault(Kind.LOST, f"{name} attempt {attempt} has no end")


def _outcome(journal: Sequence[Event], expected: Expected) -> Iterator[Fault]:
    """Compare each subtask and its result with the undisturbed run."""
    ended = {it["subtask_id"]: it for it in journal if it["type"] == "subtask_finished"}
    outputs = _completed_outputs(journal)
    for name, status in expected.subtasks.items():
        found = ended.get(name, {}).get("status")
        if found != status:
            yield Fault(Kind.LOST, f"{name} ended as {found!r}, not as {status!r}")
        data = (outputs.get(name) or {}).get("data")
        if data != expected.data.get(name):
            yield Fault(Kind.LOST, f"{name} came to other data: {data}")
    counts = Counter(
        it["subtask_id"] for it in journal if it["type"] == "subtask_finished"
    )
    for name, count in counts.items():
        if count > 1:
            yield Fault(Kind.DOUBLED, f"{name} was finished {count} times")
    final = next((it for it in journal if it["type"] == "task_finished"), None)
    if final is None:
        return
    if final["status"] != expected.status:
        yield Fault(Kind.LOST, f"the task ended as {final['status']!r}")
    told = final["result"].get("subtasks", {})
    for name, output in outputs.items():
        if told.get(name, {}).get("result") != output:
            yield Fault(Kind.LOST, f"the task's result says something else of {name}")


def _rows(evidence: Evidence) -> Iterator[Fault]:
    """The rows must follow from the journal, one each attempt that ended."""
    ended = {
        (it["subtask_id"], it["attempt"]): it
        for it in evidence.journal
        if it["type"] == "attempt_finished"
    }
    rows = Counter((row.subtask_id, row.attempt) for row in evidence.rows)
    for (name, attempt), count in rows.items():
        if count > 1:
            yield Fault(Kind.DOUBLED, f"{name} attempt {attempt} has {count} rows")
        if (name, attempt) not in ended:
            yield Fault(Kind.EARLY, f"{name} attempt {attempt} has a row but no end")
    for name, attempt in ended.keys() - rows.keys():
        yield Fault(Kind.LOST, f"{name} attempt {attempt} has no row")
    for row in evidence.rows:
        fact = ended.get((row.subtask_id, row.attempt), {})
        if fact and (row.status, row.output) != (fact["status"], fact.get("output")):
            where = f"{row.subtask_id} attempt {row.attempt}"
            yield Fault(Kind.LOST, f"row and journal differ: {where}")
    completed = Counter(
        row.subtask_id for row in evidence.rows if row.status == "completed"
    )
    for name, count in completed.items():
        if count > 1:
            yield Fault(Kind.DOUBLED, f"{name} has {count} completed rows")


def _acknowledged(evidence: Evidence) -> Iterator[Fault]:
    """What was shown or read once is there for ever, and the same."""
    by_seq = {event["seq"]: event for event in evidence.journal}
    for shown in evidence.shown:
        kept = by_seq.get(shown["seq"])
        if kept is None or any(kept.get(name) != shown[name] for name in shown):
            told = f"{shown['type']} was shown as {shown['seq']} and is not there"
            yield Fault(Kind.LOST, told)
    for journal in evidence.earlier:
        if list(evidence.journal[: len(journal)]) != list(journal):
            yield Fault(Kind.LOST, "the journal is not what it was after a death")


def _executions(evidence: Evidence) -> Iterator[Fault]:
    """What was really executed must have been begun in the journal, and once."""
    begun = {
        (it["subtask_id"], it["attempt"])
        for it in evidence.journal
        if it["type"] == "attempt_started"
    }
    done = Counter((it.subtask_id, it.attempt) for it in evidence.ledger)
    for (name, attempt), count in done.items():
        if count > 1:
            told = f"{name} attempt {attempt} was executed {count} times"
            yield Fault(Kind.DOUBLED, told)
        if (name, attempt) not in begun:
            told = f"{name} attempt {attempt} was executed and is not in the journal"
            yield Fault(Kind.EARLY, told)


def _completed_outputs(journal: Iterable[Event]) -> dict[str, Mapping[str, Any]]:
    return {
        it["subtask_id"]: it["output"]
        for it in journal
        if it["type"] == "attempt_finished" and it["status"] == "completed"
    }
