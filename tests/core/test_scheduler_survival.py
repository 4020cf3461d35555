"""What is lost, late, refused or out of time: what the scheduler makes of it."""

from itertools import count

import pytest
from msgspec.structs import replace

from mas.core.events import (
    AttemptStarted,
    CancelRequested,
    Command,
    Fact,
    FinishTask,
    Record,
    ResultIgnored,
    StopAttempt,
    SuspendTask,
    Tick,
)
from mas.core.policy import MAX_AGENT_LOSSES, resumes_session
from mas.core.scheduler import Scheduler
from mas.model import FailureKind, Plan, Status
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

REFUSED = FailureKind.AUTHENTICATION


def facts_of(commands: list[Command]) -> list[Fact]:
    return [command.fact for command in commands if isinstance(command, Record)]


def begun(commands: list[Command]) -> AttemptStarted:
    (fact,) = [f for f in facts_of(commands) if isinstance(f, AttemptStarted)]
    return fact


def ignored(key: str, error: str, attempt: int = 1, agent: int = 1) -> list[Command]:
    fact = ResultIgnored(
        subtask_id=key,
        attempt=attempt,
        agent_id=f"agent_{agent}",
        status=Status.COMPLETED,
        error=error,
    )
    return [Record(fact)]


class TestSessions:
    def counting(self, *history: Fact) -> Scheduler:
        numbers = count(1 + sum(isinstance(fact, AttemptStarted) for fact in history))
        return Scheduler(
            Plan((subtask("a"),)),
            roster(""),
            new_session_id=lambda: f"session {next(numbers)}",
            max_attempts=9,
            attempt_timeout_s=100.0,
            history=history,
        )

    @pytest.mark.parametrize("kind", list(FailureKind))
    def test_one_that_was_cut_off_goes_on_and_another_is_begun_anew(
        self, kind: FailureKind
    ) -> None:
        s = self.counting()
        facts = facts_of(s.handle(ready(), 0.0))
        facts += facts_of(s.handle(failed("a", kind=kind), 1.0))
        if s.statuses["a"].is_final:
            return
        s = self.counting(*facts)
        fact = begun(s.handle(ready(), 2.0))
        assert fact.resumes == resumes_session(kind)
        assert fact.session_id == ("session 1" if fact.resumes else "session 2")

    def test_it_is_that_of_the_last_attempt(self) -> None:
        s = self.counting()
        s.handle(ready(), 0.0)
        s.handle(failed("a"), 1.0)
        assert begun(s.handle(Tick(), 10.0)).session_id == "session 2"
        s.handle(failed("a", 2, kind=FailureKind.API_ERROR), 11.0)
        assert begun(s.handle(Tick(), 20.0)).session_id == "session 2"
        s.handle(failed("a", 3, kind=FailureKind.INACTIVITY), 21.0)
        assert begun(s.handle(Tick(), 30.0)).session_id == "session 2"
        s.handle(failed("a", 4), 31.0)
        fact = begun(s.handle(Tick(), 40.0))
        assert (fact.session_id, fact.resumes) == ("session 3", False)

    @pytest.mark.parametrize("session_id", [None, ""])
    def test_one_that_is_not_known_cannot_go_on(self, session_id: str | None) -> None:
        start = AttemptStarted(
            subtask_id="a", attempt=1, agent_id="agent_1", session_id=session_id
        )
        s = self.counting(start)
        s.handle(failed("a", kind=FailureKind.AGENT_LOST), 0.0)
        fact = begun(s.handle(ready(), 0.0))
        assert (fact.session_id, fact.resumes) == ("session 2", False)


