"""The scheduler's rules one by one: failures, losses, deadlines, cancelling."""

import pytest
from msgspec.structs import replace

from mas.core.events import (
    AttemptFinished,
    CancelAccepted,
    CancelRequested,
    FinishTask,
    Record,
    StopAttempt,
    Tick,
)
from mas.core.scheduler import Scheduler
from mas.model import FailureKind, Status
from tests.core.scheduling import (
    done,
    failed,
    finished,
    last_error,
    lost,
    ready,
    roster,
    scheduler,
    started,
    starts,
    subtask,
)


class TestRetries:
    def test_a_failure_is_tried_again_after_a_growing_delay(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        assert s.handle(failed("a"), 10.0) == [
            Record(replace(failed("a"), retry_in_s=1.0))
        ]
        assert s.statuses["a"] is Status.PENDING
        assert s.next_wakeup() == 11.0
        assert s.handle(Tick(), 10.9) == []
        assert s.handle(Tick(), 11.0) == started("a", attempt=2)
        s.handle(failed("a", attempt=2), 12.0)
        assert s.next_wakeup() == 14.0
        assert s.handle(Tick(), 14.0) == started("a", attempt=3)

    def test_the_last_attempt_is_final(self) -> None:
        s = scheduler(subtask("a"), max_attempts=2)
        s.handle(ready(), 0.0)
        s.handle(failed("a"), 1.0)
        s.handle(Tick(), 2.0)
        assert s.handle(failed("a", attempt=2), 3.0) == [
            Record(failed("a", attempt=2)),
            finished("a", Status.FAILED, "no file", attempt=2),
            FinishTask(Status.FAILED, "1 of 1 subtasks failed; a: no file"),
        ]

    @pytest.mark.parametrize("kind", list(FailureKind))
    def test_what_another_attempt_cannot_change_is_final_at_once(
        self, kind: FailureKind
    ) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(failed("a", kind=kind), 1.0)
        final = kind in {"refusal", "cancelled"}
        assert s.statuses["a"] is (Status.FAILED if final else Status.PENDING)
        assert s.is_over is (final or kind is FailureKind.AUTHENTICATION)

    def test_a_retry_prefers_an_agent_that_has_not_failed_it(self) -> None:
        s = scheduler(
            subtask("a", priority=9),
            subtask("b", needs=("x",)),
            subtask("c", "b", needs=("x",)),
            agents=roster("", "x"),
        )
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 0.0)
        s.handle(done("b", agent=2), 0.1)
        s.handle(done("c", agent=2), 0.2)
        s.handle(failed("a"), 1.0)
        # Though agent_2 has done more by now.
        assert starts(s.handle(Tick(), 2.0)) == [("a", "agent_2")]

    def test_a_retry_does_not_wait_for_another_agent(self) -> None:
        s = scheduler(subtask("a"), subtask("b"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 0.0)
        s.handle(failed("a"), 1.0)
        assert starts(s.handle(Tick(), 2.0)) == [("a", "agent_1")]

    def test_an_agent_is_free_for_others_during_the_back_off(self) -> None:
        s = scheduler(subtask("a"), subtask("b"))
        s.handle(ready(), 0.0)
        assert starts(s.handle(failed("a"), 1.0)) == [("b", "agent_1")]
        assert s.handle(Tick(), 2.0) == []
        assert starts(s.handle(done("b"), 3.0)) == [("a", "agent_1")]

    def test_a_failure_without_a_kind_or_words_gets_both(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        bare = replace(failed("a"), failure=None, error=None)
        (command,) = s.handle(bare, 1.0)
        assert isinstance(command, Record)
        assert isinstance(command.fact, AttemptFinished)
        assert command.fact.failure is FailureKind.INTERNAL
        assert command.fact.error == "it ended with internal"


class TestFailure:
    def test_dependents_are_cancelled_with_the_reason_and_others_go_on(self) -> None:
        s = scheduler(
            subtask("a", priority=9),
            subtask("b", "a"),
            subtask("c", "b"),
            subtask("d"),
            subtask("e", "d", "c"),
            max_attempts=1,
        )
        s.handle(ready(), 0.0)
        reason = "dependency a failed: no file"
        assert s.handle(failed("a"), 1.0) == [
            Record(failed("a")),
            finished("a", Status.FAILED, "no file"),
            finished("b", Status.CANCELLED, reason, attempt=None),
            finished("c", Status.CANCELLED, reason, attempt=None),
            finished("e", Status.CANCELLED, reason, attempt=None),
            *started("d"),
        ]
        assert s.handle(done("d"), 2.0)[-1] == FinishTask(
            Status.FAILED, "1 of 5 subtasks failed, 3 cancelled; a: no file"
        )

    def test_a_long_list_of_failures_is_told_in_part(self) -> None:
        s = scheduler(*(subtask(f"k{n}") for n in range(9)), max_attempts=1)
        (key, _), *_ = starts(s.handle(ready(), 0.0))
        while not s.is_over:
            commands = s.handle(failed(key), 1.0)
            key = next((key for key, _ in starts(commands)), key)
        assert isinstance(commands[-1], FinishTask)
        error = commands[-1].error or ""
        assert error.startswith("9 of 9 subtasks failed; k0: no file")
        assert error.endswith("k4: no file; …")

    def test_a_result_of_an_attempt_that_never_began_is_nothing(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        assert s.handle(done("a", attempt=2), 1.0) == []
        assert s.handle(done("a", attempt=0), 1.0) == []
        assert s.handle(done("b"), 1.0) == []
        assert s.handle(done("nowhere"), 1.0) == []


class TestAgentLoss:
    def test_its_attempt_counts_as_failed_and_is_tried_again(self) -> None:
        s = scheduler(subtask("a"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        end = replace(
            failed("a", kind=FailureKind.AGENT_LOST),
            error="agent_1 was lost: exit code 1",
            execution_time=3.0,
            retry_in_s=1.0,
        )
        assert s.handle(lost(1), 3.0) == [Record(lost(1)), Record(end)]
        assert s.handle(Tick(), 4.0) == []
        assert s.handle(ready(1), 9.0) == [
            Record(ready(1)),
            *started("a", attempt=2, resumes=True),
        ]

    def test_losses_use_up_the_attempts(self) -> None:
        s = scheduler(subtask("a"), max_attempts=2)
        for attempt in (1, 2):
            s.handle(ready(), attempt * 10.0)
            s.handle(Tick(), attempt * 10.0)
            commands = s.handle(lost(), attempt * 10.0 + 1)
        assert "agent_1 was lost" in last_error(commands)
        assert s.is_over

    def test_an_agent_that_never_got_ready_can_be_lost(self) -> None:
        s = scheduler(subtask("a"), agents=roster("", ""))
        assert s.handle(lost(1), 0.0) == [Record(lost(1))]
        assert s.handle(lost(1, retired=True), 1.0) == [Record(lost(1, retired=True))]

    def test_a_retired_agent_is_never_back(self) -> None:
        s = scheduler(subtask("a"), agents=roster("", ""))
        s.handle(lost(1, retired=True), 0.0)
        assert s.handle(ready(1), 1.0) == []
        assert s.handle(lost(1), 1.0) == []

    def test_who_fits_is_found_anew_when_an_agent_retires(self) -> None:
        s = scheduler(subtask("a", needs=("x", "y")), agents=roster("x y", "y"))
        assert starts(s.handle(ready(2), 0.0)) == []
        assert starts(s.handle(lost(1, retired=True), 1.0)) == [("a", "agent_2")]

    def test_what_nobody_can_run_any_more_fails_and_the_rest_goes_on(self) -> None:
        s = scheduler(
            subtask("a", needs=("x",)),
            subtask("b", "a"),
            subtask("c"),
            agents=roster("x", "y"),
        )
        assert s.handle(lost(1, retired=True), 0.0) == [
            Record(lost(1, retired=True)),
            finished(
                "a", Status.FAILED, "no agent left for x; exit code 1", attempt=None
            ),
            finished(
                "b",
                Status.CANCELLED,
                "dependency a failed: no agent left for x; exit code 1",
                attempt=None,
            ),
        ]
        assert starts(s.handle(ready(2), 1.0)) == [("c", "agent_2")]

    def test_when_the_last_agent_retires_everything_pending_fails(self) -> None:
        s = scheduler(subtask("a", priority=9), subtask("b"), subtask("c", "b"))
        s.handle(ready(), 0.0)
        commands = s.handle(lost(retired=True), 2.0)
        error = "agent_1 was lost: exit code 1"
        end = replace(
            failed("a", kind=FailureKind.AGENT_LOST), error=error, execution_time=2.0
        )
        assert commands[:3] == [
            Record(lost(retired=True)),
            Record(end),
            finished("a", Status.FAILED, f"no agent left; {error}"),
        ]
        assert s.statuses["b"] is Status.FAILED
        assert s.statuses["c"] is Status.CANCELLED
        assert isinstance(commands[-1], FinishTask)

    def test_a_plan_that_the_roster_cannot_run_fails_at_once(self) -> None:
        s = scheduler(subtask("a", needs=("x",)), agents=roster("y"))
        commands = s.handle(ready(), 0.0)
        assert commands[0] == finished(
            "a", Status.FAILED, "no agent left for x", attempt=None
        )


class TestDeadlines:
    STOP = StopAttempt("a", 1, "agent_1", "the attempt took longer than 100 s")

    def overdue(self) -> Scheduler:
        """A scheduler whose attempt at a has just been stopped."""
        s = scheduler(subtask("a"))
        s.handle(ready(), 5.0)
        assert s.next_wakeup() == 105.0
        assert s.handle(Tick(), 104.9) == []
        assert s.handle(Tick(), 105.0) == [self.STOP]
        return s

    def test_a_passed_deadline_stops_the_attempt_once(self) -> None:
        s = self.overdue()
        assert s.handle(Tick(), 200.0) == []
        assert s.next_wakeup() is None
        assert s.statuses["a"] is Status.IN_PROGRESS

    def test_what_follows_is_a_failure_by_deadline(self) -> None:
        s = self.overdue()
        (command,) = s.handle(failed("a", kind=FailureKind.REFUSAL), 106.0)
        assert command == Record(
            replace(
                failed("a", kind=FailureKind.DEADLINE),
                error="the attempt took longer than 100 s",
                retry_in_s=1.0,
            )
        )

    def test_a_loss_that_follows_is_a_failure_by_deadline(self) -> None:
        s = self.overdue()
        _, command = s.handle(lost(), 106.0)
        assert isinstance(command, Record)
        assert isinstance(command.fact, AttemptFinished)
        assert command.fact.failure is FailureKind.DEADLINE
        assert command.fact.execution_time == 101.0

    def test_a_result_that_comes_late_counts(self) -> None:
        s = self.overdue()
        assert s.handle(done("a"), 106.0)[-1] == FinishTask(Status.COMPLETED, None)

    def test_each_attempt_has_a_deadline_of_its_own(self) -> None:
        s = scheduler(subtask("a"), subtask("b"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 10.0)
        s.handle(failed("a"), 20.0)
        s.handle(Tick(), 21.0)
        assert s.next_wakeup() == 110.0
        assert s.handle(Tick(), 110.0) == [
            StopAttempt("b", 1, "agent_2", "the attempt took longer than 100 s")
        ]
        assert s.next_wakeup() == 121.0

    def test_the_task_deadline_stops_everything_and_the_task_fails(self) -> None:
        s = scheduler(subtask("a"), subtask("b"), task_timeout_s=30.0)
        s.handle(ready(), 5.0)
        assert s.next_wakeup() == 35.0
        reason = "the task took longer than 30 s"
        assert s.handle(Tick(), 35.0) == [
            finished("b", Status.CANCELLED, reason, attempt=None),
            StopAttempt("a", 1, "agent_1", reason),
        ]
        assert s.next_wakeup() is None
        end = replace(failed("a", kind=FailureKind.DEADLINE), error=reason)
        assert s.handle(failed("a"), 36.0) == [
            Record(end),
            finished("a", Status.FAILED, reason),
            FinishTask(
                Status.FAILED,
                f"{reason}; 1 of 2 subtasks failed, 1 cancelled; a: {reason}",
            ),
        ]


class TestCancel:
    def test_what_waits_is_cancelled_and_what_runs_is_stopped(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"), subtask("c"))
        s.handle(ready(), 0.0)
        assert s.handle(CancelRequested("by the user"), 1.0) == [
            Record(CancelAccepted(reason="by the user")),
            finished("b", Status.CANCELLED, "by the user", attempt=None),
            finished("c", Status.CANCELLED, "by the user", attempt=None),
            StopAttempt("a", 1, "agent_1", "by the user"),
        ]
        assert s.handle(CancelRequested("again"), 1.5) == []
        end = replace(
            failed("a", kind=FailureKind.CANCELLED),
            status=Status.CANCELLED,
            error="by the user",
        )
        assert s.handle(failed("a"), 2.0) == [
            Record(end),
            finished("a", Status.CANCELLED, "by the user"),
            FinishTask(Status.CANCELLED, "by the user"),
        ]

    def test_before_anything_runs_it_is_over_at_once(self) -> None:
        s = scheduler(subtask("a"))
        assert s.handle(CancelRequested("no"), 0.0) == [
            Record(CancelAccepted(reason="no")),
            finished("a", Status.CANCELLED, "no", attempt=None),
            FinishTask(Status.CANCELLED, "no"),
        ]

    def test_a_back_off_ends_with_it(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(failed("a"), 1.0)
        assert s.handle(CancelRequested("no"), 1.5) == [
            Record(CancelAccepted(reason="no")),
            finished("a", Status.CANCELLED, "no", attempt=1),
            FinishTask(Status.CANCELLED, "no"),
        ]

    def test_an_agent_lost_meanwhile_leaves_a_cancelled_attempt(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(CancelRequested("no"), 1.0)
        commands = s.handle(lost(retired=True), 2.0)
        assert s.statuses["a"] is Status.CANCELLED
        assert last_error(commands) == "no"
        assert commands[-1] == FinishTask(Status.CANCELLED, "no")

    def test_a_result_that_comes_after_it_is_kept(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"))
        s.handle(ready(), 0.0)
        s.handle(CancelRequested("no"), 1.0)
        assert s.handle(done("a"), 2.0) == [
            Record(done("a")),
            finished("a"),
            FinishTask(Status.CANCELLED, "no"),
        ]

    def test_where_everything_completed_all_the_same_so_did_the_task(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(CancelRequested("no"), 1.0)
        assert s.handle(done("a"), 2.0)[-1] == FinishTask(Status.COMPLETED, None)

    def test_an_attempt_that_was_stopped_before_is_not_stopped_again(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(Tick(), 100.0)
        accepted = Record(CancelAccepted(reason="no"))
        assert s.handle(CancelRequested("no"), 101.0) == [accepted]
        commands = s.handle(failed("a"), 102.0)
        assert s.statuses["a"] is Status.FAILED
        assert commands[-1] == FinishTask(Status.CANCELLED, "no")
