"""The ledger in memory: what it counts, and that all is written, whatever fails."""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from mas.errors import OutageError, StoreError
from mas.gateway.spending import ledger
from mas.gateway.spending.ledger import Ledger
from mas.model import CallState, ModelCall, Usage

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
LONG_S = 60.0
ENDINGS = [state for state in CallState if state is not CallState.OPEN]


def call(name: str, tokens: int = 0, **fields: Any) -> ModelCall:
    made: dict[str, Any] = {
        "id": name,
        "task_id": "t",
        "subtask_id": "a",
        "attempt": 1,
        "agent_id": "agent_1",
        "path": "/v1/messages",
        "model": "m",
        "usage": Usage(input_tokens=tokens, cost_usd=float(tokens)),
        "started_at": START,
    }
    return ModelCall(**(made | fields))


def planner(name: str, tokens: int = 0, **fields: Any) -> ModelCall:
    planners = {"subtask_id": None, "attempt": None, "agent_id": "planner"}
    return call(name, tokens, **(planners | fields))


def ended(open_call: ModelCall, tokens: int) -> ModelCall:
    usage = Usage(input_tokens=tokens, cost_usd=float(tokens))
    return structs.replace(
        open_call, state=CallState.COMPLETE, usage=usage, duration_s=1.0
    )


class Table:
    """Holds what is written, like PostgreSQL, and can be away, refuse or hang."""

    def __init__(self) -> None:
        self.rows: dict[str, ModelCall] = {}
        self.batches: list[list[str]] = []
        self.failure: StoreError | None = None
        self.gate: anyio.Event | None = None
        self.is_writing = False
        self.waits = anyio.Event()
        self.is_tried = anyio.Event()
        self.is_written = anyio.Event()
        self.tries = 0
        self.day_usd = 0.0
        """What other tasks spent."""

    async def write(self, calls: Sequence[ModelCall]) -> float:
        assert not self.is_writing, "two writes at once"
        self.is_writing = True
        self.tries += 1
        self.is_tried.set()
        try:
            if self.gate is not None:
                self.waits.set()
                await self.gate.wait()
            await checkpoint()
            if self.failure is not None:
                raise self.failure
            self.batches.append([each.id for each in calls])
            self.rows |= {each.id: each for each in calls}
            self.is_written.set()
            return self.day_usd + sum(c.usage.cost_usd for c in self.rows.values())
        finally:
            self.is_writing = False


class Told(Struct):
    """What the ledger says."""

    changes: list[ModelCall]
    totals: list[float]
    reports: list[str]


def make(
    write: Callable[[Sequence[ModelCall]], Any], **options: Any
) -> tuple[Ledger, Told]:
    told = Told([], [], [])
    made = Ledger(
        write,
        changed=told.changes.append,
        day_total=told.totals.append,
        report=told.reports.append,
        **options,
    )
    return made, told


def tokens_of(usages: dict[str, Usage]) -> dict[str, int]:
    return {name: usage.input_tokens for name, usage in usages.items()}


def test_sums_are_by_attempt_subagent_planner_and_model() -> None:
    counted, told = make(Table().write)
    calls = [
        planner("p", model="opus"),
        call("a1"),
        call("a1-sub", subagent="s1", model="haiku"),
        call("a1-sub2", subagent="s2"),
        call("a2", attempt=2),
        call("b1", subtask_id="b"),
    ]
    for number, each in enumerate(calls):
        counted.begin(each)
        counted.update(ended(each, 10**number))  # whatever its state, it runs
    assert [each.id for each in counted.open_calls] == [each.id for each in calls]
    for is_over in (False, True):
        assert counted.usage_of_planner() == Usage(1, cost_usd=1.0)
        assert counted.usage_of("a", 1).input_tokens == 1110
        assert counted.usage_of("a", 2).input_tokens == 10_000
        assert counted.usage_of("b", 1).input_tokens == 100_000
        assert counted.usage_of("b", 2) == counted.usage_of("c", 1) == Usage()
        subagents = counted.usage_of_subagents("a", 1)
        assert tokens_of(subagents) == {"s1": 100, "s2": 1000}
        assert counted.usage_of_subagents("a", 2) == {}
        assert counted.total == Usage(111_111, cost_usd=111_111.0)
        models = {"opus": 1, "m": 111_010, "haiku": 100}
        assert tokens_of(counted.by_model()) == models
        if not is_over:
            for number, each in enumerate(calls):
                counted.end(ended(each, 10**number))
    assert counted.open_calls == ()
    assert len(told.changes) == 3 * len(calls)


