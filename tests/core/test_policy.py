"""Back-off grows and is bounded; what cannot help is not tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.core.policy import (
    RestartIntensity,
    is_retryable,
    resumes_session,
    retry_delay_s,
)
from mas.model import FailureKind


def test_the_delay_doubles_up_to_30_seconds() -> None:
    assert [retry_delay_s(n) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert retry_delay_s(10**9) == 30


def test_without_a_failed_attempt_there_is_no_retry() -> None:
    with pytest.raises(ValueError, match="0 failed attempts"):
        retry_delay_s(0)


def test_what_another_attempt_cannot_change_is_final() -> None:
    final = {kind for kind in FailureKind if not is_retryable(kind)}
    assert final == {
        FailureKind.AUTHENTICATION,
        FailureKind.REFUSAL,
        FailureKind.CANCELLED,
    }


def test_a_session_goes_on_where_it_was_only_cut_off() -> None:
    resumed = {kind for kind in FailureKind if resumes_session(kind)}
    assert resumed == {
        FailureKind.AGENT_LOST,
        FailureKind.API_ERROR,
        FailureKind.AUTHENTICATION,
        FailureKind.INACTIVITY,
        FailureKind.INTERNAL,
    }


def test_five_crashes_in_a_minute_are_mended_and_the_sixth_is_not() -> None:
    intensity = RestartIntensity(max_restarts=5, window_s=60)
    for now in (0.0, 12.0, 24.0, 36.0, 48.0):
        assert intensity.record(now) is not None
    assert intensity.record(60.0) is None
    slower = RestartIntensity(max_restarts=5, window_s=60)
    for now in (0.0, 12.0, 24.0, 36.0, 48.0, 60.1):
        assert slower.record(now) is not None


def test_a_lone_crash_is_mended_at_once() -> None:
    intensity = RestartIntensity(max_restarts=5, window_s=60)
    assert intensity.record(0.0) == 0.0
    assert intensity.record(61.0) == 0.0


def test_a_streak_waits_longer_each_time_and_is_given_up() -> None:
    intensity = RestartIntensity(max_restarts=5, window_s=60)
    delays = [intensity.record(float(now)) for now in range(6)]
    assert delays == [0, 1, 2, 4, 6, None]


def test_crashes_are_forgotten_when_the_window_has_passed() -> None:
    intensity = RestartIntensity(max_restarts=1, window_s=10)
    assert intensity.record(0.0) == 0.0
    assert intensity.record(10.5) == 0.0
    assert intensity.record(20.0) is None


def test_no_restarts_allowed_means_given_up_at_once() -> None:
    assert RestartIntensity(max_restarts=0, window_s=60).record(1.0) is None


@given(st.integers(1, 30), st.floats(1, 1000))
def test_an_agent_that_dies_at_every_start_is_given_up(
    max_restarts: int, window_s: float
) -> None:
    intensity = RestartIntensity(max_restarts, window_s)
    now = 0.0
    for _ in range(max_restarts):
        delay_s = intensity.record(now)
        assert delay_s is not None
        now += delay_s
    assert now <= window_s / 2
    assert intensity.record(now) is None
