"""What a task's calls took, added up."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mas.core.spending import ModelSpending, Spending, SubtaskSpending, add_up
from mas.model import CallState, ModelCall, Usage

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATES = list(CallState)
COUNTS = st.integers(0, 1000)


def call(number: int, **fields: Any) -> ModelCall:
    made: dict[str, Any] = {
        "id": f"{number}",
        "task_id": "t",
        "subtask_id": "a",
        "attempt": 1,
        "agent_id": "agent_1",
        "path": "/v1/messages",
        "model": "m",
        "state": CallState.COMPLETE,
        "started_at": START + timedelta(seconds=number),
    }
    return ModelCall(**(made | fields))


CALLS = st.lists(
    st.builds(
        call,
        st.integers(0, 100),
        subtask_id=st.sampled_from([None, "a", "b"]),
        attempt=st.integers(1, 2),
        model=st.sampled_from(["", "m", "n"]),
        state=st.sampled_from(STATES),
        usage=st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
        first_byte_s=st.none() | st.floats(0, 100),
    ),
    max_size=20,
)


def test_no_call_took_nothing() -> None:
    assert add_up([]) == Spending(
        usage=Usage(),
        by_model=(),
        by_subtask=(),
        calls=0,
        refused=0,
        median_first_byte_s=None,
        cache_read_share=None,
    )


def test_a_run_is_added_up_by_model_and_by_subtask() -> None:
    plan = Usage(input_tokens=100, output_tokens=10, cost_usd=0.5)
    cheap = Usage(input_tokens=10, cache_read_tokens=30, cost_usd=0.25)
    cut = Usage(cache_write_tokens=20, output_tokens=5, estimated_tokens=5)
    calls = [
        call(1, subtask_id=None, attempt=None, model="opus", usage=plan),
        call(2, subtask_id="b", usage=cheap, first_byte_s=3.0),
        call(3, usage=cheap, first_byte_s=1.0),
        call(4, state=CallState.REFUSED, http_status=429, first_byte_s=0.001),
        call(5, attempt=2, state=CallState.CUT, usage=cut, first_byte_s=2.0),
        call(6, state=CallState.UNANSWERED, model=""),
        call(7, state=CallState.OPEN, model="new", usage=Usage(unpriced_tokens=1)),
    ]
    everything = plan + cheap + cheap + cut + Usage(unpriced_tokens=1)
    of_a = cheap + cut + Usage(unpriced_tokens=1)
    assert add_up(calls) == Spending(
        usage=everything,
        by_model=(
            # as dear as the other, with more tokens
            ModelSpending(model="opus", calls=1, usage=plan),
            ModelSpending(model="m", calls=4, usage=cheap + cheap + cut),
            ModelSpending(model="new", calls=1, usage=Usage(unpriced_tokens=1)),
        ),
        by_subtask=(
            SubtaskSpending(subtask_id=None, calls=1, usage=plan),
            SubtaskSpending(subtask_id="b", calls=1, usage=cheap),
            SubtaskSpending(subtask_id="a", calls=5, usage=of_a),
        ),
        calls=7,
        refused=1,
        median_first_byte_s=2.0,
        cache_read_share=60 / 200,
    )


@given(CALLS)
def test_every_part_adds_up_to_the_whole(calls: list[ModelCall]) -> None:
    spending = add_up(calls)
    total = sum((each.usage for each in calls), Usage())
    assert spending.usage == total
    for parts in (spending.by_model, spending.by_subtask):
        assert sum((part.usage for part in parts), Usage()) == total
    assert sum(part.calls for part in spending.by_subtask) == spending.calls
    assert spending.calls == len(calls)
    costs = [part.usage.cost_usd for part in spending.by_model]
    assert costs == sorted(costs, reverse=True)
    assert spending.cache_read_share is None or 0 <= spending.cache_read_share <= 1


@given(CALLS)
def test_it_is_json_and_the_same_after_it(calls: list[ModelCall]) -> None:
    spending = add_up(calls)
    told = json.loads(json.dumps(msgspec.to_builtins(spending)))
    assert msgspec.convert(told, Spending) == spending
    assert set(told) == set(Spending.__struct_fields__)
