"""What counts as success: the gate decides, but only after an orderly end."""

from pathlib import Path

import pytest

from mas.agent.outcome import MAX_ERROR_CHARS, SessionEnd, conclude, failed
from mas.gates import Verdict
from mas.model import FailureKind, Usage
from tests.agent.orders import an_order

ORDER = an_order(Path("/shared/7f0c/count"))
USAGE = Usage(input_tokens=3, cost_usd=0.1)
GOOD = Verdict(b"raw", {"success": True, "summary": "done"})
BAD = Verdict(faults=("output/result.json does not exist",))


def end(failure: FailureKind | None = None, error: str = "") -> SessionEnd:
    return SessionEnd(failure=failure, error=error, usage=USAGE)


def test_a_result_that_passes_the_gate_is_handed_on() -> None:
    done = conclude(ORDER, end(), GOOD)
    assert (done.result, done.failure, done.error) == (b"raw", None, None)
    assert (done.subtask_id, done.attempt, done.usage) == ("count", 1, USAGE)


def test_an_end_without_a_valid_result_lists_the_faults() -> None:
    done = conclude(ORDER, end(), BAD)
    assert done.failure is FailureKind.NO_RESULT
    assert "output/result.json does not exist" in (done.error or "")
    assert done.result is None


def test_a_result_counts_though_the_turns_ran_out() -> None:
    done = conclude(ORDER, end(FailureKind.MAX_TURNS, "reached 20 turns"), GOOD)
    assert (done.result, done.failure) == (b"raw", None)


def test_turns_that_ran_out_before_a_result_are_the_reason() -> None:
    done = conclude(ORDER, end(FailureKind.MAX_TURNS, "reached 20 turns"), BAD)
    assert done.failure is FailureKind.MAX_TURNS
    assert "reached 20 turns" in (done.error or "")
    assert "does not exist" in (done.error or "")


@pytest.mark.parametrize(
    "failure",
    [
        FailureKind.API_ERROR,
        FailureKind.AUTHENTICATION,
        FailureKind.REFUSAL,
        FailureKind.INACTIVITY,
        FailureKind.INTERNAL,
    ],
)
def test_a_result_does_not_count_after_a_broken_session(failure: FailureKind) -> None:
    done = conclude(ORDER, end(failure, "overloaded"), GOOD)
    assert (done.failure, done.error, done.result) == (failure, "overloaded", None)
    assert done.usage == USAGE


def test_a_reported_failure_gives_its_summary() -> None:
    verdict = Verdict(b"raw", {"success": False, "summary": "the page is gone"})
    done = conclude(ORDER, end(), verdict)
    assert done.failure is FailureKind.REPORTED_FAILURE
    assert done.error == "the page is gone"


def test_a_reported_failure_without_words_has_an_error_too() -> None:
    verdict = Verdict(b"raw", {"success": False, "summary": ""})
    assert conclude(ORDER, end(), verdict).error


def test_an_error_is_cut_to_what_a_frame_should_carry() -> None:
    error = failed(ORDER, FailureKind.INTERNAL, "x" * 10**7).error
    assert error is not None
    assert len(error) < MAX_ERROR_CHARS + 100
