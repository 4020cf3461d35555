"""What one request learns, all heed; and every request is sent in the end."""

import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from mas.gateway.exchange import Headers
from mas.gateway.pacing.backoff import Backoff, Claim, Verdict, WaitKind

WALL = datetime(2026, 3, 1, 12, 15, tzinfo=timezone(timedelta(hours=2)))
PASS_ON, WAIT_ON = Verdict.PASS_ON, Verdict.WAIT_ON


def retry_after(seconds: float) -> Headers:
    return ((b"retry-after", str(seconds).encode()),)


def requests_left(remaining: int, *, most: int, reset_s: float) -> Headers:
    reset = (WALL + timedelta(seconds=reset_s)).isoformat()
    values = {"limit": most, "remaining": remaining, "reset": reset}
    return tuple(
        (f"anthropic-ratelimit-requests-{part}".encode(), str(value).encode())
        for part, value in values.items()
    )


class Bench:
    """A machine whose requests are answered by hand."""

    def __init__(self, longest_wait_s: float = 600, jitter: float = 0.0) -> None:
        self.machine = Backoff(longest_wait_s=longest_wait_s, jitter=lambda: jitter)

    def send(self, now: float, claim: Claim | None = None) -> Claim:
        claim = claim or self.machine.enter(now)
        assert self.machine.earliest(claim, now) <= now
        self.machine.sent(claim, now)
        return claim

    def answer(
        self, claim: Claim, status: int, now: float, headers: Headers = ()
    ) -> Verdict:
        return self.machine.answered(claim, status, headers, now, WALL)

    def earliest(self, now: float) -> float:
        claim = self.machine.enter(now)
        at = self.machine.earliest(claim, now)
        self.machine.leave(claim)
        return at

    def go_down(self, now: float) -> None:
        for _ in range(3):
            claim = self.send(now)
            assert self.machine.failed(claim, "connection refused", now) is PASS_ON
            self.machine.leave(claim)


@pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 403, 404, 413, 501, 520])
def test_an_answer_is_passed_on(status: int) -> None:
    bench = Bench()
    for _ in range(5):
        assert bench.answer(bench.send(0.0), status, 0.0) is PASS_ON
    assert not bench.machine.is_down
    assert bench.earliest(0.0) == 0.0


@pytest.mark.parametrize("status", [429, 529])
def test_a_refusal_waits_here(status: int) -> None:
    bench = Bench()
    claim = bench.send(0.0)
    assert bench.answer(claim, status, 0.5, retry_after(38)) is WAIT_ON
    assert bench.machine.in_flight == 0
    assert bench.earliest(0.5) == 38.5
    assert bench.earliest(38.5) == 38.5


def test_the_longest_retry_after_of_a_round_holds() -> None:
    bench = Bench()
    claims = [bench.send(0.0) for _ in range(3)]
    for claim, seconds in zip(claims, (5, 9, 2), strict=True):
        bench.answer(claim, 429, 1.0, retry_after(seconds))
    assert bench.earliest(1.0) == 10.0


def test_without_advice_the_waits_double_up_to_half_a_minute() -> None:
    bench = Bench()
    claim, now, waits = bench.machine.enter(0.0), 0.0, []
    for _ in range(7):
        bench.send(now, claim)
        bench.answer(claim, 429, now)
        at = bench.machine.earliest(claim, now)
        waits.append(at - now)
        now = at + 3  # the pace is no matter here
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_success_between_starts_the_waits_again() -> None:
    bench = Bench()
    for now in (0.0, 10.0):
        claim = bench.send(now)
        bench.answer(claim, 429, now)
        assert bench.machine.earliest(claim, now) == now + 1
        bench.send(now + 5, claim)
        assert bench.answer(claim, 200, now + 5) is PASS_ON
        bench.machine.leave(claim)


