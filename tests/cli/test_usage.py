"""What model calls took, in words and in cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.cli.usage import (
    cache_share,
    cache_words,
    cost_cell,
    cost_words,
    token_words,
    tokens_cell,
)
from mas.model import Usage

PRICED = Usage(30_000, 4_300, cost_usd=0.41)
PARTLY = Usage(30_000, 4_300, cost_usd=0.41, unpriced_tokens=9)
UNPRICED = Usage(30_000, 4_300, unpriced_tokens=34_300)
CUT = Usage(30_000, 4_300, cost_usd=0.41, estimated_tokens=300)


@pytest.mark.parametrize(
    ("used", "in_cells", "in_words", "of_budget"),
    [
        (Usage(), ("", ""), ("", ""), "$0.00 of $0.50"),
        (PRICED, ("34.3k", "$0.41"), ("34.3k tokens", "$0.41"), "$0.41 of $0.50"),
        (
            PARTLY,
            ("34.3k", "$0.41+?"),
            ("34.3k tokens", "$0.41 + ?"),
            "$0.41 + ? of $0.50",
        ),
        (UNPRICED, ("34.3k", "?"), ("34.3k tokens", "cost not known"), "? of $0.50"),
        (CUT, ("~34.3k", "~$0.41"), ("~34.3k tokens", "~$0.41"), "~$0.41 of $0.50"),
    ],
)
def test_what_is_not_exact_or_not_known_is_marked(
    used: Usage, in_cells: tuple[str, str], in_words: tuple[str, str], of_budget: str
) -> None:
    assert (tokens_cell(used), cost_cell(used)) == in_cells
    assert (token_words(used), cost_words(used)) == in_words
    assert cost_words(used, 0.5) == of_budget


def test_a_little_is_not_nothing_and_not_about() -> None:
    used = Usage(3, 1, cost_usd=0.001, estimated_tokens=1)

    assert cost_cell(used) == cost_words(used) == "<$0.01"
    assert cost_words(used, 5) == "<$0.01 of $5.00"
    assert cost_words(used, 0.005) == "~$0.0010 of $0.0050"
    assert cost_cell(used, digits=4) == "~$0.0010"


def test_tokens_are_told_of_their_budget() -> None:
    assert token_words(PRICED, 100_000) == "34.3k of 100k tokens"
    assert token_words(Usage(), 1_500_000) == "0 of 1.5M tokens"


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (0, ""),
        (1, "less than 1 % of the input read from the cache"),
        (9_999, "90 % of the input read from the cache"),
        (10**9, "99 % of the input read from the cache"),
    ],
)
def test_the_share_of_the_cache_is_rounded_down(read: int, words: str) -> None:
    used = Usage(1_000, 50, cache_read_tokens=read, cache_write_tokens=7)

    assert cache_words(cache_share(used)) == words
    assert cache_words(cache_share(Usage())) == ""


counts = st.integers(0, 10**10)
usages = st.builds(
    Usage, counts, counts, counts, counts, st.floats(0, 1e6), counts, counts
)


@given(usages, st.none() | st.floats(1e-6, 1e6), st.none() | st.integers(1, 10**10))
def test_any_usage_has_words(
    used: Usage, budget_usd: float | None, budget: int | None
) -> None:
    told = [tokens_cell(used), cost_cell(used), token_words(used, budget)]
    told += [cost_words(used, budget_usd), cache_words(cache_share(used))]

    assert all(text.isascii() and text.isprintable() for text in told)
    assert ("?" in told[1]) == (used.unpriced_tokens > 0)
    assert used.estimated_tokens == 0 or not used.tokens or told[0].startswith("~")
