"""A budget is asked before each request; running calls count; days turn."""

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.gateway.spending.budget import Budget, Refusal
from mas.model import Usage

NOON = datetime(2026, 11, 25, 12).astimezone()
TOMORROW = NOON + timedelta(days=1)


def usd(cost: float, tokens: int = 0) -> Usage:
    return Usage(input_tokens=tokens, cost_usd=cost)


def test_without_limits_all_goes() -> None:
    budget = Budget(None, None, None)
    budget.settle("a", usd(1e9, 10**12))
    assert budget.refusal(NOON) is None
    assert budget.warning() is None


def test_a_spent_budget_refuses_and_says_what_to_do() -> None:
    budget = Budget(0.5, None, None)
    budget.settle("a", usd(0.49))
    assert budget.refusal(NOON) is None
    budget.run("b", usd(0.03))
    assert budget.refusal(NOON) == Refusal(
        kind="task_usd",
        reason="the budget of $0.50 is spent: $0.52 used",
        hint="go on with mas resume {task} --budget MORE",
    )


def test_tokens_are_counted_as_budgets_do() -> None:
    budget = Budget(None, 100_000, None)
    kinds = Usage(
        input_tokens=50_000,
        output_tokens=20_000,
        cache_write_tokens=29_999,
        cache_read_tokens=10**6,
        unpriced_tokens=10**6,
    )
    budget.settle("a", kinds)
    assert budget.refusal(NOON) is None
    budget.settle("b", Usage(output_tokens=1))
    refusal = budget.refusal(NOON)
    assert refusal is not None
    assert refusal.kind == "task_tokens"
    assert refusal.reason == "the budget of 100,000 tokens is spent: 100,000 used"
    assert refusal.hint == "go on with mas resume {task} --budget-tokens MORE"


def test_a_days_budget_counts_what_others_spent() -> None:
    budget = Budget(None, None, 5.0, spent_today_usd=1.0)
    budget.run("a", usd(1.5))
    budget.others_today(2.0)
    assert budget.refusal(NOON) is None
    budget.others_today(2.5)
    refusal = budget.refusal(NOON)
    assert refusal is not None
    assert refusal.kind == "day_usd"
    assert refusal.reason == "the budget of $5.00 a day is spent: $5.00 used"
    assert refusal.hint == "it goes on tomorrow, or raise limits.budget_usd_per_day"
    budget.others_today(0.0)
    assert budget.refusal(NOON) is None


def test_a_new_date_begins_with_nothing_spent() -> None:
    budget = Budget(None, None, 1.0, spent=usd(9.0), spent_today_usd=0.9)
    budget.settle("a", usd(0.2))
    assert budget.refusal(NOON) is not None
    assert budget.refusal(NOON + timedelta(hours=11, minutes=59)) is not None
    assert budget.refusal(NOON + timedelta(hours=12)) is None
    budget.settle("b", usd(1.0))
    assert budget.refusal(TOMORROW) is not None


def test_a_call_over_midnight_counts_for_the_day_of_its_end() -> None:
    budget = Budget(None, None, 1.0)
    assert budget.refusal(NOON) is None
    budget.run("a", usd(1.0))
    assert budget.refusal(TOMORROW) is not None
    budget.settle("a", usd(1.1))
    assert budget.spent_today_usd == pytest.approx(1.1)
    assert budget.refusal(TOMORROW) is not None


def test_a_new_date_does_not_renew_the_tasks_budget() -> None:
    budget = Budget(1.0, None, None, spent=usd(1.0))
    assert budget.refusal(NOON) is not None
    assert budget.refusal(TOMORROW) is not None


def test_what_earlier_runs_spent_counts() -> None:
    assert Budget(1.0, None, None, spent=usd(1.0)).refusal(NOON) is not None
    assert Budget(1.0, None, None, spent=usd(0.9)).refusal(NOON) is None


def test_ten_times_ten_cents_are_a_dollar() -> None:
    budget = Budget(1.0, None, None)
    for number in range(10):
        budget.settle(f"{number}", usd(0.1))
    assert budget.spent.cost_usd < 1
    assert budget.refusal(NOON) is not None