def test_jitter_lengthens_a_wait_by_a_tenth_at_most() -> None:
    bench = Bench(jitter=1.0)
    bench.answer(bench.send(0.0), 429, 0.0)
    assert bench.earliest(0.0) == pytest.approx(1.1)


def test_a_round_decreases_once() -> None:
    bench = Bench()
    claims = [bench.send(0.0) for _ in range(8)]
    for claim in claims:
        bench.answer(claim, 429, 0.1)
    assert bench.machine.most_in_flight == 4
    assert bench.earliest(0.1) == 1.1


def test_refused_twice_one_request_tries_for_all() -> None:
    bench = Bench()
    first, second = bench.send(0.0), bench.send(0.0)
    third = bench.machine.enter(0.0)
    for claim in (first, second):
        bench.answer(claim, 429, 0.0)
    bench.send(5.0, first)
    bench.answer(first, 429, 5.0)
    bench.send(20.0, first)
    assert bench.machine.earliest(second, 25.0) == math.inf
    bench.answer(first, 200, 25.0)
    bench.machine.leave(first)
    assert bench.machine.earliest(second, 30.0) == 30.0
    assert bench.machine.earliest(third, 30.0) == 30.0


def test_no_more_is_in_the_air_than_the_headers_say_is_left() -> None:
    bench = Bench()
    soon = requests_left(2, most=50, reset_s=60)
    bench.answer(bench.send(0.0), 200, 0.0, soon)
    bench.send(0.0)
    bench.send(0.0)
    assert bench.earliest(0.0) == pytest.approx(60 / 48)


def test_a_stream_is_in_flight_until_it_ends() -> None:
    bench = Bench()
    claims = [bench.send(0.0) for _ in range(32)]
    for claim in claims:
        bench.answer(claim, 200, 1.0)
    assert bench.earliest(1.0) == math.inf
    bench.machine.leave(claims[0])
    bench.machine.leave(claims[0])
    assert bench.machine.in_flight == 31
    assert bench.earliest(1.0) == 1.0


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_failures_are_passed_on_until_claude_is_taken_to_be_down(status: int) -> None:
    bench = Bench()
    for _ in range(3):
        assert bench.answer(bench.send(0.0), status, 0.0) is PASS_ON
    claim = bench.machine.enter(0.0)
    assert bench.machine.earliest(claim, 0.0) == 1.0
    bench.send(1.0, claim)
    assert bench.answer(claim, status, 1.5) is WAIT_ON
    assert bench.machine.earliest(claim, 1.5) == 3.5
    bench.send(3.5, claim)
    assert bench.answer(claim, 200, 4.0) is PASS_ON
    assert bench.earliest(4.0) == 4.0


def test_a_probe_whose_client_leaves_makes_way_for_another() -> None:
    bench = Bench()
    bench.go_down(0.0)
    probe = bench.send(1.0)
    assert bench.earliest(1.0) == math.inf
    bench.machine.leave(probe)
    assert bench.earliest(1.0) == 1.0


def test_who_leaves_unanswered_is_in_the_air_no_more() -> None:
    bench = Bench()
    bench.answer(bench.send(0.0), 200, 0.0, requests_left(0, most=1, reset_s=5))
    unanswered = bench.send(6.0)
    assert bench.earliest(6.0) == math.inf
    bench.machine.leave(unanswered)
    assert bench.earliest(6.0) == 6.0


def test_a_refusal_shows_that_claude_is_there() -> None:
    bench = Bench()
    bench.go_down(0.0)
    claim = bench.send(1.0)
    assert bench.answer(claim, 529, 1.0) is WAIT_ON
    assert not bench.machine.is_down


def test_what_is_waited_for_is_said() -> None:
    bench = Bench()
    claim = bench.send(0.0)
    assert bench.machine.waiting(0.0) is None
    bench.answer(claim, 429, 0.0, retry_after(38))
    wait = bench.machine.waiting(0.0)
    assert wait is not None
    assert wait.words == "the rate limit"
    assert (wait.left_s(0.0), wait.left_s(30.5)) == (38.0, 7.5)
    assert bench.machine.waiting(38.0) is None
    bench.machine.leave(claim)
    assert bench.machine.waiting(0.0) is None