class TestLosses:
    def lose(self, s: Scheduler, times: int) -> list[Command]:
        commands: list[Command] = []
        for now in range(times):
            s.handle(ready(), 100.0 * now)
            commands = s.handle(lost(), 100.0 * now + 50.0)
            s.handle(Tick(), 100.0 * now + 99.0)
        return commands

    def test_a_subtask_that_keeps_losing_its_agent_fails_by_itself(self) -> None:
        s = scheduler(subtask("a", priority=9), subtask("b"), max_attempts=9)
        commands = self.lose(s, MAX_AGENT_LOSSES)
        error = "its agent was lost 3 times: agent_1 was lost: exit code 1"
        assert commands[-1] == finished("a", Status.FAILED, error, attempt=3)
        assert starts(s.handle(ready(), 900.0)) == [("b", "agent_1")]

    def test_fewer_losses_are_tried_again_as_any_failure(self) -> None:
        s = scheduler(subtask("a"), max_attempts=9)
        self.lose(s, MAX_AGENT_LOSSES - 1)
        assert s.statuses["a"] is Status.PENDING
        s = scheduler(subtask("a"), max_attempts=2)
        commands = self.lose(s, 2)
        assert last_error(commands) == "agent_1 was lost: exit code 1"

    def test_other_failures_between_them_do_not_count(self) -> None:
        s = scheduler(subtask("a"), max_attempts=9)
        self.lose(s, 2)
        s.handle(ready(), 900.0)
        s.handle(failed("a", attempt=3, kind=FailureKind.API_ERROR), 901.0)
        assert s.statuses["a"] is Status.PENDING
        s.handle(Tick(), 950.0)
        commands = s.handle(lost(), 951.0)
        assert last_error(commands).startswith("its agent was lost 3 times: ")

    def test_an_end_with_the_supervisor_is_none(self) -> None:
        history: list[Fact] = []
        for attempt in range(5):
            s = scheduler(subtask("a"), max_attempts=9, history=history)
            if attempt:
                loss = failed("a", attempt, kind=FailureKind.AGENT_LOST)
                history += facts_of(s.handle(loss, 0.0))
            history += facts_of(s.handle(ready(), 0.0))
            assert s.statuses["a"] is Status.IN_PROGRESS
        s = scheduler(subtask("a"), max_attempts=9, history=history)
        s.handle(failed("a", 5, kind=FailureKind.AGENT_LOST), 0.0)
        self.lose(s, 2)
        assert s.statuses["a"] is Status.PENDING

    def test_those_of_a_former_run_count(self) -> None:
        s = scheduler(subtask("a"), max_attempts=9)
        history: list[Fact] = []
        for now in (0.0, 10.0):
            history += facts_of(s.handle(ready(), now))
            history += facts_of(s.handle(lost(), now + 1))
            history += facts_of(s.handle(Tick(), now + 9))
        s = scheduler(subtask("a"), max_attempts=9, history=history)
        s.handle(ready(), 0.0)
        commands = s.handle(lost(), 1.0)
        assert last_error(commands).startswith("its agent was lost 3 times: ")

    def test_a_stop_that_ends_the_agent_is_none(self) -> None:
        s = scheduler(subtask("a"), max_attempts=9)
        self.lose(s, 2)
        s.handle(ready(), 900.0)
        s.handle(Tick(), 1000.0)
        s.handle(lost(), 1001.0)
        assert s.statuses["a"] is Status.PENDING


