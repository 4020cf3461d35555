"""How many at a time and how many a second: down at once, up slowly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.gateway.pacing.pace import Concurrency, Pace


def refused_after(sends: int, spacing_s: float) -> tuple[Pace, float]:
    """A pace that lets ``sends`` through, and is refused the next one."""
    pace = Pace()
    for seq in range(1, sends + 2):
        pace.sent(seq, seq * spacing_s)
    now = (sends + 1) * spacing_s
    pace.refused(sends + 1, now, starts_round=True)
    return pace, now


def test_a_refusal_halves_what_was_in_flight() -> None:
    concurrency = Concurrency(32)
    concurrency.refused(5)
    assert concurrency.limit == 2


def test_the_limit_comes_back_by_one_for_its_own_number_of_successes() -> None:
    concurrency = Concurrency(32)
    concurrency.refused(8)
    limits = []
    for _ in range(40):
        concurrency.succeeded()
        limits.append(concurrency.limit)
    assert limits == sorted(limits)
    assert 4 + 5 + 6 + 7 <= limits.index(8) <= 5 + 6 + 7 + 8


@given(st.integers(1, 64), st.lists(st.none() | st.integers(1, 100)))
def test_the_limit_stays_between_one_and_the_most(
    most: int, happenings: list[int | None]
) -> None:
    concurrency = Concurrency(most)
    for in_flight in happenings:
        if in_flight is None:
            concurrency.succeeded()
        else:
            concurrency.refused(in_flight)
        assert 1 <= concurrency.limit <= most


def test_no_requests_at_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 0 requests"):
        Concurrency(0)


def test_there_is_no_pace_until_something_is_refused() -> None:
    pace = Pace()
    for seq in range(100):
        pace.sent(seq, 5.0)
    assert pace.rate(5.0) is None
    assert pace.earliest(5.0) == 5.0


def test_sending_goes_on_at_about_half_of_what_was_let_through() -> None:
    pace, now = refused_after(sends=10, spacing_s=0.05)
    assert pace.rate(now) == pytest.approx(0.9 * 10 / 2)
    assert pace.earliest(now) == now
    pace.sent(20, now)
    assert pace.earliest(now) == pytest.approx(now + 1 / 4.5)


def test_it_comes_near_the_refused_rate_quickly_and_passes_it_late() -> None:
    pace, now = refused_after(sends=10, spacing_s=0.05)
    rates = []
    for seq in range(100, 350):
        now = pace.earliest(now)
        pace.sent(seq, now)
        pace.succeeded(seq)
        rate = pace.rate(now)
        assert rate is not None
        rates.append(rate)
    assert rates == sorted(rates)
    assert rates[50] > 8
    assert rates[99] == pytest.approx(9)
    assert rates[150] < 10 < rates[170]
    assert rates[249] > 20


def test_a_pace_that_is_not_used_up_does_not_grow() -> None:
    pace, now = refused_after(sends=10, spacing_s=0.05)
    before = pace.rate(now)
    for seq in range(100, 140):
        now += 1.0
        pace.sent(seq, now)
        pace.succeeded(seq)
    assert pace.rate(now) == before


def test_a_quiet_time_makes_it_forget() -> None:
    pace, now = refused_after(sends=10, spacing_s=0.05)
    rates = [pace.rate(now + quiet_s) for quiet_s in (0, 60, 90, 120)]
    assert rates == pytest.approx([4.5, 4.5, 9, 18])
    assert pace.rate(now + 600) is None
    assert pace.rate(now + 1e9) is None


def test_more_refusals_of_a_round_only_mend_the_estimate() -> None:
    pace = Pace()
    for seq in range(1, 7):
        pace.sent(seq, 1.0)
    pace.refused(6, 1.1, starts_round=True)
    first = pace.rate(1.1)
    pace.refused(4, 1.2, starts_round=False)
    pace.refused(5, 1.2, starts_round=False)
    assert first == pytest.approx(0.9 * 5 / 2)
    assert pace.rate(1.2) == pytest.approx(0.9 * 3 / 2)


def test_refused_again_at_once_it_falls_by_no_more_than_half() -> None:
    pace, now = refused_after(sends=10, spacing_s=0.05)
    before = pace.rate(now + 20)
    pace.sent(50, now + 20)
    pace.refused(50, now + 20, starts_round=True)
    after = pace.rate(now + 20)
    assert before is not None
    assert after is not None
    assert before / 5 <= after <= before / 2


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=60))
def test_it_never_stops_altogether(happenings: list[tuple[float, bool]]) -> None:
    pace, now = refused_after(sends=3, spacing_s=0.01)
    for seq, (passes_s, is_refused) in enumerate(happenings, 100):
        now += passes_s
        pace.sent(seq, now)
        if is_refused:
            pace.refused(seq, now, starts_round=True)
        else:
            pace.succeeded(seq)
        assert now <= pace.earliest(now) <= now + 2.001
