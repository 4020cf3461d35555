"""What PostgreSQL refuses is kept as far as it goes, and stops nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.core.events import (
    AttemptFinished,
    AttemptStarted,
    Fact,
    PlanAccepted,
    SubtaskFinished,
    TaskCreated,
    TaskFinished,
)
from mas.model import Plan, Status, Subtask
from mas.store.facts import acceptable, clean_value, from_json, to_json
from mas.store.postgres import TaskStore
from tests.store.support import (
    OUTPUT,
    Facts,
    completed,
    failed,
    new_task,
    started,
    subtask_done,
)

NUL = {"summary": "a\0b"}
HALF_A_PAIR = {"summary": "\ud83d"}
BAD_KEY = {"data": {"\0": 1}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


async def begin(store: TaskStore) -> Facts:
    task = new_task()
    facts = Facts(task)
    await store.create_task(task, facts.created())
    return facts


@pytest.mark.parametrize(
    "output",
    [NUL, HALF_A_PAIR, BAD_KEY, nested(100_000)],
    ids=["NUL", "half a surrogate pair", "key", "depth"],
)
async def test_a_refused_output_is_left_out_with_a_note(
    store: TaskStore, output: dict[str, Any]
) -> None:
    facts = await begin(store)
    batch = facts.add(
        started("a"), completed("a", output=output), completed("b"), subtask_done("b")
    )
    await store.commit(facts.task.id, 1, batch)
    kept = await store.events(facts.task.id)
    assert [kept[0], kept[1], *kept[3:]] == [*facts.all[:2], *facts.all[3:]]
    refused = kept[2].event
    assert isinstance(refused, AttemptFinished)
    assert (refused.status, refused.output) == (Status.COMPLETED, None)
    assert "PostgreSQL refused the output" in (refused.error or "")
    rows = {row.subtask_id: row for row in await store.results(facts.task.id)}
    assert rows["b"].output == OUTPUT
    assert (rows["a"].output, rows["a"].error) == (None, refused.error)


async def test_a_bad_error_text_costs_no_output(store: TaskStore) -> None:
    facts = await begin(store)
    event = completed("a", error="stderr: \0\udcff!")
    await store.commit(facts.task.id, 1, facts.add(event))
    [row] = await store.results(facts.task.id)
    assert (row.output, row.error) == (OUTPUT, "stderr: \ufffd\ufffd!")


async def test_many_bad_facts_among_many_keep_their_places(store: TaskStore) -> None:
    facts = await begin(store)
    events: list[Fact] = []
    for number in range(60):
        events.append(started(f"s{number}"))
        bad = number % 13 == 0
        events.append(failed(f"s{number}", error="no\0" if bad else "no"))
    await store.commit(facts.task.id, 1, facts.add(*events))
    kept = await store.events(facts.task.id)
    assert [recorded.seq for recorded in kept] == list(range(1, 122))
    errors = [row.error for row in await store.results(facts.task.id)]
    assert errors.count("no\ufffd") == 5
    assert errors.count("no") == 55


async def test_a_batch_with_a_refused_fact_can_be_repeated(store: TaskStore) -> None:
    facts = await begin(store)
    batch = facts.add(started("a"), completed("a", output=NUL), subtask_done("a"))
    await store.commit(facts.task.id, 1, batch)
    before = await store.events(facts.task.id)
    await store.commit(facts.task.id, 1, batch)
    assert await store.events(facts.task.id) == before
    assert len(before) == 4


async def test_a_refused_end_still_ends_the_task(store: TaskStore) -> None:
    facts = await begin(store)
    end = TaskFinished(status=Status.COMPLETED, result=NUL)
    await store.commit(facts.task.id, 1, facts.add(subtask_done("a"), end))
    task = await store.task(facts.task.id)
    assert task is not None
    assert (task.status, task.result) == (Status.COMPLETED, {})
    assert "PostgreSQL refused the result" in (task.error or "")


async def test_a_plan_and_a_description_are_cleaned(store: TaskStore) -> None:
    plan = Plan((Subtask(id="a", description="x\0", input_data={"k\udcff": ["\0"]}),))
    clean = Plan(
        (Subtask(id="a", description="x\ufffd", input_data={"k\ufffd": ["\ufffd"]}),)
    )
    task = new_task(description="typed \udcff", plan=plan)
    facts = Facts(task)
    await store.create_task(task, facts.created())
    await store.commit(task.id, 1, facts.add(PlanAccepted(plan=plan)))
    kept = await store.task(task.id)
    assert kept is not None
    assert (kept.description, kept.plan) == ("typed \ufffd", clean)
    first, second = await store.events(task.id)
    assert first.event == TaskCreated(description="typed \ufffd")
    assert second.event == PlanAccepted(plan=clean)


async def test_numbers_come_back_equal(store: TaskStore) -> None:
    facts = await begin(store)
    numbers = [0.1, 1e-300, 6.022e23, -1e100, 1.7976931348623157e308, -0.0, 1e22]
    numbers += [2**53 + 1, -(2**63), 12345678901234567800, 123456789**9]
    output = {"data": {"numbers": numbers, "text": "6" * 30}}
    end = TaskFinished(status=Status.COMPLETED, result=output)
    await store.commit(facts.task.id, 1, facts.add(completed("a", output=output), end))
    assert await store.events(facts.task.id) == facts.all
    [row] = await store.results(facts.task.id)
    task = await store.task(facts.task.id)
    assert task is not None
    assert row.output == task.result == output


texts = st.text(st.characters(exclude_categories=()), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)
outputs = st.dictionaries(texts, values, max_size=3)
facts_of_any_text = st.one_of(
    st.builds(AttemptStarted, subtask_id=texts, attempt=st.just(1), agent_id=texts),
    st.builds(
        AttemptFinished,
        subtask_id=texts,
        attempt=st.just(1),
        agent_id=texts,
        status=st.just(Status.COMPLETED),
        output=st.none() | outputs,
        error=st.none() | texts,
    ),
    st.builds(SubtaskFinished, subtask_id=texts, status=st.just(Status.FAILED)),
    st.builds(TaskFinished, status=st.just(Status.FAILED), result=outputs),
)


@given(fact=facts_of_any_text)
def test_an_acceptable_fact_holds_nothing_that_is_refused(fact: Fact) -> None:
    kept = acceptable(fact, "because")
    text = to_json(kept)
    assert type(kept) is type(fact)
    assert from_json(text) == kept
    assert clean_value(text) == text
    assert "\\u0000" not in text.replace("\\\\", "")


@given(fact=facts_of_any_text)
def test_what_can_be_written_is_read_as_it_was(fact: Fact) -> None:
    assert from_json(to_json(acceptable(fact, ""))) == acceptable(fact, "")