class TestWhatIsLeft:
    def test_a_lost_agents_result_counts_and_nothing_starts_on_it(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"))
        s.handle(ready(), 0.0)
        commands = s.handle(lost(), 1.0, left=done("a"))
        assert commands == [Record(lost()), Record(done("a")), finished("a")]
        assert starts(s.handle(ready(), 2.0)) == [("b", "agent_1")]

    def test_of_another_attempt_it_says_nothing(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(lost(), 1.0, left=done("a", attempt=2))
        assert s.statuses["a"] is Status.PENDING

    def test_of_an_attempt_that_has_ended_it_says_nothing(self) -> None:
        s = scheduler(subtask("a"), subtask("b"))
        s.handle(ready(), 0.0)
        s.handle(failed("a", kind=FailureKind.REFUSAL), 1.0)
        assert s.handle(lost(), 2.0, left=done("a"))[0] == Record(lost())
        assert s.statuses == {"a": Status.FAILED, "b": Status.PENDING}


class TestLateResults:
    def test_of_a_superseded_attempt_is_recorded_once_and_changes_nothing(self) -> None:
        s = scheduler(subtask("a"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        s.handle(lost(1), 1.0)
        s.handle(ready(2), 2.0)
        s.handle(Tick(), 2.5)
        late = done("a", 1, 1)
        words = "attempt 1 was superseded by attempt 2"
        assert s.handle(late, 3.0) == ignored("a", words)
        assert s.handle(late, 4.0) == []
        assert s.statuses["a"] is Status.IN_PROGRESS
        assert s.handle(done("a", 2, 2), 5.0)[0] == Record(done("a", 2, 2))
        assert "agent_1, too late: attempt 1 was superseded" in s.story("a")

    def test_between_two_attempts_it_comes_too_late_as_well(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(failed("a"), 1.0)
        words = "attempt 1 had ended already: no file"
        assert s.handle(done("a"), 1.5) == ignored("a", words)
        assert starts(s.handle(Tick(), 2.0)) == [("a", "agent_1")]

    def test_of_a_completed_subtask_it_is_a_repetition(self) -> None:
        s = scheduler(subtask("a"), subtask("b"))
        s.handle(ready(), 0.0)
        s.handle(done("a"), 1.0)
        assert s.handle(done("a"), 2.0) == ignored("a", "attempt 1 had ended already")

    def test_from_an_agent_that_never_had_the_attempt(self) -> None:
        s = scheduler(subtask("a"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        wrong = done("a", agent=2)
        assert s.handle(wrong, 1.0) == ignored("a", "attempt 1 runs on agent_1", 1, 2)
        assert s.handle(done("a"), 2.0)[0] == Record(done("a"))

    def test_what_was_ignored_in_a_former_run_is_not_recorded_again(self) -> None:
        s = scheduler(subtask("a"), subtask("b"))
        facts = facts_of(s.handle(ready(), 0.0))
        for event in (done("a"), done("a")):
            facts += facts_of(s.handle(event, 1.0))
        assert isinstance(facts[-1], ResultIgnored)
        s = scheduler(subtask("a"), subtask("b"), history=facts)
        assert s.handle(done("a"), 0.0) == []


class TestCredentials:
    def test_that_are_refused_suspend_the_task(self) -> None:
        s = scheduler(subtask("a"), subtask("b"), agents=roster("", ""))
        s.handle(ready(1), 0.0)
        s.handle(ready(2), 0.0)
        refused = failed("a", kind=REFUSED)
        assert s.handle(refused, 1.0) == [
            Record(replace(refused, retry_in_s=0.0)),
            SuspendTask(
                "Claude refused the credentials: no file",
                "correct ANTHROPIC_API_KEY, then go on with mas resume",
            ),
        ]
        assert s.statuses == {"a": Status.PENDING, "b": Status.IN_PROGRESS}
        assert s.is_over
        assert s.next_wakeup() is None
        assert s.handle(failed("b", agent=2, kind=REFUSED), 1.0) == []
        assert s.handle(CancelRequested("no"), 2.0) == []

    def test_and_going_on_afterwards_is_free_and_in_the_same_session(self) -> None:
        s = scheduler(subtask("a"), max_attempts=1)
        facts = facts_of(s.handle(ready(), 0.0))
        facts += facts_of(s.handle(failed("a", kind=REFUSED), 1.0))
        s = scheduler(subtask("a"), max_attempts=1, history=facts)
        again = started("a", attempt=2, resumes=True)
        assert s.handle(ready(), 0.0) == [Record(ready()), *again]
        s.handle(failed("a", 2), 1.0)
        assert s.statuses["a"] is Status.FAILED

    def test_suspend_it_too_where_nobody_is_left_to_try_again(self) -> None:
        history = facts_of(scheduler(subtask("a")).handle(ready(), 0.0))
        s = scheduler(subtask("a"), agents=roster("", ""), history=history)
        for number in (1, 2):
            s.handle(lost(number, retired=True), 0.0)
        commands = s.handle(failed("a", kind=REFUSED), 1.0)
        assert isinstance(commands[-1], SuspendTask)
        assert s.statuses["a"] is Status.PENDING

    def test_suspend_nothing_that_is_being_stopped_already(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(CancelRequested("by the user"), 1.0)
        commands = s.handle(failed("a", kind=REFUSED), 2.0)
        assert commands[-1] == FinishTask(Status.CANCELLED, "by the user")
        assert not any(isinstance(command, SuspendTask) for command in commands)

    def test_come_after_the_attempts_own_deadline_as_that(self) -> None:
        s = scheduler(subtask("a"))
        s.handle(ready(), 0.0)
        s.handle(Tick(), 100.0)
        s.handle(failed("a", kind=REFUSED), 101.0)
        assert not s.is_over
        assert s.statuses["a"] is Status.PENDING


class TestDeadlines:
    def test_of_an_attempt_stops_it_and_another_is_tried(self) -> None:
        s = scheduler(subtask("a"), attempt_timeout_s=7.0)
        s.handle(ready(), 1.0)
        assert s.next_wakeup() == 8.0
        assert s.handle(Tick(), 7.9) == []
        reason = "the attempt took longer than 7 s"
        assert s.handle(Tick(), 8.0) == [StopAttempt("a", 1, "agent_1", reason)]
        assert s.next_wakeup() is None
        stopped = failed("a", kind=FailureKind.CANCELLED)
        (record,) = s.handle(stopped, 9.0)
        late = replace(stopped, failure=FailureKind.DEADLINE, error=reason)
        assert record == Record(replace(late, retry_in_s=1.0))
        assert begun(s.handle(Tick(), 10.0)).resumes is False

    def test_of_the_last_attempt_fails_the_subtask(self) -> None:
        s = scheduler(subtask("a"), attempt_timeout_s=7.0, max_attempts=1)
        s.handle(ready(), 0.0)
        s.handle(Tick(), 7.0)
        commands = s.handle(failed("a"), 8.0)
        assert last_error(commands) == "the attempt took longer than 7 s"

    def test_of_the_task_stops_all_and_is_why_it_failed(self) -> None:
        s = scheduler(subtask("a"), subtask("b", "a"), task_timeout_s=30.0)
        s.handle(ready(), 5.0)
        assert s.next_wakeup() == 35.0
        reason = "the task took longer than 30 s"
        assert s.handle(Tick(), 35.0) == [
            finished("b", Status.CANCELLED, reason, attempt=None),
            StopAttempt("a", 1, "agent_1", reason),
        ]
        assert s.next_wakeup() is None
        end = s.handle(failed("a", kind=FailureKind.CANCELLED), 36.0)[-1]
        assert isinstance(end, FinishTask)
        assert end.status is Status.FAILED
        assert end.error is not None
        assert end.error.startswith(reason)

    def test_a_result_that_comes_after_all_counts(self) -> None:
        s = scheduler(subtask("a"), task_timeout_s=30.0)
        s.handle(ready(), 0.0)
        s.handle(Tick(), 30.0)
        assert s.handle(done("a"), 31.0)[-1] == FinishTask(Status.COMPLETED, None)

    def test_of_the_task_begins_anew_with_each_run(self) -> None:
        history = facts_of(scheduler(subtask("a")).handle(ready(), 0.0))
        s = scheduler(subtask("a"), task_timeout_s=30.0, history=history)
        s.handle(Tick(), 1000.0)
        assert s.next_wakeup() == 1030.0
