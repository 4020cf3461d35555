"""What headers say, nonsense left out; what is left by them is never overspent."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.gateway.exchange import Headers
from mas.gateway.pacing.limits import Limits, Report, Window, read

WALL = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def headers(**values: str) -> Headers:
    return tuple(
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in values.items()
    )


def limit(kind: str, most: object, remaining: object, reset: object) -> Headers:
    parts = {"limit": most, "remaining": remaining, "reset": reset}
    return tuple(
        (f"anthropic-ratelimit-{kind}-{part}".encode(), str(value).encode())
        for part, value in parts.items()
        if value is not None
    )


def report(
    kind: str, remaining: int, *, most: int = 100, reset_s: float = 60
) -> Report:
    window = Window(limit=most, remaining=remaining, reset_s=reset_s)
    return Report(windows={kind: window})


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("38", 38.0),
        ("1.5", 1.5),
        ("Sun, 01 Mar 2026 12:00:38 GMT", 38.0),
        ("Sun, 01 Mar 2026 13:00:38 +0100", 38.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(words: str, seconds: float) -> None:
    assert read(headers(retry_after=words), WALL).retry_after_s == seconds


def test_milliseconds_are_more_exact() -> None:
    both = headers(retry_after="2", retry_after_ms="1250")
    assert read(both, WALL).retry_after_s == 1.25
    odd = headers(retry_after="2", retry_after_ms="soon")
    assert read(odd, WALL).retry_after_s == 2.0


@pytest.mark.parametrize(
    "words",
    [
        "", "0", "-5", "soon", "nan", "inf", "1e400", "99999999999", "\xb2",
        "Sun, 01 Mar 2026 11:00:00 GMT", "Sun, 99 Mar 2026 12:00:38 GMT",
        "Sun, 01 Mar 2026 12:00:38 -0000", "2026-03-01T12:00:38Z",
    ],
)  # fmt: skip
def test_a_retry_after_that_makes_no_sense_is_ignored(words: str) -> None:
    assert read(headers(retry_after=words), WALL).retry_after_s is None


def test_windows_are_read() -> None:
    found = read(
        limit("requests", 50, 49, "2026-03-01T12:00:01Z")
        + limit("input-tokens", 30000, 0, "2026-03-01T12:01:00.5+00:00")
        + limit("output-tokens", None, 8000, "2026-03-01T12:00:10Z"),
        WALL,
    )
    assert found.windows == {
        "requests": Window(limit=50, remaining=49, reset_s=1.0),
        "input-tokens": Window(limit=30000, remaining=0, reset_s=60.5),
        "output-tokens": Window(limit=None, remaining=8000, reset_s=10.0),
    }


@pytest.mark.parametrize(
    ("most", "remaining", "reset"),
    [
        (50, 51, "2026-03-01T12:00:01Z"),
        (50, -1, "2026-03-01T12:00:01Z"),
        (0, 0, "2026-03-01T12:00:01Z"),
        ("many", 1, "2026-03-01T12:00:01Z"),
        (50, "some", "2026-03-01T12:00:01Z"),
        (50, "1.5", "2026-03-01T12:00:01Z"),
        (50, "9" * 5000, "2026-03-01T12:00:01Z"),
        (50, None, "2026-03-01T12:00:01Z"),
        (50, 1, "2026-03-01T11:59:59Z"),
        (50, 1, "2026-03-01T12:00:01"),
        (50, 1, "2036-03-01T12:00:01Z"),
        (50, 1, "soon"),
        (50, 1, 1772366401),
        (50, 1, None),
    ],
)
def test_a_window_that_makes_no_sense_is_ignored(
    most: object, remaining: object, reset: object
) -> None:
    assert read(limit("requests", most, remaining, reset), WALL) == Report()


@pytest.mark.parametrize(
    ("status", "reset", "seconds"),
    [
        ("rejected", WALL + timedelta(hours=2), 7200.0),
        ("allowed", WALL + timedelta(hours=2), None),
        ("allowed_warning", WALL + timedelta(hours=2), None),
        ("rejected", WALL - timedelta(hours=2), None),
        ("rejected", WALL + timedelta(days=400), None),
    ],
)
def test_a_subscription_that_is_used_up(
    status: str, reset: datetime, seconds: float | None
) -> None:
    said = headers(
        anthropic_ratelimit_unified_status=status,
        anthropic_ratelimit_unified_reset=str(int(reset.timestamp())),
    )
    assert read(said, WALL).rejected_s == seconds


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"retry-after", b"retry-after-ms",
                    b"anthropic-ratelimit-requests-limit",
                    b"anthropic-ratelimit-requests-remaining",
                    b"anthropic-ratelimit-requests-reset",
                    b"anthropic-ratelimit-unified-status",
                    b"anthropic-ratelimit-unified-reset",
                ]
            ),
            st.binary(max_size=40)
            | st.sampled_from([b"rejected", b"5", b"2026-03-01T12:00:01Z"])
            | st.floats().map(lambda number: str(number).encode()),
        )
    )
)  # fmt: skip
def test_nothing_in_a_header_does_harm(said: list[tuple[bytes, bytes]]) -> None:
    for zone in (UTC, timezone(timedelta(hours=14))):
        found = read(tuple(said), WALL.astimezone(zone))
        for seconds in (found.retry_after_s, found.rejected_s):
            assert seconds is None or 0 < seconds <= 32 * 86400


def test_with_nothing_left_one_waits_for_what_comes_back() -> None:
    limits = Limits()
    limits.sent(1, "m", 0)
    limits.answered(1, report("requests", 0, most=60, reset_s=30), now=100.0)
    assert limits.earliest("m", 0, 100.0) == pytest.approx(100.5)
    assert limits.earliest("m", 0, 100.5) == 100.5


def test_what_is_in_the_air_may_not_have_been_counted() -> None:
    limits = Limits()
    for seq in (1, 2, 3):
        limits.sent(seq, "m", 0)
    limits.answered(1, report("requests", 3), now=0.0)
    assert limits.earliest("m", 0, 0.0) == 0.0
    limits.sent(4, "m", 0)
    assert limits.earliest("m", 0, 0.0) > 0.0


def test_a_late_report_of_an_early_request_brings_nothing_back() -> None:
    limits = Limits()
    for seq in (1, 2):
        limits.sent(seq, "m", 0)
    limits.answered(2, report("requests", 0), now=0.0)
    limits.answered(1, report("requests", 50), now=0.0)
    assert limits.earliest("m", 0, 0.0) > 0.0


def test_each_model_has_its_own_limits() -> None:
    limits = Limits()
    limits.sent(1, "small", 0)
    limits.answered(1, report("requests", 0), now=0.0)
    assert limits.earliest("small", 0, 0.0) > 0.0
    assert limits.earliest("large", 0, 0.0) == 0.0


def test_tokens_are_waited_for_and_never_beyond_the_reset() -> None:
    limits = Limits()
    limits.sent(1, "m", 0)
    limits.answered(1, report("input-tokens", 0, most=6000), now=0.0)
    assert limits.earliest("m", 1000, 0.0) == pytest.approx(10.0)
    assert limits.earliest("m", 10**9, 0.0) == pytest.approx(60.0)
    assert limits.earliest("m", 10**9, 60.0) == 60.0


def test_without_a_limit_named_one_waits_for_the_reset() -> None:
    limits = Limits()
    window = Window(limit=None, remaining=0, reset_s=7)
    limits.sent(1, "m", 0)
    limits.answered(1, Report(windows={"tokens": window}), now=0.0)
    assert limits.earliest("m", 500, 0.0) == 7.0
    assert limits.earliest("m", 500, 7.0) == 7.0


def test_after_the_reset_no_more_than_the_limit_is_in_the_air() -> None:
    limits = Limits()
    limits.sent(1, "m", 0)
    limits.answered(1, report("requests", 0, most=2, reset_s=1), now=0.0)
    for seq in (2, 3):
        assert limits.earliest("m", 0, 5.0) == 5.0
        limits.sent(seq, "m", 0)
    assert limits.earliest("m", 0, 5.0) == math.inf
    limits.left_out(2)
    assert limits.earliest("m", 0, 5.0) == 5.0


def test_it_learns_that_most_tokens_come_from_the_cache() -> None:
    limits, most = Limits(), 30_000
    for seq in range(1, 20):
        limits.sent(seq, "m", 25_000)
        limits.answered(seq, report("input-tokens", 29_000, most=most), float(seq * 60))
    limits.sent(20, "m", 25_000)
    limits.sent(21, "m", 25_000)
    assert limits.earliest("m", 25_000, 1140.0) == 1140.0


@given(
    st.integers(1, 20),
    st.floats(0.5, 60),
    st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.integers(0, 30))),
)
def test_no_more_goes_out_than_was_left_and_came_back(
    most: int, reset_s: float, happenings: list[tuple[float, bool, int]]
) -> None:
    """Against an upstream that counts what arrives, and refills evenly."""
    limits = Limits()
    left, now, seq = most - 1.0, 0.0, 1
    per_s = most / reset_s
    limits.sent(seq, "m", 0)
    limits.answered(
        seq, report("requests", most - 1, most=most, reset_s=1 / per_s), now
    )
    in_air: list[tuple[int, int, float]] = []
    for passes_s, answers, which in happenings:
        now += passes_s
        left = min(most, left + passes_s * per_s)
        if answers and in_air:
            number, remaining, full_at = in_air.pop(which % len(in_air))
            if full_at > now:
                said = report("requests", remaining, most=most, reset_s=full_at - now)
                limits.answered(number, said, now)
            else:
                limits.answered(number, Report(), now)
        elif limits.earliest("m", 0, now) <= now:
            seq += 1
            left -= 1
            # Counts are whole in the headers, so it may be wrong by a part of one.
            assert left > -1
            limits.sent(seq, "m", 0)
            in_air.append((seq, max(0, int(left)), now + (most - left) / per_s))
