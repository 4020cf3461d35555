"""A task that tells its view what happens to it, in order."""

from datetime import UTC, datetime, timedelta
from itertools import count

from mas.core.events import (
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Event,
    Noticed,
    PlanAccepted,
    Recorded,
    SubtaskFinished,
    TaskCreated,
    Waiting,
)
from mas.core.view import RunView, State
from mas.model import Plan, Status, Subtask, Usage

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Telling:
    """The events of one task, each applied to ``view`` as it is told."""

    def __init__(
        self,
        description: str,
        *subtasks: Subtask,
        max_attempts: int | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
    ) -> None:
        self.view = RunView(max_attempts=max_attempts)
        self.now = START
        self.records: list[Recorded] = []
        self._seq = count(1)
        created = TaskCreated(
            description=description, budget_usd=budget_usd, budget_tokens=budget_tokens
        )
        self.tell(created)
        if subtasks:
            self.tell(PlanAccepted(plan=Plan(subtasks)))

    def tell(self, event: Event, after_s: float = 0) -> None:
        self.now += timedelta(seconds=after_s)
        shown_only = isinstance(event, AttemptProgress | Waiting | Noticed)
        record = Recorded(
            seq=None if shown_only else next(self._seq),
            at=self.now,
            task_id="3f2a91c0-77",
            event=event,
        )
        self.records.append(record)
        self.view.apply(record)

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def start(self, key: str, attempt: int = 1, agent: str = "agent_1") -> None:
        self.tell(AttemptStarted(subtask_id=key, attempt=attempt, agent_id=agent))

    def progress(
        self,
        key: str,
        activity: str,
        attempt: int = 1,
        *,
        subagent: str | None = None,
        status: str | None = None,
        usage: Usage | None = None,
        held: bool | None = None,
    ) -> None:
        self.tell(
            AttemptProgress(
                subtask_id=key,
                attempt=attempt,
                agent_id="agent_1",
                activity=activity,
                subagent=subagent,
                subagent_status=status,
                usage=usage,
                held=held,
            )
        )

    def end_attempt(
        self,
        key: str,
        status: Status,
        took_s: float = 0,
        *,
        attempt: int = 1,
        error: str | None = None,
        retry_in_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        self.tell(
            AttemptFinished(
                subtask_id=key,
                attempt=attempt,
                agent_id="agent_1",
                status=status,
                error=error,
                execution_time=took_s,
                retry_in_s=retry_in_s,
                usage=usage or Usage(),
            )
        )

    def end(self, key: str, status: Status, error: str | None = None) -> None:
        attempt = self.view.subtasks[key].attempt or None
        self.tell(
            SubtaskFinished(subtask_id=key, status=status, attempt=attempt, error=error)
        )

    def complete(
        self,
        key: str,
        took_s: float = 0,
        *,
        attempt: int = 1,
        usage: Usage | None = None,
    ) -> None:
        """Start an attempt, unless it runs, and end it and the subtask well."""
        if self.state(key) is not State.RUNNING:
            self.start(key, attempt)
        self.end_attempt(key, Status.COMPLETED, took_s, attempt=attempt, usage=usage)
        self.end(key, Status.COMPLETED)

    def state(self, key: str) -> State:
        return self.view.subtasks[key].state

    def last(self, key: str) -> str:
        return self.view.last(self.view.subtasks[key], self.now)


def subtask(
    key: str, *needs: str, description: str = "", capabilities: tuple[str, ...] = ()
) -> Subtask:
    return Subtask(
        id=key,
        description=description or f"do {key}",
        dependencies=needs,
        required_capabilities=capabilities,
    )