def test_a_subagent_is_counted_over_calls_that_run_and_that_ended() -> None:
    counted, _ = make(Table().write)
    first, second = call("1", subagent="s"), call("2", subagent="s")
    counted.begin(first)
    counted.end(ended(first, 1))
    counted.begin(second)
    counted.update(structs.replace(second, usage=Usage(input_tokens=10)))
    assert tokens_of(counted.usage_of_subagents("a", 1)) == {"s": 11}
    assert counted.usage_of("a", 1).input_tokens == 11


def test_a_call_that_took_nothing_names_no_model() -> None:
    counted, _ = make(Table().write)
    counted.begin(call("1", model=""))
    counted.end(call("1", model="", state=CallState.REFUSED, http_status=429))
    counted.begin(call("2", model="m"))
    assert counted.by_model() == {}


def test_what_is_repeated_counts_once_and_what_is_late_not_at_all() -> None:
    counted, told = make(Table().write)
    counted.begin(call("1"))
    counted.update(call("1", 5))
    counted.update(call("1", 5))
    assert len(told.changes) == 2
    counted.end(ended(call("1"), 7))
    counted.end(ended(call("1"), 7))
    counted.update(call("1", 9))
    counted.end(ended(call("never begun"), 100))
    assert counted.total.input_tokens == 7
    assert len(told.changes) == 3


def test_an_end_that_is_none_is_refused() -> None:
    counted, _ = make(Table().write)
    counted.begin(call("1"))
    with pytest.raises(ValueError, match="the call 1 is said to have ended"):
        counted.end(call("1", 5))


async def test_history_is_counted_and_not_written_again() -> None:
    table = Table()
    before = [planner("p", 1), ended(call("x"), 10), call("left open", 100)]
    counted, told = make(table.write, history=before)
    assert counted.total.input_tokens == 111
    assert counted.usage_of("a", 1).input_tokens == 110
    assert counted.usage_of_planner().input_tokens == 1
    assert counted.open_calls == ()
    counted.begin(call("new"))
    counted.end(ended(call("new"), 1000))
    await counted.close()
    assert list(table.rows) == ["new"]
    assert counted.usage_of("a", 1).input_tokens == 1110
    assert [each.id for each in told.changes] == ["new", "new"]


async def test_calls_that_ended_and_are_written_take_no_memory() -> None:
    table = Table()
    counted, told = make(table.write)
    begun = call("1", 3)
    over = ended(begun, 5)
    before = sys.getrefcount(begun), sys.getrefcount(over)
    counted.begin(begun)
    counted.end(over)
    await counted.close()
    table.rows.clear()
    told.changes.clear()
    assert (sys.getrefcount(begun), sys.getrefcount(over)) == before


async def test_what_changes_during_a_write_is_the_next_one() -> None:
    table = Table()
    table.gate = anyio.Event()
    counted, told = make(table.write)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(call("1"))
            await table.waits.wait()
            counted.begin(call("2"))
            counted.end(ended(call("1"), 5))
            counted.begin(call("3"))
            counted.update(call("2", 7))
            gate, table.gate = table.gate, None
            gate.set()
            while len(table.batches) < 2:
                await checkpoint()
            tasks.cancel_scope.cancel()
    assert table.batches == [["1"], ["1", "2", "3"]]
    assert table.rows == {
        "1": ended(call("1"), 5),
        "2": call("2", 7),
        "3": call("3"),
    }
    assert told.totals == [0, 12]