def test_a_call_counts_once() -> None:
    budget = Budget(1.0, None, None)
    budget.run("a", usd(0.3))
    budget.run("a", usd(0.4))
    assert budget.spent.cost_usd == pytest.approx(0.4)
    budget.settle("a", usd(0.5))
    budget.settle("a", usd(0.5))
    budget.run("a", usd(0.5))
    assert budget.spent.cost_usd == pytest.approx(0.5)


@pytest.mark.parametrize("limit", [0, 0.0, -1, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_budget_of_nothing_is_none(limit: float, place: int) -> None:
    limits: list[float | None] = [None, None, None]
    limits[place] = limit
    with pytest.raises(ValueError, match="is no budget"):
        Budget(limits[0], limits[1], limits[2])  # type: ignore[arg-type]


def test_a_warning_is_given_once_a_limit() -> None:
    budget = Budget(0.5, 1000, 1.0)
    budget.settle("a", usd(0.39, 799))
    assert budget.warning() is None
    budget.run("b", usd(0.02, 1))
    assert budget.warning() == "80 % of the budget of $0.50 is used: $0.41"
    assert budget.warning() == "80 % of the budget of 1,000 tokens is used: 800"
    assert budget.warning() is None
    budget.settle("b", usd(0.5))
    assert budget.warning() == "80 % of the budget of $1.00 a day is used: $0.89"
    assert budget.warning() is None


def test_another_day_warns_again() -> None:
    budget = Budget(None, None, 1.0)
    assert budget.refusal(NOON) is None
    budget.settle("a", usd(0.8))
    assert budget.warning() is not None
    assert budget.refusal(TOMORROW) is None
    assert budget.warning() is None
    budget.settle("b", usd(0.85))
    assert budget.warning() == "80 % of the budget of $1.00 a day is used: $0.85"


@pytest.mark.parametrize(
    ("limit", "used", "words"),
    [
        (12.0, 12.3456, "the budget of $12.00 is spent: $12.35 used"),
        (0.125, 0.12567, "the budget of $0.1250 is spent: $0.1257 used"),
        (0.002, 0.0025, "the budget of $0.002000 is spent: $0.002500 used"),
    ],
)
def test_small_budgets_are_shown_finely(limit: float, used: float, words: str) -> None:
    refusal = Budget(limit, None, None, spent=usd(used)).refusal(NOON)
    assert refusal is not None
    assert refusal.reason == words


CALLS = st.tuples(
    st.sampled_from(["begin", "run", "settle"]),
    st.integers(0, 9),  # which of the running calls
    st.integers(0, 400),  # what it used more, in thousandths and tokens
)


@given(st.integers(1, 1000), st.sampled_from(["usd", "tokens", "day"]), st.data())
def test_no_request_goes_out_once_the_limit_is_reached(
    limit: int, kind: str, data: st.DataObject
) -> None:
    budget = Budget(
        limit / 1000 if kind == "usd" else None,
        limit if kind == "tokens" else None,
        limit / 1000 if kind == "day" else None,
    )
    used: dict[str, int] = {}
    running: list[str] = []
    under_way: dict[str, int] = {}  # at the last admission, with what they had used
    for action, which, more in data.draw(st.lists(CALLS, max_size=60)):
        total = sum(used.values())
        if action == "begin":
            admitted = budget.refusal(NOON) is None
            assert admitted == (total < limit)
            if admitted:
                call_id = f"call-{len(used)}"
                used[call_id] = 0
                budget.run(call_id, Usage())
                running.append(call_id)
                under_way = {call: used[call] for call in running}
        elif running:
            call_id = running[which % len(running)]
            used[call_id] += more
            usage = usd(used[call_id] / 1000, used[call_id])
            if action == "run":
                budget.run(call_id, usage)
            else:
                running.remove(call_id)
                for _ in range(2):
                    budget.settle(call_id, usage)
        assert budget.spent.tokens == sum(used.values())
        assert budget.spent.cost_usd == pytest.approx(sum(used.values()) / 1000)
        since = sum(used[call] - before for call, before in under_way.items())
        assert sum(used.values()) < limit + since or not used
