"""A journal in memory, and what is true of any journal and of each of its prefixes."""

from datetime import UTC, datetime

from mas.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelAccepted,
    Fact,
    Recorded,
    TaskResumed,
    TaskSuspended,
    fact_of,
)
from mas.core.progress import Node, Progress
from mas.core.view import RunView
from mas.model import Plan, Status


def told(progress: Progress) -> dict[str, dict[str, object]]:
    """All that a fold of the facts knows, in a form that can be compared."""
    names = [name for name in Node.__slots__ if name not in ("dependents", "story")]
    return {
        key: {name: getattr(node, name) for name in names}
        | {"status": progress.statuses[key]}
        for key, node in progress.nodes.items()
    }


class Ledger:
    """The facts of one task, each shown by ``view`` as it is recorded."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
        self.view = RunView()
        self.commits: list[int] = []
        """How many facts there were after each commit."""
        self._records: list[Recorded] = []

    def __len__(self) -> int:
        return len(self._records)

    @property
    def facts(self) -> list[Fact]:
        return [fact_of(recorded) for recorded in self._records]

    def record(self, fact: Fact) -> None:
        """A fact is durable, and shown."""
        recorded = Recorded(seq=len(self) + 1, at=self.clock, task_id="t", event=fact)
        self._records.append(recorded)
        self.view.apply(recorded)

    def keep(self, size: int) -> None:
        """Only the first ``size`` facts were durable after all."""
        del self._records[size:]
        self.commits = [end for end in self.commits if end <= size]
        self.view = RunView()
        for recorded in self._records:
            self.view.apply(recorded)

    def replayed(self) -> Progress:
        progress = Progress(self.plan)
        for fact in self.facts:
            progress.apply(fact, None)
        progress.check_invariants()
        return progress

    def check_prefixes(self) -> None:
        """Each prefix shows every subtask where it is; a cancel is for good."""
        view, progress = RunView(), Progress(self.plan)
        unsettled: set[str] = set()
        is_cancelled = False
        for recorded in self._records:
            fact = fact_of(recorded)
            if is_cancelled:
                assert not isinstance(fact, AttemptStarted | CancelAccepted)
            is_cancelled |= isinstance(fact, CancelAccepted)
            view.apply(recorded)
            progress.apply(fact, None)
            if isinstance(fact, TaskResumed | TaskSuspended):
                unsettled = {k for k, node in progress.nodes.items() if node.running}
            elif isinstance(fact, AttemptFinished):
                unsettled.discard(fact.subtask_id)
            for key, status in view.statuses().items():
                node = progress.nodes[key]
                if key in unsettled or node.last is Status.CANCELLED:
                    assert status is Status.PENDING
                else:
                    assert status is progress.statuses[key], progress.story(key)
