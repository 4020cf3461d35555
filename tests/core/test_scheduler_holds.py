"""An attempt that waits for its turn at Claude: its deadline stands still meanwhile."""

from collections.abc import Callable

import pytest

from mas.core.events import (
    AttemptHeld,
    CancelRequested,
    Record,
    StopAttempt,
    SuspendTask,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.model import FailureKind, Status
from tests.core.scheduling import (
    done,
    failed,
    finished,
    lost,
    ready,
    roster,
    scheduler,
    started,
    subtask,
)

STOP = StopAttempt("a", 1, "agent_1", "the attempt took longer than 100 s")


def held(key: str = "a", attempt: int = 1) -> AttemptHeld:
    return AttemptHeld(subtask_id=key, attempt=attempt, is_held=True)


def released(key: str = "a", attempt: int = 1) -> AttemptHeld:
    return AttemptHeld(subtask_id=key, attempt=attempt, is_held=False)


def holding(at: float = 30.0) -> Scheduler:
    """The attempt at a began at 0, has 100 s, and is held since ``at``."""
    s = scheduler(subtask("a"))
    s.handle(ready(), 0.0)
    assert s.handle(held(), at) == []
    s.check_invariants()
    return s


def test_time_alone_changes_nothing_while_it_is_held() -> None:
    s = holding()
    assert s.next_wakeup() is None
    assert s.handle(Tick(), 1e6) == []
    assert s.statuses["a"] is Status.IN_PROGRESS


def test_what_was_left_of_its_time_is_left_afterwards() -> None:
    s = holding(30.0)
    assert s.handle(released(), 1000.0) == []
    assert s.next_wakeup() == 1070.0
    assert s.handle(Tick(), 1069.9) == []
    assert s.handle(Tick(), 1070.0) == [STOP]


def test_each_hold_costs_nothing() -> None:
    s = holding(30.0)
    s.handle(released(), 130.0)
    s.handle(held(), 140.0)
    s.handle(released(), 1140.0)
    assert s.next_wakeup() == 1140.0 + 60.0


def test_told_twice_is_told_once() -> None:
    s = holding(30.0)
    assert s.handle(held(), 80.0) == []
    s.handle(released(), 100.0)
    assert s.handle(released(), 150.0) == []
    assert s.next_wakeup() == 170.0


def test_a_release_without_a_hold_changes_nothing() -> None:
    s = scheduler(subtask("a"))
    s.handle(ready(), 0.0)
    assert s.handle(released(), 50.0) == []
    assert s.next_wakeup() == 100.0


def test_a_hold_that_comes_with_the_deadline_leaves_nothing() -> None:
    s = holding(100.0)
    s.handle(released(), 500.0)
    assert s.next_wakeup() == 500.0
    assert s.handle(Tick(), 500.0) == [STOP]


@pytest.mark.parametrize("change", [held, released])
@pytest.mark.parametrize(("key", "attempt"), [("a", 1), ("a", 3), ("nowhere", 1)])
def test_of_an_attempt_that_is_not_live_it_says_nothing(
    change: Callable[[str, int], AttemptHeld], key: str, attempt: int
) -> None:
    s = scheduler(subtask("a"))
    s.handle(ready(), 0.0)
    s.handle(failed("a"), 10.0)
    assert s.handle(change(key, attempt), 10.5) == []
    assert s.next_wakeup() == 11.0, "the end of the back-off"
    assert s.handle(Tick(), 11.0) == started("a", attempt=2)
    assert s.handle(change(key, attempt), 12.0) == []
    assert s.next_wakeup() == 111.0
    s.check_invariants()


def test_the_next_attempt_has_all_its_time() -> None:
    s = holding()
    s.handle(failed("a"), 500.0)
    assert s.next_wakeup() == 501.0
    assert s.handle(Tick(), 501.0) == started("a", attempt=2)
    assert s.next_wakeup() == 601.0


def test_it_may_end_while_it_is_held() -> None:
    s = holding()
    assert s.handle(done("a"), 500.0)[:2] == [Record(done("a")), finished("a")]
    assert s.is_over


def test_its_agent_may_be_lost_while_it_is_held() -> None:
    s = holding()
    s.handle(lost(), 500.0)
    assert s.statuses["a"] is Status.PENDING
    assert s.next_wakeup() == 501.0


def test_an_attempt_that_is_being_stopped_is_not_held_any_more() -> None:
    s = holding()
    (_, stop) = s.handle(CancelRequested("no"), 500.0)
    assert stop == StopAttempt("a", 1, "agent_1", "no")
    for change in (released(), held(), released()):
        assert s.handle(change, 501.0) == []
        assert s.next_wakeup() is None, "it is stopped once"
    s.check_invariants()


def test_an_overdue_attempt_is_not_saved_by_a_hold() -> None:
    s = scheduler(subtask("a"))
    s.handle(ready(), 0.0)
    assert s.handle(Tick(), 100.0) == [STOP]
    assert s.handle(held(), 101.0) == []
    (command,) = s.handle(failed("a", kind=FailureKind.CANCELLED), 102.0)
    assert isinstance(command, Record)
    assert s.story("a").count("took longer than 100 s") == 1


def test_the_deadlines_of_others_and_of_the_task_go_on() -> None:
    s = scheduler(
        subtask("a"), subtask("b"), agents=roster("", ""), task_timeout_s=300.0
    )
    s.handle(ready(1), 0.0)
    s.handle(ready(2), 0.0)
    s.handle(held("a"), 1.0)
    (stop,) = s.handle(Tick(), 100.0)
    assert isinstance(stop, StopAttempt) and stop.subtask_id == "b"
    assert s.next_wakeup() == 300.0
    stops = [c for c in s.handle(Tick(), 300.0) if isinstance(c, StopAttempt)]
    assert [stop.subtask_id for stop in stops] == ["a"]


def test_nothing_is_held_after_the_end() -> None:
    s = holding()
    (*_, end) = s.handle(failed("a", kind=FailureKind.AUTHENTICATION), 40.0)
    assert isinstance(end, SuspendTask)
    assert s.handle(released(), 41.0) == []
    assert s.next_wakeup() is None
