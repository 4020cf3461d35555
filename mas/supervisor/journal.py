"""The journal of one task: facts get their number and time here, and are kept."""

from collections.abc import Sequence
from datetime import UTC, datetime

from mas.core.events import Fact, Recorded
from mas.model import Task
from mas.store.postgres import TaskStore


class Journal:
    """Numbers a task's facts and writes them, batch by batch, in order.

    ``seq`` is how many are written already, by this run or a former one.
    """

    def __init__(
        self, store: TaskStore, task_id: str, *, epoch: int, seq: int = 0
    ) -> None:
        self._store = store
        self._task_id = task_id
        self._epoch = epoch
        self._seq = seq

    @classmethod
    async def create(
        cls, store: TaskStore, task: Task, facts: Sequence[Fact]
    ) -> tuple["Journal", list[Recorded]]:
        """Write a new task with its first facts, all or nothing, and own it."""
        journal = cls(store, task.id, epoch=1)
        recorded = journal._number(facts)
        await store.create_task(task, recorded)
        journal._seq += len(facts)
        return journal, recorded

    async def append(self, facts: Sequence[Fact]) -> list[Recorded]:
        """Return when ``facts`` are durable, with their place."""
        recorded = self._number(facts)
        await self._store.commit(self._task_id, self._epoch, recorded)
        self._seq += len(facts)
        return recorded

    def _number(self, facts: Sequence[Fact]) -> list[Recorded]:
        at = datetime.now(UTC)
        return [
            Recorded(seq=seq, at=at, task_id=self._task_id, event=fact)
            for seq, fact in enumerate(facts, start=self._seq + 1)
        ]