def test_an_overload_is_said() -> None:
    bench = Bench()
    bench.answer(bench.send(0.0), 529, 0.0, retry_after(4))
    wait = bench.machine.waiting(0.0)
    assert wait is not None
    assert wait.words == "Claude, which is overloaded"
    assert wait.left_s(0.0) == 4.0


def test_an_outage_is_said() -> None:
    bench = Bench()
    bench.go_down(0.0)
    assert bench.machine.waiting(0.0) is None
    claim = bench.machine.enter(0.2)
    wait = bench.machine.waiting(0.2)
    assert wait is not None
    assert wait.words == "Claude, which cannot be reached (connection refused)"
    assert wait.left_s(0.2) == 0.8
    bench.send(1.0, claim)
    assert wait == bench.machine.waiting(1.0)
    assert wait.left_s(1.0) == 0.0


def test_a_wall_that_is_seen_ahead_is_said() -> None:
    bench = Bench()
    headers = requests_left(0, most=1, reset_s=20)
    bench.answer(bench.send(0.0), 200, 0.0, headers)
    bench.machine.enter(0.0)
    wait = bench.machine.waiting(0.0)
    assert wait is not None
    assert wait.kind is WaitKind.RATE_LIMIT
    assert wait.until_s == 20.0


def test_a_slow_pace_is_said_and_a_quick_one_is_not() -> None:
    bench = Bench()
    bench.answer(bench.send(0.0), 429, 0.0)  # nothing got through: half a request/s
    bench.send(10.0)
    bench.machine.enter(10.0)
    wait = bench.machine.waiting(10.0)
    assert wait is not None
    assert wait.words == "a turn: requests go out slowly after the rate limit"
    assert wait.left_s(10.0) == 2.0
    assert bench.machine.waiting(11.5) is None


def test_a_known_long_limit_suspends_with_its_time() -> None:
    bench = Bench(longest_wait_s=600)
    claim = bench.send(0.0)
    bench.answer(claim, 429, 0.0, retry_after(7500))
    suspend = bench.machine.suspension(0.0, WALL)
    assert suspend is not None
    assert suspend.reason == "the rate limit lasts until 14:20 (2 h 5 min)"
    assert suspend.until_s == 7500.0
    assert suspend.until == WALL + timedelta(seconds=7500)
    bench.machine.leave(claim)
    assert bench.machine.suspension(0.0, WALL) is None


def test_a_used_up_subscription_suspends_with_its_date() -> None:
    bench = Bench(longest_wait_s=600)
    reset = int((WALL + timedelta(days=2, hours=3)).timestamp())
    headers = (
        (b"anthropic-ratelimit-unified-status", b"rejected"),
        (b"anthropic-ratelimit-unified-reset", str(reset).encode()),
    )
    bench.answer(bench.send(0.0), 429, 0.0, headers)
    suspend = bench.machine.suspension(0.0, WALL)
    assert suspend is not None
    assert suspend.reason == "the rate limit lasts until 2026-03-03 15:15 (2 d 3 h)"


