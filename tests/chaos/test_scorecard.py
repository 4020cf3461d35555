"""The scorecard: what it adds up, and that it is not clean when it must not be."""

import pytest

from tests.chaos.plans import Injury
from tests.chaos.scorecard import Recovery, Result, add_up
from tests.crash.verdict import Fault, Kind


def result(*faults: Fault, seconds: float = 1.0) -> Result:
    return Result(
        seed="x.1",
        real=False,
        story="/stories/x.1",
        commands=2,
        completed=7,
        injuries=[Injury.KILL_SUPERVISOR, Injury.KILL_VALKEY],
        api_faults=1,
        recoveries=[Recovery(Injury.KILL_SUPERVISOR, seconds)],
        faults=list(faults),
    )


def test_runs_are_added_up() -> None:
    card = add_up([result(seconds=1), result(seconds=2), result(seconds=6)])
    assert card.is_clean
    assert card.lines() == [
        "runs                           3, 0 of them with the real CLI",
        "commands                       6 of mas run and mas resume",
        "faults                         9",
        "  error of Claude's API        3",
        "  kill -9 supervisor           3",
        "  kill -9 valkey               3",
        "subtasks completed             21",
        "re-executed                    0 (must be 0)",
        "lost                           0 (must be 0)",
        "doubled                        0 (must be 0)",
        "begun too early                0 (must be 0)",
        "orphans                        0 (must be 0)",
        "keys without TTL               0 (must be 0)",
        "other failures                 0 (must be 0)",
        "recovery, median               2.00 s",
        "recovery, worst                6.00 s after kill -9 supervisor",
    ]


@pytest.mark.parametrize("kind", Kind)
def test_no_kind_of_fault_is_overlooked(kind: Kind) -> None:
    card = add_up([result(), result(Fault(kind, "of this kind"))])
    assert not card.is_clean
    assert sum(card.zeros.values()) == 1
    assert card.lines()[-1] == "failed: seed x.1: /stories/x.1"


def test_no_runs_have_no_recovery() -> None:
    card = add_up([])
    assert (card.median_recovery_s, card.worst_recovery_from) == (None, None)
    assert not any("recovery" in line for line in card.lines())
