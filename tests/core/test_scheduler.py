"""The scheduler's rules one by one: the course of a task, and who runs what."""

import time
from itertools import pairwise

import pytest
from msgspec.structs import replace

from mas.core.events import (
    AttemptStarted,
    CancelRequested,
    FinishTask,
    Record,
    SubtaskFinished,
    Tick,
)
from mas.core.progress import TRANSITIONS, Progress
from mas.errors import MasError, PlanError
from mas.model import Plan, Status
from tests.core.scheduling import (
    done,
    failed,
    finished,
    lost,
    ready,
    roster,
    scheduler,
    started,
    starts,
    subtask,
)


class TestCourse:
    def test_facts_come_before_their_effects_from_first_to_last(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"))
        assert s.handle(ready(), 0.0) == [Record(ready()), *started("a")]
        assert s.statuses == {"a": Status.IN_PROGRESS, "b": Status.PENDING}
        assert s.handle(done("a"), 1.0) == [
            Record(done("a")),
            finished("a"),
            *started("b"),
        ]
        assert s.handle(done("b"), 2.0) == [
            Record(done("b")),
            finished("b"),
            FinishTask(Status.COMPLETED, None),
        ]
        assert s.is_over
        assert s.next_wakeup() is None

    def test_nothing_follows_the_end(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(done("a"), 1.0)
        for event in (done("a"), lost(), ready(), Tick(), CancelRequested("x")):
            assert s.handle(event, 1e9) == []

    def test_a_subtask_waits_for_all_its_dependencies(self) -> None:
        s = scheduler(
            subtask("a"), subtask("b"), subtask("c", "a", "b"), agents=roster("", "")
        )
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 0.0)
        assert starts(s.handle(done("a", agent=1), 1.0)) == []
        assert starts(s.handle(done("b", agent=2), 1.0)) == [("c", "agent_1")]

    def test_priority_goes_first_then_the_longest_remaining_path(self) -> None:
        s = scheduler(
            subtask("short", seconds=10),
            subtask("long", seconds=20),
            subtask("head", seconds=5),
            subtask("tail", "head", seconds=30),
            subtask("urgent", priority=6, seconds=1),
            subtask("twin of short", seconds=10),
        )
        s.handle(ready(), 0.0)
        order = ["urgent"]
        while not s.is_over:
            order += [key for key, _ in starts(s.handle(done(order[-1]), 1.0))]
        assert order == ["urgent", "head", "tail", "long", "short", "twin of short"]

    def test_an_empty_plan_is_over_at_once(self) -> None:
        assert scheduler().handle(Tick(), 0.0) == [FinishTask(Status.COMPLETED, None)]

    def test_a_plan_without_an_order_is_refused(self) -> None:
        with pytest.raises(PlanError, match="no order"):
            scheduler(subtask("a", "b"), subtask("b", "a"))

    def test_an_agent_that_the_roster_lacks_is_refused(self) -> None:
        with pytest.raises(KeyError, match="agent_9"):
            scheduler(subtask("a")).handle(ready(9), 0.0)

    def test_the_story_tells_what_happened_to_a_subtask(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"), max_attempts=1)
        s.handle(ready(), 5.0)
        s.handle(failed("a"), 7.5)
        assert s.story("a").splitlines() == [
            "subtask 'a', failed:",
            "  0.000 s: attempt 1 started on agent_1",
            "  2.500 s: attempt 1 failed on agent_1: no file",
            "  2.500 s: the subtask is failed: no file",
        ]
        assert "cancelled: dependency a failed: no file" in s.story("b")


class TestMatching:
    def test_an_agent_that_covers_all_wins_over_one_that_covers_part(self) -> None:
        s = scheduler(subtask("a", needs=("x", "y")), agents=roster("x", "x y z"))
        assert starts(s.handle(ready(1), 0.0)) == []
        assert starts(s.handle(ready(2), 0.0)) == [("a", "agent_2")]

    def test_where_none_covers_all_the_best_cover_does(self) -> None:
        s = scheduler(
            subtask("a", needs=("x", "y", "z")), agents=roster("x", "x y", "w")
        )
        assert starts(s.handle(ready(1), 0.0)) == []
        assert starts(s.handle(ready(3), 0.0)) == []
        assert starts(s.handle(ready(2), 0.0)) == [("a", "agent_2")]

    def test_what_requires_nothing_runs_anywhere(self) -> None:
        s = scheduler(subtask("a"), agents=roster("x"))
        assert starts(s.handle(ready(), 0.0)) == [("a", "agent_1")]

    def test_an_agent_that_fits_a_later_subtask_does_not_stay_idle(self) -> None:
        s = scheduler(
            subtask("first", needs=("x",), priority=9),
            subtask("second", needs=("y",)),
            agents=roster("x", "y"),
        )
        assert starts(s.handle(ready(2), 0.0)) == [("second", "agent_2")]

    def test_specialists_are_kept_for_those_who_need_them(self) -> None:
        s = scheduler(
            subtask("first"),
            subtask("general", "first", needs=("x",), priority=9),
            subtask("special", "general", needs=("y",)),
            agents=roster("x y", "x", ""),
        )
        for number in (3, 1, 2):
            s.handle(ready(number), 0.0)
        # Either could run it; agent_1 alone can do what comes later.
        assert starts(s.handle(done("first", agent=3), 1.0)) == [("general", "agent_2")]

    def test_finished_subtasks_demand_no_specialist(self) -> None:
        s = scheduler(
            subtask("special", needs=("y",)),
            subtask("general", "special", needs=("x",)),
            agents=roster("x y", "x"),
        )
        s.handle(ready(2), 0.0)
        s.handle(ready(1), 0.0)
        commands = s.handle(done("special"), 1.0)
        # Nobody needs y any more, so the load decides, and agent_2 has none.
        assert starts(commands) == [("general", "agent_2")]

    def test_load_is_spread_then_the_roster_decides(self) -> None:
        keys = [f"k{n}" for n in range(4)]
        chain = [subtask("k0")] + [subtask(k, o) for o, k in pairwise(keys)]
        s = scheduler(*chain, agents=roster("", "", ""))
        s.handle(Tick(), 0.0)
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 0.0)
        s.handle(ready(3), 0.0)
        assert starts(s.handle(done("k0", agent=1), 1.0)) == [("k1", "agent_2")]
        assert starts(s.handle(done("k1", agent=2), 1.0)) == [("k2", "agent_3")]
        assert starts(s.handle(done("k2", agent=3), 1.0)) == [("k3", "agent_1")]

    def test_an_agent_has_one_subtask_at_a_time(self) -> None:
        s = scheduler(subtask("a"), subtask("b"))
        assert starts(s.handle(ready(), 0.0)) == [("a", "agent_1")]
        assert s.handle(ready(), 0.0) == []
        assert starts(s.handle(done("a"), 1.0)) == [("b", "agent_1")]


class TestTransitions:
    def test_final_is_final(self) -> None:
        assert set(TRANSITIONS) == set(Status)
        for status, following in TRANSITIONS.items():
            assert status.is_final is (not following)

    def test_an_illegal_step_is_refused_with_the_story(self) -> None:
        progress = Progress(Plan((subtask("a"),)))
        over = SubtaskFinished(subtask_id="a", status=Status.CANCELLED, error="no")
        progress.apply(over, 1.0)
        with pytest.raises(MasError, match="cancelled cannot become failed") as caught:
            progress.apply(replace(over, status=Status.FAILED), 2.0)
        assert "1.000 s: the subtask is cancelled: no" in caught.value.evidence
        assert caught.value.hint

    def test_a_completed_subtask_must_have_been_tried(self) -> None:
        progress = Progress(Plan((subtask("a"),)))
        over = SubtaskFinished(subtask_id="a", status=Status.COMPLETED)
        with pytest.raises(MasError, match="pending cannot become completed"):
            progress.apply(over, 1.0)

    def test_attempts_must_come_in_turn(self) -> None:
        progress = Progress(Plan((subtask("a"),)))
        with pytest.raises(MasError, match="attempt 2 out of turn"):
            progress.apply(
                AttemptStarted(subtask_id="a", attempt=2, agent_id="agent_1"), 1.0
            )
        with pytest.raises(MasError, match="attempt 1 was not running"):
            progress.apply(done("a"), 1.0)


class TestSpeed:
    @staticmethod
    def seconds_per_event(subtasks: int) -> float:
        """CPU time that a result costs in a plan of so many independent subtasks."""
        needs = [("x",), ("y",), (), ("x", "y")]
        plan = [subtask(f"k{n}", needs=needs[n % 4]) for n in range(subtasks)]
        s = scheduler(*plan, agents=roster("x", "y", "x y", "z", "z"))
        running = [ready(n) for n in range(1, 6)]
        queue = [key for event in running for key in starts(s.handle(event, 0.0))]
        began = time.process_time()
        for number, (key, agent_id) in enumerate(queue):  # grows as it is walked
            result = replace(done(key), agent_id=agent_id)
            queue += starts(s.handle(result, float(number)))
            s.next_wakeup()
        spent = time.process_time() - began
        assert s.is_over
        assert len(queue) == subtasks
        return spent / subtasks

    def test_the_cost_of_a_result_does_not_grow_with_the_plan(self) -> None:
        small = min(self.seconds_per_event(1_000) for _ in range(3))
        large = min(self.seconds_per_event(8_000) for _ in range(3))
        # It would be eight times as much if anything looked at every subtask.
        assert large < 3 * small
