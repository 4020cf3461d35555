"""Decides what runs where and when: events in, commands out, time passed in.

Every decision is recorded as a fact first (``Record``) and takes effect by a later
command. The scheduler's knowledge of the subtasks is a fold over those facts
(``core.progress``), so a run goes on where a former one stopped: pass the facts that
were recorded as ``history``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never

from mas.core.attempts import LiveAttempt
from mas.core.ending import Stop, finish, refused
from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptHeld,
    CancelAccepted,
    CancelRequested,
    Command,
    Fact,
    FinishTask,
    Record,
    SchedulerInput,
    StartAttempt,
    StopAttempt,
    SubtaskFinished,
    SuspendTask,
    Tick,
)
from mas.core.matching import Matcher
from mas.core.progress import Node, Progress
from mas.core.timers import Timers
from mas.model import AgentSpec, FailureKind, Plan, Status


class Scheduler:
    """One task's decisions, for a plan that has passed ``core.graph.check_plan``.

    ``task_timeout_s`` counts from the first event; 0 is none. ``new_session_id`` names
    the session of an attempt that begins one. With ``history``, the attempts in
    ``live_attempts`` have begun and not ended: an ``AttemptFinished`` is due for each,
    saying what its result.json turned out to be, or failed with AGENT_LOST, which then
    does not count against ``max_attempts``. Where a cancel was accepted, it stays so.
    """

    def __init__(
        self,
        plan: Plan,
        roster: Sequence[AgentSpec],
        *,
        new_session_id: Callable[[], str],
        max_attempts: int,
        attempt_timeout_s: float,
        task_timeout_s: float = 0.0,
        history: Iterable[Fact] = (),
    ) -> None:
        self._new_session_id = new_session_id
        self._max_attempts = max_attempts
        self._attempt_timeout_s = attempt_timeout_s
        self._task_timeout_s = task_timeout_s
        self._matcher = Matcher(plan, roster)
        self._progress = Progress(plan)
        self._stop: Stop | None = None
        for fact in history:
            self._progress.apply(fact, None)
            if isinstance(fact, CancelAccepted):
                self._stop = Stop(FailureKind.CANCELLED, fact.reason)
        self._present: set[str] = set()
        self._live: dict[str, LiveAttempt] = {}  # by subtask
        self._live_on: dict[str, LiveAttempt] = {}  # by agent
        self._timers = Timers()  # a live attempt's deadline, or the end of a back-off
        self._task_deadline: float | None = None
        self._has_begun = False
        self._is_over = False
        self._last_loss = ""  # of an agent that was retired
        self._commands: list[Command] = []
        self._began_at = self._now = 0.0

    @property
    def statuses(self) -> Mapping[str, Status]:
        """The status of each subtask, by id; a live view."""
        return self._progress.statuses

    @property
    def is_over(self) -> bool:
        """Whether ``FinishTask`` or ``SuspendTask`` was given; nothing follows it."""
        return self._is_over

    @property
    def live_attempts(self) -> list[StartAttempt]:
        """The attempts that have begun and not ended."""
        return [
            StartAttempt(node.id, node.running.attempt, node.running.agent_id)
            for node in self._progress.nodes.values()
            if node.running is not None
        ]

    def story(self, subtask_id: str) -> str:
        """What happened to the subtask, a line an event."""
        return self._progress.story(subtask_id)

    def next_wakeup(self) -> float | None:
        """When the next ``Tick`` is due, if time alone can change anything."""
        if self._is_over:
            return None
        due = [self._timers.next_due(), None if self._stop else self._task_deadline]
        return min((at for at in due if at is not None), default=None)

    def handle(
        self,
        event: SchedulerInput,
        now: float,
        *,
        left: AttemptFinished | None = None,
    ) -> list[Command]:
        """Take in an event at ``now``, in monotonic seconds; what to do, in order.

        With an ``AgentLost``, ``left`` is what the agent's attempt came to by the files
        that it left; None is that it failed. A result of anything but a live attempt
        changes nothing, and is recorded as such, once.
        """
        if self._is_over:
            return []
        commands: list[Command] = []
        self._commands = commands
        self._now = now
        if not self._has_begun:
            self._begin()
        match event:
            case AttemptFinished():
                self._attempt_finished(event)
            case AttemptHeld():
                self._attempt_held(event)
            case AgentReady():
                self._agent_ready(event)
            case AgentLost():
                self._agent_lost(event, left)
            case Tick():
                self._tick()
            case CancelRequested():
                self._stop_all(Stop(FailureKind.CANCELLED, event.reason))
            case _:
                assert_never(event)
        while not self._is_over and (match := self._matcher.next_match()):
            self._start(*match)
        if not self._is_over and not self._progress.unfinished:
            self._end_run(finish(self._progress, self._stop))
        return commands

    def _begin(self) -> None:
        """Set out from the facts so far; follow up those that were cut off there."""
        self._has_begun = True
        self._began_at = self._now
        if self._task_timeout_s:
            self._task_deadline = self._now + self._task_timeout_s
        nodes = self._progress.nodes.values()
        for node in nodes:
            if self.statuses[node.id].is_final:
                self._matcher.forget(node.id)
            elif run := node.running:
                live = LiveAttempt(node.id, run.attempt, run.agent_id, self._now, True)
                self._go_live(live)
            elif node.last is None and node.waits_for == 0:
                self._matcher.push(node.id, node.failed_on)
        if self._stop is not None:
            self._stop_work(self._stop)
        for node in nodes:
            if node.last is not None:
                self._finish(node, node.last, node.error)
            elif self.statuses[node.id] in (Status.FAILED, Status.CANCELLED):
                self._cancel_dependents(node)
        self._fail_unfit()

    def _agent_ready(self, event: AgentReady) -> None:
        agent_id = event.agent_id
        if agent_id in self._present or self._matcher.is_retired(agent_id):
            return
        self._record(event)
        self._present.add(agent_id)
        if agent_id not in self._live_on:
            self._matcher.free(agent_id)

    def _agent_lost(self, event: AgentLost, left: AttemptFinished | None) -> None:
        agent_id = event.agent_id
        if self._matcher.is_retired(agent_id):
            return
        self._record(event)
        self._present.discard(agent_id)
        self._matcher.remove(agent_id)
        if event.retired:
            self._matcher.retire(agent_id)
            self._last_loss = event.error.partition("\n")[0]
        live = self._live_on.get(agent_id)
        if live is not None and not live.is_inherited:
            if left is None or not live.is_meant_by(left):
                left = live.lost(event.error, self._now)
            self._end(live, left)
        if event.retired and not self._is_over:
            self._fail_unfit()

    def _attempt_finished(self, event: AttemptFinished) -> None:
        live = self._live.get(event.subtask_id)
        if live is not None and live.is_meant_by(event):
            self._end(live, event)
            return
        node = self._progress.nodes.get(event.subtask_id)
        if node is not None and (ignored := node.ignoring(event)):
            self._record(ignored)

    def _attempt_held(self, event: AttemptHeld) -> None:
        live = self._live.get(event.subtask_id)
        if live is None or live.attempt != event.attempt or live.stopped_for:
            return
        if event.is_held and live.left_s is None:
            live.left_s = self._timers.left(live.subtask_id, self._now)
            self._timers.clear(live.subtask_id)
        elif not event.is_held and live.left_s is not None:
            self._timers.set(live.subtask_id, self._now + live.left_s)
            live.left_s = None

    def _tick(self) -> None:
        if self._task_deadline is not None and self._task_deadline <= self._now:
            reason = f"the task took longer than {self._task_timeout_s:g} s"
            self._stop_all(Stop(FailureKind.DEADLINE, reason))
        for subtask_id in self._timers.pop_due(self._now):
            if live := self._live.get(subtask_id):
                reason = f"the attempt took longer than {self._attempt_timeout_s:g} s"
                self._interrupt(live, FailureKind.DEADLINE, reason)
            else:
                self._push(self._progress.nodes[subtask_id])

    def _stop_all(self, stop: Stop) -> None:
        """End the task early, for the first reason that comes; a cancel is for good."""
        if self._stop is not None:
            return
        self._stop = stop
        if stop.kind is FailureKind.CANCELLED:
            self._record(CancelAccepted(reason=stop.reason))
        self._stop_work(stop)

    def _stop_work(self, stop: Stop) -> None:
        """What waits is cancelled, what runs is stopped."""
        for node in self._progress.nodes.values():
            if self._is_pending(node):
                self._record_finish(node, Status.CANCELLED, stop.reason)
        for live in self._live.values():
            self._interrupt(live, stop.kind, stop.reason)

    def _interrupt(self, live: LiveAttempt, kind: FailureKind, reason: str) -> None:
        if live.stopped_for is not None:
            return
        live.stopped_for = kind
        live.stop_reason = reason
        self._timers.clear(live.subtask_id)
        self._commands.append(
            StopAttempt(live.subtask_id, live.attempt, live.agent_id, reason)
        )

    def _start(self, subtask_id: str, agent_id: str) -> None:
        node = self._progress.nodes[subtask_id]
        fact = node.next_attempt(agent_id, self._new_session_id)
        self._record(fact)
        self._commands.append(StartAttempt(subtask_id, fact.attempt, agent_id))
        self._go_live(LiveAttempt(subtask_id, fact.attempt, agent_id, self._now))

    def _go_live(self, live: LiveAttempt) -> None:
        self._live[live.subtask_id] = live
        self._live_on[live.agent_id] = live
        self._timers.set(live.subtask_id, self._now + self._attempt_timeout_s)

    def _end(self, live: LiveAttempt, event: AttemptFinished) -> None:
        """An attempt ended: record how, and what follows."""
        node = self._progress.nodes[live.subtask_id]
        del self._live[node.id]
        del self._live_on[live.agent_id]
        self._timers.clear(node.id)
        if live.agent_id in self._present:
            self._matcher.free(live.agent_id)
        event = live.judge(
            event,
            failures=node.failures,
            losses=node.losses,
            max_attempts=self._max_attempts,
            may_retry=self._stop is None and self._matcher.can_run(node.id),
        )
        self._record(event)
        if event.status is Status.COMPLETED:
            self._finish(node, event.status)
        elif event.failure is FailureKind.AUTHENTICATION:
            self._end_run(refused(event.error))
        elif event.retry_in_s is None:
            unfit = self._stop is None and not self._matcher.can_run(node.id)
            error = self._unfit_error(node) if unfit else event.error
            self._finish(node, event.status, error)
        elif event.retry_in_s:
            self._timers.set(node.id, self._now + event.retry_in_s)
        else:
            self._push(node)

    def _finish(self, node: Node, status: Status, error: str | None = None) -> None:
        """The subtask is final: release its dependents, or cancel them."""
        self._record_finish(node, status, error)
        if status is not Status.COMPLETED:
            self._cancel_dependents(node)
            return
        for dependent in node.dependents:
            if dependent.waits_for == 0 and self._is_pending(dependent):
                self._push(dependent)

    def _cancel_dependents(self, node: Node) -> None:
        words = "failed" if self.statuses[node.id] is Status.FAILED else "was cancelled"
        error = f"dependency {node.id} {words}: {node.error}"
        cut_off = [node]
        for current in cut_off:  # grows as it is walked
            for dependent in current.dependents:
                if self._is_pending(dependent):
                    self._record_finish(dependent, Status.CANCELLED, error)
                    cut_off.append(dependent)

    def _fail_unfit(self) -> None:
        """Fail what waits and no agent can run any more."""
        for node in self._progress.nodes.values():
            if self._is_pending(node) and not self._matcher.can_run(node.id):
                self._finish(node, Status.FAILED, self._unfit_error(node))

    def _unfit_error(self, node: Node) -> str:
        words, why = self._matcher.why_unfit(node.id), node.error or self._last_loss
        return f"{words}; {why}" if why else words

    def _record_finish(self, node: Node, status: Status, error: str | None) -> None:
        self._matcher.forget(node.id)
        self._timers.clear(node.id)
        self._record(
            SubtaskFinished(
                subtask_id=node.id,
                status=status,
                agent_id=node.agent_id,
                attempt=node.attempts or None,
                error=error,
            )
        )

    def _end_run(self, command: FinishTask | SuspendTask) -> None:
        self._is_over = True
        self._commands.append(command)

    def _is_pending(self, node: Node) -> bool:
        return self._progress.statuses[node.id] is Status.PENDING

    def _push(self, node: Node) -> None:
        self._matcher.push(node.id, node.failed_on)

    def _record(self, fact: Fact) -> None:
        self._progress.apply(fact, self._now - self._began_at)
        self._commands.append(Record(fact))

    def check_invariants(self) -> None:
        """For tests: assert that all the parts tell the same story."""
        self._progress.check_invariants()
        running = {attempt.subtask_id for attempt in self.live_attempts}
        assert not self._has_begun or running == set(self._live)
        assert sorted(map(id, self._live.values())) == sorted(
            map(id, self._live_on.values())
        )
        for live in self._live.values():
            assert self.statuses[live.subtask_id] is Status.IN_PROGRESS
            has_deadline = live.stopped_for is None and live.left_s is None
            assert (live.subtask_id in self._timers) == has_deadline
        if self._is_over:
            return  # where the task is suspended, what could start does not
        waiting = set()
        for node in self._progress.nodes.values():
            if self._has_begun and self._is_pending(node) and not node.waits_for:
                waiting.add(node.id)
        ready = self._matcher.ready_subtasks
        assert all((key in self._timers) != (key in ready) for key in waiting)
        assert not self._has_begun or ready <= waiting
        self._matcher.check_invariants(
            unfinished=[k for k, s in self.statuses.items() if not s.is_final],
            idle=self._present - set(self._live_on),
        )
