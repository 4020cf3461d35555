"""The table of prices: what it holds, whom an id means, what mas.toml may say."""

import math
from datetime import date
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from mas.config import DEFAULT_MODEL
from mas.errors import ConfigError
from mas.gateway.spending.prices import Price, Prices, Rates, TokenCounts

MILLION = 1_000_000
TABLE = Prices.load()


def price(model: str, prices: Prices = TABLE) -> Price:
    found = prices.of(model)
    assert found is not None
    return found


def test_the_table_is_dated_and_names_its_source() -> None:
    assert date(2026, 11, 1) < TABLE.date
    assert "platform.claude.com" in TABLE.source


@pytest.mark.parametrize(
    ("model", "rates"),
    [
        ("claude-sonnet-5-5", (2, 10, 0.1, 2.5, 4)),
        ("claude-opus-5-5", (4, 20, 0.2, 5, 8)),
        ("claude-haiku-5-5", (0.1, 0.5, 0.01, 0.125, 0.2)),
        ("claude-haiku-4-5", (1, 5, 0.1, 1.25, 2)),
        ("claude-sonnet-4-5", (3, 15, 0.3, 3.75, 6)),
        ("claude-opus-4-1", (15, 75, 1.5, 18.75, 30)),
    ],
)
def test_what_models_cost(model: str, rates: tuple[float, ...]) -> None:
    kinds = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    for kind, rate in zip(kinds, rates, strict=True):
        tokens = convert({kind: 10_000}, TokenCounts)
        assert price(model).cost(tokens) == pytest.approx(rate / 100)


def test_the_default_model_has_a_price() -> None:
    assert TABLE.of(DEFAULT_MODEL) is not None


def test_kinds_and_searches_add_up() -> None:
    tokens = TokenCounts(
        input=1000,
        output=2000,
        cache_read=30_000,
        cache_write_5m=4000,
        cache_write_1h=500,
        web_searches=3,
    )
    expected = 1000 * 2 + 2000 * 10 + 30_000 * 0.1 + 4000 * 2.5 + 500 * 4
    assert price("claude-sonnet-5-5").cost(tokens) == pytest.approx(
        expected / MILLION + 0.03
    )


def test_a_long_prompt_costs_more_as_a_whole() -> None:
    haiku = price("claude-haiku-5-5")
    short = TokenCounts(input=1, cache_read=99_999, output=1000)
    assert haiku.cost(short) == pytest.approx((0.1 + 99_999 * 0.01 + 500) / MILLION)
    long = TokenCounts(input=2, cache_read=99_999, output=1000)
    assert haiku.cost(long) == pytest.approx((1 + 99_999 * 0.05 + 2500) / MILLION)


def test_inference_in_the_us_costs_a_tenth_more_but_searches_do_not() -> None:
    tokens = TokenCounts(output=MILLION, web_searches=100, is_us_only=True)
    assert price("claude-sonnet-5-5").cost(tokens) == pytest.approx(11 + 1)


@pytest.mark.parametrize(
    ("model", "same_as"),
    [
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4-0"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("claude-sonnet-5-5[1m]", "claude-sonnet-5-5"),
        ("claude-sonnet-4-5-20250929[1m]", "claude-sonnet-4-5"),
    ],
)
def test_an_id_with_a_date_or_a_variant_is_the_same_model(
    model: str, same_as: str
) -> None:
    assert price(model) == price(same_as)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "claude",
        "claude-sonnet-5-7",
        "claude-sonnet-5-5-turbo",
        "claude-sonnet-5-52",
        "claude-sonnet-5-5-2025092",
        "claude-sonnet-5-5-202509290",
        "my-claude-sonnet-5-5",
        "Claude-Sonnet-5-5",
        "gpt-6-sol",
    ],
)
def test_another_model_has_no_price(model: str) -> None:
    assert TABLE.of(model) is None


@given(st.text(max_size=40))
def test_no_id_is_too_odd(model: str) -> None:
    assert TABLE.of(model) is None or model.startswith("claude-")


def test_the_users_price_overrules_the_table() -> None:
    prices = Prices.load({"claude-sonnet-5-5": {"input": 4, "output": 8}})
    found = price("claude-sonnet-5-5-20261231", prices)
    assert found.rates == Rates(
        input=4, output=8, cache_read=0.4, cache_write_5m=5, cache_write_1h=8
    )
    assert price("claude-opus-5-5", prices) == price("claude-opus-5-5")


def test_the_users_price_is_taken_as_it_is() -> None:
    prices = Prices.load({"claude-haiku-5-5": {"input": 1, "output": 0}})
    tokens = TokenCounts(input=MILLION, output=MILLION, is_us_only=True)
    assert price("claude-haiku-5-5", prices).cost(tokens) == 1


def test_an_unknown_model_gets_a_price_and_its_caches_too() -> None:
    section = {"input": 0.0, "output": 2.0, "cache_read": 3.0, "cache_write": 5.0}
    found = price("glm 9", Prices.load({"glm 9": section}))
    tokens = TokenCounts(cache_read=MILLION, cache_write_5m=MILLION)
    assert found.cost(tokens) == 8
    assert found.cost(TokenCounts(cache_write_1h=MILLION)) == 8


def test_a_price_for_a_dated_id_leaves_the_others_alone() -> None:
    prices = Prices.load({"claude-opus-4-5-20251101": {"input": 1, "output": 1}})
    assert price("claude-opus-4-5-20251101[1m]", prices).rates.input == 1
    assert price("claude-opus-4-5", prices).rates.input == 5


@pytest.mark.parametrize("key", ["input", "output", "cache_read", "cache_write"])
@pytest.mark.parametrize("value", [-1, -0.01, math.nan, math.inf, True, "3", None])
def test_what_is_no_price_is_refused_by_name(key: str, value: object) -> None:
    section = {"input": 1.0, "output": 2.0, key: cast(Any, value)}
    with pytest.raises(ConfigError) as caught:
        Prices.load({"my-model": section})
    assert caught.value.message == (
        f'[prices."my-model"] {key} is {value!r}, which is no price'
    )
    assert caught.value.hint == "a number of US dollars a million tokens, 0 or more"


@pytest.mark.parametrize(
    ("there", "missing"), [("input", "output"), ("output", "input")]
)
def test_input_and_output_are_needed(there: str, missing: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Prices.load({"my-model": {there: 1.0}})
    assert caught.value.message == f'[prices."my-model"] {missing} is missing'
    assert "0 or more" in caught.value.hint


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown key cache_hit") as caught:
        Prices.load({"my-model": {"input": 1, "output": 1, "cache_hit": 1}})
    assert caught.value.hint == "allowed there: input, output, cache_read, cache_write"