def test_a_subscription_that_is_used_up_and_answers_all_the_same_is_no_wall() -> None:
    bench = Bench()
    reset = int((WALL + timedelta(hours=3)).timestamp())
    headers = (
        (b"anthropic-ratelimit-unified-status", b"rejected"),
        (b"anthropic-ratelimit-unified-reset", str(reset).encode()),
    )
    bench.answer(bench.send(0.0), 200, 0.0, headers)
    assert bench.earliest(0.0) == 0.0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (429, "the rate limit has let nothing through for 1 min"),
        (529, "Claude has been overloaded for 1 min"),
        (503, "Claude could not be reached for 1 min (HTTP 503)"),
    ],
)
def test_what_never_ends_suspends_at_last(status: int, reason: str) -> None:
    bench = Bench(longest_wait_s=60)
    now = 100.0
    if status == 503:
        for _ in range(2):
            bench.answer(bench.send(now), status, now)
        first = bench.send(now)
        bench.answer(first, status, now)
        bench.machine.leave(first)
    claim = bench.machine.enter(now)
    while bench.machine.suspension(now, WALL) is None:
        now = max(now, bench.machine.earliest(claim, now))
        if bench.machine.suspension(now, WALL):
            break
        bench.send(now, claim)
        assert bench.answer(claim, status, now) is WAIT_ON
    suspend = bench.machine.suspension(now, WALL)
    assert suspend is not None
    assert suspend.reason == reason
    assert suspend.until is None
    assert 160 <= now < 200
    assert bench.machine.suspension_due() == 160.0


@pytest.mark.parametrize("status", [429, 529, 503])
def test_our_own_guess_of_when_to_try_is_no_known_limit(status: int) -> None:
    bench = Bench(longest_wait_s=1.5)
    if status == 503:
        bench.go_down(0.0)
    now, claim = 0.0, bench.machine.enter(0.0)
    for _ in range(2):  # the next try is then 2 s ahead
        now = max(now, bench.machine.earliest(claim, now))
        bench.answer(bench.send(now, claim), status, now)
    wait = bench.machine.waiting(now)
    assert wait is not None
    assert wait.left_s(now) > 1.5
    assert bench.machine.suspension(0.0, WALL) is None
    suspend = bench.machine.suspension(wait.until_s, WALL)
    assert suspend is not None
    assert "for 2 s" in suspend.reason
    assert suspend.until is None


def test_an_outage_whose_end_is_said_suspends_with_its_time() -> None:
    bench = Bench(longest_wait_s=600)
    bench.go_down(0.0)
    claim = bench.machine.enter(0.0)
    at = bench.machine.earliest(claim, 0.0)
    bench.answer(bench.send(at, claim), 503, at, retry_after(7200))
    suspend = bench.machine.suspension(at, WALL)
    assert suspend is not None
    assert suspend.reason == "the outage of Claude lasts until 14:15 (2 h)"


def test_a_trouble_of_yesterday_does_not_suspend_who_comes_today() -> None:
    bench = Bench(longest_wait_s=60)
    claim = bench.send(0.0)
    bench.answer(claim, 429, 0.0)
    bench.machine.leave(claim)
    bench.machine.enter(1e5)
    assert bench.machine.suspension(1e5, WALL) is None
    assert bench.machine.suspension_due() == 1e5 + 60


def test_waiting_behind_long_streams_suspends_nothing() -> None:
    bench = Bench(longest_wait_s=60)
    for claim in [bench.send(0.0) for _ in range(32)]:
        bench.answer(claim, 200, 0.0)
    bench.machine.enter(0.0)
    assert bench.machine.suspension(1e4, WALL) is None
    assert bench.machine.suspension_due() is None


def test_an_answer_to_nothing_is_refused() -> None:
    bench = Bench()
    with pytest.raises(RuntimeError, match="was not sent"):
        bench.answer(bench.machine.enter(0.0), 200, 0.0)


@given(st.integers(1, 40), st.integers(0, 5), st.floats(0.001, 30))
def test_when_all_goes_well_again_everybody_is_sent(
    waiters: int, refusals: int, answer_s: float
) -> None:
    bench = Bench()
    machine, now = bench.machine, 0.0
    claims = [machine.enter(now) for _ in range(waiters)]
    for _ in range(refusals):
        now = max(now, machine.earliest(claims[0], now))
        bench.send(now, claims[0])
        bench.answer(claims[0], 429, now)
    while claims:
        now = max(now, machine.earliest(claims[0], now))
        assert now < math.inf
        claim = claims.pop(0)
        bench.send(now, claim)
        now += answer_s
        assert bench.answer(claim, 200, now) is PASS_ON
        machine.leave(claim)
    assert machine.in_flight == 0


