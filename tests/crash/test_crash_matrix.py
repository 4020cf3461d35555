"""Runs that are killed at a point of the code, gone on with, and lose nothing.

A sample of the table, the same each time; ``python -m tests.full`` dies every death.
"""

import pytest

from tests.crash.conftest import SURVEYED
from tests.crash.matrix import Case, Survey, run_cases
from tests.crash.points import JOURNAL_WRITES, Point, Side, sample
from tests.crash.scenarios import Scenario
from tests.crash.trial import Arena, Trial

SAMPLES = {
    Scenario.PLAIN: 6,
    Scenario.TROUBLED: 1,
    Scenario.RESUMED: 3,
    Scenario.DISCONNECTED: 2,
    Scenario.AGENT: 1,
}
WITH_THE_REAL_CLI = Case(Scenario.REAL, Point(JOURNAL_WRITES[-1], Side.LEAVES, 2))
NUMBER = sum(SAMPLES.values()) + 1
LEAST_SHARE = 0.7
"""Of the functions in the table, so many are reached by some scenario."""


@pytest.fixture(scope="session")
def cases(undisturbed: Survey) -> list[Case]:
    table = undisturbed.cases()
    sampled = [
        Case(scenario, point)
        for scenario, number in SAMPLES.items()
        for point in sample(
            (case.point for case in table if case.scenario is scenario), number
        )
    ]
    return [*sampled, WITH_THE_REAL_CLI]


@pytest.fixture(scope="session")
def trials(arena: Arena, cases: list[Case]) -> list[Trial]:
    return run_cases(arena, cases)


@pytest.mark.parametrize("scenario", SURVEYED)
def test_what_is_not_disturbed_passes_the_same_judgement(
    undisturbed: Survey, scenario: Scenario
) -> None:
    assert undisturbed.trials[scenario].faults == []


def test_most_functions_are_reached(undisturbed: Survey) -> None:
    assert undisturbed.share_reached >= LEAST_SHARE, undisturbed.unreached
    reached = {case.point.function for case in undisturbed.cases()}
    assert set(JOURNAL_WRITES) <= reached


@pytest.mark.parametrize("index", range(NUMBER))
def test_a_death_loses_nothing(
    cases: list[Case], trials: list[Trial], index: int
) -> None:
    assert trials[index].faults == [], f"{cases[index]}\n{trials[index].story}"


def test_the_points_are_really_reached(cases: list[Case], trials: list[Trial]) -> None:
    """All but a few, whose second call depends on how facts fell into batches."""
    missed = [
        str(case)
        for case, trial in zip(cases, trials, strict=True)
        if not trial.reached
    ]
    assert len(missed) <= NUMBER // 4, missed