@pytest.mark.parametrize("kind", [OutageError, StoreError])
@pytest.mark.parametrize("by", ["a change", "time"])
async def test_what_cannot_be_written_is_kept_and_tried_again(
    kind: type[StoreError], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_RETRY_SOONEST_S", 0.0)
    monkeypatch.setattr(ledger, "_RETRY_LATEST_S", LONG_S if by == "a change" else 0)
    table = Table()
    table.failure = kind("PostgreSQL is away")
    counted, told = make(table.write)
    expected = [call(f"{number}") for number in range(4)]
    with anyio.fail_after(LONG_S / 2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(expected[0])
            for each in expected[1:3]:
                await table.is_tried.wait()
                table.is_tried = anyio.Event()
                if by == "a change":
                    counted.begin(each)
            await table.is_tried.wait()
            assert table.rows == {}
            table.failure = None
            counted.begin(expected[3])
            await table.is_written.wait()
            tasks.cancel_scope.cancel()
    await counted.close()
    changed = expected if by == "a change" else [expected[0], expected[3]]
    assert list(table.rows.values()) == changed  # in order
    assert told.reports == ["model calls are recorded later: PostgreSQL is away"]


async def test_each_outage_is_reported() -> None:
    table = Table()
    counted, told = make(table.write)
    for failure in (StoreError("first"), None, StoreError("second"), None):
        table.failure = failure
        counted.begin(call(f"{failure}"))
        await counted.close()
    assert [report for report in told.reports if "later" in report] == [
        "model calls are recorded later: first",
        "model calls are recorded later: second",
    ]


async def test_a_cancelled_write_is_made_good_at_the_close() -> None:
    table = Table()
    table.gate = anyio.Event()
    counted, told = make(table.write)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(call("1"))
            await table.waits.wait()
            counted.begin(call("2"))
            tasks.cancel_scope.cancel()
    assert table.rows == {}
    table.gate = None
    with anyio.CancelScope() as over:
        over.cancel()
        await counted.close()  # cancelled from outside, it writes all the same
    assert list(table.rows) == ["1", "2"]
    assert told.reports == []


async def test_the_close_waits_for_the_write_that_is_under_way() -> None:
    table = Table()
    gate = table.gate = anyio.Event()
    counted, _ = make(table.write)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(call("1"))
            await table.waits.wait()
            counted.end(ended(call("1"), 3))
            tasks.start_soon(counted.close)
            await checkpoint()
            table.gate = None
            gate.set()
            while table.rows.get("1") != ended(call("1"), 3):
                await checkpoint()
            tasks.cancel_scope.cancel()
    assert table.batches == [["1"], ["1"]]


@pytest.mark.parametrize("fault", ["hangs", "fails"])
async def test_what_the_close_could_not_write_is_told(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_CLOSE_DEADLINE_S", 0.05)
    table = Table()
    if fault == "hangs":
        table.gate = anyio.Event()
    else:
        table.failure = StoreError("no")
    counted, told = make(table.write)
    counted.begin(call("1"))
    counted.begin(call("2"))
    with anyio.fail_after(LONG_S):
        await counted.close()
    assert told.reports[-1] == "what 2 model calls took is not recorded"
    assert table.rows == {}


async def test_nothing_to_write_is_not_written() -> None:
    table = Table()
    counted, told = make(table.write)
    await counted.close()
    assert table.tries == 0
    assert (told.totals, told.reports) == ([], [])


async def test_the_day_is_known_between_the_writes() -> None:
    table = Table()
    history = [ended(call("old"), 50)]
    counted, told = make(table.write, history=history, day_usd=120.0)
    assert counted.day_usd == 120
    counted.begin(call("1", 1))
    assert counted.day_usd == 121
    table.day_usd = 200.0  # others spent meanwhile
    await counted.close()
    assert told.totals == [201]
    assert counted.day_usd == 201
    counted.end(ended(call("1"), 8))
    assert counted.day_usd == 208
    table.failure = StoreError("away")
    await counted.close()
    assert counted.day_usd == 208
    table.failure = None
    await counted.close()
    assert counted.day_usd == told.totals[-1] == 208


async def test_what_changes_during_a_write_is_in_the_day_once() -> None:
    table = Table()
    gate = table.gate = anyio.Event()
    counted, _ = make(table.write)
    with anyio.fail_after(LONG_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(counted.write_forever)
            counted.begin(call("1", 1))
            await table.waits.wait()
            table.waits = anyio.Event()
            counted.end(ended(call("1"), 5))
            counted.begin(call("2", 10))
            table.gate = anyio.Event()
            gate.set()
            await table.waits.wait()  # the first is written, the second on its way
            assert counted.day_usd == 15
            tasks.cancel_scope.cancel()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 3)),
        st.tuples(st.just("update"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("yield"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.just(0)),
    ),
    min_size=30,
    max_size=80,
)
FAULTS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["works", "is away", "refuses", "is lost"])
    ),
    max_size=20,
)


