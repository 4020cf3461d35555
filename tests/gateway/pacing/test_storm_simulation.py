"""The storm in virtual time: an upstream that counts, five clients, 200 calls."""

import heapq
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from random import Random
from statistics import mean
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.exchange import Headers
from mas.gateway.pacing.backoff import Backoff, Claim, Verdict
from tests.benchmarks.counters import COUNTERS, Counter

CLIENTS = 5
CALLS = 200
WALL = datetime(2026, 3, 1, tzinfo=UTC)
RATES = (3, 4, 5, 7, 10, 14, 20)
SEEDS = 8
ADVICE: dict[str, Headers] = {
    "retry-after": ((b"retry-after", b"1"),),
    "no-header": (),
}


class Outcome(NamedTuple):
    """What became of a storm."""

    succeeded: int
    refused: int
    seconds: float

    @property
    def refused_share(self) -> float:
        return self.refused / (self.succeeded + self.refused)

    @property
    def per_s(self) -> float:
        return self.succeeded / self.seconds


class Storm:
    """A discrete-event simulation around the pure machine."""

    def __init__(self, counter: Counter, advice: Headers, random: Random) -> None:
        self._accepts = counter
        self._advice = advice
        self._random = random
        self._backoff = Backoff(longest_wait_s=600)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._queue: deque[Claim] = deque()
        self._now = 0.0
        self._wakes: set[float] = set()
        self._unsent = CALLS
        self._succeeded = self._refused = 0

    def run(self) -> Outcome:
        for _ in range(CLIENTS):
            self._call()
        self._send()
        while self._events:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
            self._send()
        return Outcome(self._succeeded, self._refused, self._now)

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _call(self) -> None:
        if self._unsent:
            self._unsent -= 1
            self._queue.append(self._backoff.enter(self._now))

    def _send(self) -> None:
        while self._queue:
            at = self._backoff.earliest(self._queue[0], self._now)
            if at > self._now:
                # As a loop does: woken a little late, and once for each time.
                if at < float("inf") and at not in self._wakes:
                    self._wakes.add(at)
                    self._at(at + self._random.uniform(0, 0.002), lambda: None)
                return
            claim = self._queue.popleft()
            self._backoff.sent(claim, self._now)
            arrival = self._now + self._random.uniform(0.0005, 0.003)
            self._at(arrival, lambda claim=claim: self._arrives(claim))  # type: ignore[misc]

    def _arrives(self, claim: Claim) -> None:
        status = 200 if self._accepts(self._now) else 429
        then = self._now + self._random.uniform(0.01, 0.1)
        self._at(then, lambda: self._answer(claim, status))

    def _answer(self, claim: Claim, status: int) -> None:
        headers = self._advice if status == 429 else ()
        verdict = self._backoff.answered(claim, status, headers, self._now, WALL)
        if verdict is Verdict.WAIT_ON:
            self._refused += 1
            self._queue.append(claim)
            return
        self._backoff.leave(claim)
        self._succeeded += 1
        self._call()


@pytest.mark.parametrize("per_s", RATES)
@pytest.mark.parametrize("advice", ADVICE)
@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
def test_a_storm_is_weathered(
    counter: Callable[[float, float], Counter],
    advice: str,
    per_s: int,
    record_property: Callable[[str, object], None],
) -> None:
    outcomes = []
    for seed in range(SEEDS):
        random = Random(seed)
        counts = counter(per_s, random.random())
        outcomes.append(Storm(counts, ADVICE[advice], random).run())
    refused = [outcome.refused_share for outcome in outcomes]
    used = [outcome.per_s / per_s for outcome in outcomes]
    figures = (
        f"refused {mean(refused):.1%}, at worst {max(refused):.1%}; "
        f"of {per_s}/s used {mean(used):.0%}, at worst {min(used):.0%}"
    )
    record_property("storm", figures)
    assert {outcome.succeeded for outcome in outcomes} == {CALLS}, figures
    assert max(refused) < 0.05, figures
    assert mean(refused) < 0.03, figures
    assert min(used) > 0.6, figures


@given(
    st.sampled_from(list(COUNTERS.values())), st.integers(3, 20), st.integers(0, 2**32)
)
@settings(max_examples=50, deadline=None)
def test_no_storm_is_an_exception(
    counter: Callable[[float, float], Counter], per_s: int, seed: int
) -> None:
    random = Random(seed)
    counts = counter(per_s, random.random())
    outcome = Storm(counts, ADVICE["no-header"], random).run()
    assert outcome.succeeded == CALLS
    assert outcome.refused_share < 0.05
    assert outcome.per_s > 0.6 * per_s


def test_without_a_limit_nothing_is_slowed_down() -> None:
    random = Random(0)
    outcome = Storm(lambda _: True, (), random).run()
    assert outcome.refused == 0
    assert outcome.per_s > 60  # five clients, 55 ms an answer