STATUSES = [200, 200, 200, 400, 429, 429, 500, 503, 529]


class Machine(RuleBasedStateMachine):
    """Any upstream, any clients: what is promised holds after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Backoff(longest_wait_s=100, most_in_flight=6)
        self.now = 0.0
        self.waiting: list[Claim] = []
        self.sent: list[Claim] = []
        self.streaming: list[Claim] = []
        self.not_before = 0.0
        self.sends = 0
        self.sends_at_decrease = 0
        self.number: dict[Claim, int] = {}

    @rule(passes_s=st.floats(0, 40))
    def time_passes(self, passes_s: float) -> None:
        self.now += passes_s

    @rule()
    def a_request_comes(self) -> None:
        self.waiting.append(self.machine.enter(self.now, tokens=100))

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 99))
    def one_is_sent(self, which: int) -> None:
        claim = self.waiting[which % len(self.waiting)]
        if self.machine.earliest(claim, self.now) > self.now:
            return
        assert self.now >= self.not_before
        if self.machine.is_down:
            assert not any(self.number[each] < 0 for each in self.sent)
        self.waiting.remove(claim)
        self.sends += 1
        self.number[claim] = -self.sends if self.machine.is_down else self.sends
        self.machine.sent(claim, self.now)
        self.sent.append(claim)
        assert self.machine.in_flight <= self.machine.most_in_flight

    @precondition(lambda self: self.sent)
    @rule(
        which=st.integers(0, 99),
        status=st.sampled_from(STATUSES),
        after_s=st.none() | st.integers(1, 90),
    )
    def one_is_answered(self, which: int, status: int, after_s: int | None) -> None:
        claim = self.sent.pop(which % len(self.sent))
        headers = retry_after(after_s) if after_s and status in (429, 529) else ()
        before = self.machine.most_in_flight
        verdict = self.machine.answered(claim, status, headers, self.now, WALL)
        if self.machine.most_in_flight < before:
            assert status in (429, 529)
            assert abs(self.number[claim]) > self.sends_at_decrease
            self.sends_at_decrease = self.sends
        if status in (429, 529):
            assert verdict is WAIT_ON
            if after_s:
                self.not_before = max(self.not_before, self.now + after_s)
        if status < 500 and not self.machine.is_down:
            # It closed: those who were sent as probes are probes no more.
            self.number = {each: abs(number) for each, number in self.number.items()}
        (self.waiting if verdict is WAIT_ON else self.streaming).append(claim)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99))
    def one_fails(self, which: int) -> None:
        claim = self.sent.pop(which % len(self.sent))
        verdict = self.machine.failed(claim, "no route", self.now)
        (self.waiting if verdict is WAIT_ON else self.streaming).append(claim)

    @rule(which=st.integers(0, 99))
    def one_leaves(self, which: int) -> None:
        everybody = [*self.waiting, *self.sent, *self.streaming]
        if not everybody:
            return
        claim = everybody[which % len(everybody)]
        for group in (self.waiting, self.sent, self.streaming):
            if claim in group:
                group.remove(claim)
        self.machine.leave(claim)

    @invariant()
    def the_limit_is_within_its_bounds(self) -> None:
        assert 1 <= self.machine.most_in_flight <= 6
        assert self.machine.in_flight == len(self.sent) + len(self.streaming)

    @invariant()
    def what_it_says_is_sound(self) -> None:
        wait = self.machine.waiting(self.now)
        assert wait is None or wait.words
        if not self.waiting and not self.sent:
            assert wait is None
            assert self.machine.suspension(self.now, WALL) is None

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if not self.sent and not self.streaming:
            for claim in self.waiting:
                assert self.machine.earliest(claim, self.now) < self.now + 100


TestMachine = Machine.TestCase
TestMachine.settings = hypothesis_settings(
    max_examples=100, stateful_step_count=60, deadline=None
)
