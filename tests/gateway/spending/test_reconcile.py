"""The ledger against what the CLI reports: equal, or a line that says what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mas.gateway.spending.reconcile import reconcile
from mas.model import Usage

COUNTED = Usage(
    input_tokens=1000,
    output_tokens=200,
    cache_read_tokens=30_000,
    cache_write_tokens=4000,
    cost_usd=0.05,
)
KINDS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"]

TOKENS = st.integers(0, 10**9)
USAGES = st.builds(
    Usage, TOKENS, TOKENS, TOKENS, TOKENS, st.floats(0, 1e4, allow_subnormal=False)
)


@given(USAGES)
def test_equal_is_equal(usage: Usage) -> None:
    assert reconcile(usage, usage) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [1, -1])
def test_one_token_too_many_or_too_few_is_told(kind: str, by: int) -> None:
    said = getattr(COUNTED, kind) - by
    line = reconcile(COUNTED, structs.replace(COUNTED, **{kind: said}))
    words = kind.replace("_", " ")
    expected = f"{words}: {said + by} counted, {said} reported ({by:+})"
    assert line == expected


@given(USAGES, USAGES)
def test_the_line_names_every_kind_that_differs_and_no_other(
    counted: Usage, reported: Usage
) -> None:
    line = reconcile(counted, reported) or ""
    assert "\n" not in line
    told = {part.partition(":")[0].replace(" ", "_") for part in line.split("; ")}
    differing = {k for k in KINDS if getattr(counted, k) != getattr(reported, k)}
    assert told - {"cost", ""} == differing


@pytest.mark.parametrize(
    ("cost_usd", "agrees"),
    [(0.05, True), (0.0504, True), (0.0496, True), (0.0506, False), (0.0494, False)],
)
def test_the_cost_may_be_one_percent_off(cost_usd: float, agrees: bool) -> None:
    line = reconcile(COUNTED, structs.replace(COUNTED, cost_usd=cost_usd))
    assert (line is None) == agrees


def test_a_cost_that_differs_is_told_with_its_difference() -> None:
    line = reconcile(COUNTED, structs.replace(COUNTED, cost_usd=0.04))
    assert line == "cost: $0.050000 counted, $0.040000 reported (+0.010000)"


def test_costs_of_nothing_are_the_same() -> None:
    assert reconcile(Usage(cost_usd=1e-9), Usage()) is None
    assert reconcile(Usage(), Usage(cost_usd=0.01)) is not None


@pytest.mark.parametrize(
    ("output_tokens", "agrees"),
    [(200, True), (150, True), (250, True), (149, False), (251, False)],
)
def test_estimated_output_may_be_off_by_as_much_again(
    output_tokens: int, agrees: bool
) -> None:
    counted = structs.replace(COUNTED, estimated_tokens=50)
    line = reconcile(counted, structs.replace(COUNTED, output_tokens=output_tokens))
    assert (line is None) == agrees


def test_an_estimate_excuses_its_share_of_the_cost_and_no_more() -> None:
    counted = structs.replace(COUNTED, estimated_tokens=50)  # a quarter of the output
    assert reconcile(counted, structs.replace(COUNTED, cost_usd=0.0380)) is None
    line = reconcile(counted, structs.replace(COUNTED, cost_usd=0.0360))
    assert line is not None
    assert line.startswith("cost: ")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "output_tokens"])
def test_an_estimate_excuses_no_other_tokens(kind: str) -> None:
    counted = structs.replace(COUNTED, estimated_tokens=50)
    said = getattr(COUNTED, kind) - 1
    assert reconcile(counted, structs.replace(COUNTED, **{kind: said})) is not None


def test_the_cost_of_an_unknown_model_is_not_compared_but_its_tokens_are() -> None:
    counted = structs.replace(COUNTED, cost_usd=0.0, unpriced_tokens=35_200)
    assert reconcile(counted, COUNTED) is None
    line = reconcile(counted, structs.replace(COUNTED, input_tokens=1001))
    assert line == "input tokens: 1000 counted, 1001 reported (-1)"
