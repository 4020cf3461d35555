"""When Claude is down nobody is sent into it, and one request looks at a time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mas.gateway.pacing.breaker import Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for seq in (1, 2, 3):
        breaker.sent(seq)
        assert not breaker.failed(seq, "HTTP 503", 10.0)
    return breaker


def test_two_failures_leave_it_closed_and_the_third_opens_it() -> None:
    breaker = Breaker()
    breaker.failed(1, "HTTP 500", 0.0)
    breaker.failed(2, "connection refused", 0.0)
    assert breaker.earliest(0.0) == 0.0
    breaker.failed(3, "HTTP 502", 0.0)
    assert breaker.is_open
    assert breaker.reason == "HTTP 502"
    assert breaker.earliest(0.5) == 1.0


def test_an_answer_between_starts_the_count_again() -> None:
    breaker = Breaker()
    for seq in range(10):
        breaker.failed(seq, "HTTP 500", 0.0)
        breaker.failed(seq, "HTTP 500", 0.0)
        breaker.answered()
    assert not breaker.is_open


def test_probes_follow_each_other_more_and_more_slowly() -> None:
    breaker = opened()
    now, delays = 10.0, []
    for seq in range(4, 12):
        at = breaker.earliest(now)
        delays.append(at - now)
        now = at
        breaker.sent(seq)
        assert breaker.failed(seq, "HTTP 503", now)
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert breaker.earliest(11.0) == 11.0
    breaker.sent(4)
    assert breaker.is_probing
    assert breaker.earliest(1000.0) == math.inf


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = opened()
    breaker.sent(4)
    breaker.answered()
    assert not breaker.is_open
    assert breaker.earliest(11.0) == 11.0


def test_a_probe_whose_client_left_makes_way_for_another() -> None:
    breaker = opened()
    breaker.sent(4)
    breaker.left_out(4)
    assert breaker.earliest(11.0) == 11.0


def test_what_was_sent_before_it_opened_does_not_delay_the_probe() -> None:
    breaker = opened()
    breaker.sent(9)
    assert breaker.failed(4, "HTTP 500", 10.9)
    assert breaker.is_probing
    assert breaker.probe_at == 11.0


def test_the_upstream_may_ask_for_a_longer_rest() -> None:
    breaker = opened()
    breaker.sent(4)
    breaker.failed(4, "HTTP 503", 11.0, at_least_s=20.0)
    assert breaker.earliest(11.0) == 31.0


@given(st.lists(st.tuples(st.sampled_from("fasl"), st.floats(0, 40))))
def test_open_it_never_has_two_probes(happenings: list[tuple[str, float]]) -> None:
    breaker, now = opened(), 10.0
    probes: list[int] = []
    for seq, (what, passes_s) in enumerate(happenings, 10):
        now += passes_s
        if what == "s" and breaker.earliest(now) <= now:
            if breaker.is_open:
                assert not probes
                probes.append(seq)
            breaker.sent(seq)
        elif what == "f" and probes:
            assert breaker.failed(probes.pop(), "HTTP 500", now)
            assert breaker.earliest(now) > now
        elif what == "l" and probes:
            breaker.left_out(probes.pop())
        elif what == "a":
            breaker.answered()
            probes.clear()