class Faulty:
    """A table whose writes take a while and fail as drawn; a lost one counted."""

    def __init__(self, faults: list[tuple[int, str]]) -> None:
        self.table = Table()
        self.faults = iter(faults)

    async def write(self, calls: Sequence[ModelCall]) -> float:
        pauses, fault = next(self.faults, (0, "works"))
        for _ in range(pauses):
            await checkpoint()
        if fault == "is away":
            raise OutageError("away")
        if fault == "refuses":
            raise StoreError("refused")
        ids = [each.id for each in calls]
        assert len(set(ids)) == len(ids), "a call twice in a batch"
        for each in calls:
            former = self.table.rows.get(each.id)
            assert former is None or former.state is CallState.OPEN or former == each
        total = await self.table.write(calls)
        if fault == "is lost":
            raise OutageError("the answer was lost")
        return total


class Writing:
    """A ledger that is written, and what was said to it."""

    def __init__(self, faults: list[tuple[int, str]]) -> None:
        self.faulty = Faulty(faults)
        self.ledger, self.told = make(self.faulty.write)
        self.latest: dict[str, ModelCall] = {}
        self.open: dict[int, ModelCall] = {}

    def say(self, operation: str, number: int) -> None:
        """Begin, update or end a call, where that can be."""
        running = self.open.get(number)
        if operation == "begin" and running is None:
            subagent = [None, "s"][number % 2]
            begun = call(f"{len(self.latest)}", attempt=number // 2, subagent=subagent)
            self.open[number] = self.latest[begun.id] = begun
            self.ledger.begin(begun)
        elif operation == "update" and running is not None:
            more = running.usage + Usage(input_tokens=1, cost_usd=1.0)
            running = structs.replace(running, usage=more)
            self.open[number] = self.latest[running.id] = running
            self.ledger.update(running)
        elif operation == "end" and running is not None:
            over = ended(running, running.usage.input_tokens + 1)
            del self.open[number]
            self.latest[over.id] = over
            self.ledger.end(over)

    async def run(self, operations: list[tuple[str, int]]) -> None:
        while operations:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.ledger.write_forever)
                while operations:
                    operation, number = operations.pop(0)
                    if operation == "cancel":
                        break
                    for _ in range(number if operation == "yield" else 0):
                        await checkpoint()
                    self.say(operation, number)
                    self.check_sums()
                tasks.cancel_scope.cancel()
        self.faulty.faults = iter([])
        await self.ledger.close()

    def check_sums(self) -> None:
        latest = self.latest.values()
        total = sum((each.usage for each in latest), Usage())
        assert self.ledger.total == total
        assert sum(self.ledger.by_model().values(), Usage()) == total
        attempts = [self.ledger.usage_of("a", number) for number in range(3)]
        assert sum(attempts, Usage()) == total
        assert self.ledger.day_usd == total.cost_usd
        assert list(self.ledger.open_calls) == sorted(
            self.open.values(), key=lambda each: int(each.id)
        )


@settings(deadline=None)
@given(OPERATIONS, FAULTS)
def test_nothing_is_lost_whatever_fails_and_whenever(
    operations: list[tuple[str, int]], faults: list[tuple[int, str]]
) -> None:
    writing = Writing(faults)

    async def run() -> None:
        with (
            pytest.MonkeyPatch.context() as patch,
            anyio.fail_after(LONG_S),
        ):
            patch.setattr(ledger, "_RETRY_SOONEST_S", 0.0)
            patch.setattr(ledger, "_RETRY_LATEST_S", 0.0)
            await writing.run(operations)

    anyio.run(run)
    assert writing.faulty.table.rows == writing.latest
    assert [report for report in writing.told.reports if "not recorded" in report] == []
