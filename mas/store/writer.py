"""Writing the supervisor's tables, over whatever connection there is at the moment."""

from collections.abc import Sequence

from msgspec import convert, structs, to_builtins

from mas.core.events import (
    PlanAccepted,
    Recorded,
    TaskFinished,
    TaskResumed,
    TaskSuspended,
)
from mas.errors import OwnershipLostError, StoreError, UsageError, task_finished
from mas.model import LogRecord, Plan, Task
from mas.store import statements
from mas.store.facts import (
    ATTEMPT_FINISHED,
    TASK_FACTS,
    Columns,
    acceptable,
    clean_text,
    clean_value,
    columns,
    to_json,
)
from mas.store.sql import Connection, QueryError


class TaskWriter:
    """Writes tasks that it holds: by an advisory lock, and at the epoch it took."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._epochs: dict[str, int] = {}

    async def move(self, connection: Connection) -> None:
        """Go on over a new connection. A task that is not ours any more is let go."""
        self._connection = connection
        for task_id, epoch in list(self._epochs.items()):
            if not await self._try_lock(task_id):
                del self._epochs[task_id]
                continue
            rows = await connection.fetch(statements.EPOCH, task_id)
            if not rows or rows[0]["owner_epoch"] != epoch:
                await self.release(task_id)

    async def create(self, task: Task, recorded: Sequence[Recorded]) -> None:
        """Write a new task with its first facts, all or nothing, and hold it."""
        try:
            await self._insert_task(task, recorded)
        except QueryError as error:
            if not error.is_about_data:
                raise
            clean = [_acceptable(fact, error) for fact in recorded]
            await self._insert_task(_clean_task(task), clean)
        self._epochs[task.id] = 1

    async def take(self, task_id: str, owner: str) -> int:
        """Hold a task that nobody holds and that is not finished; its new epoch."""
        async with self._connection.transaction():
            await self._lock(task_id)
            rows = await self._connection.fetch(statements.TAKE_TASK, task_id, owner)
            await self._connection.execute(statements.DROP_COMMANDS, task_id)
            there = await self._connection.fetch(statements.STATUS, task_id)
        if not rows:
            await self._unlock(task_id)
            if there:
                raise task_finished(task_id, there[0]["status"])
            raise UsageError(f"there is no task {task_id!r}")
        epoch: int = rows[0]["owner_epoch"]
        self._epochs[task_id] = epoch
        return epoch

    async def release(self, task_id: str) -> None:
        """Let go of a task; nothing happens where it is not held."""
        if self._epochs.pop(task_id, None) is not None:
            await self._unlock(task_id)

    async def commit(self, task_id: str, epoch: int, batch: Sequence[Recorded]) -> None:
        """Keep the facts, in order, and the rows that follow from them."""
        if self._epochs.get(task_id) != epoch:
            raise _lost(task_id)
        try:
            await self._keep(task_id, epoch, batch)
        except OwnershipLostError:
            await self.release(task_id)
            raise

    async def request_cancel(self, task_id: str, reason: str) -> None:
        """Ask the task's owner, another process, to end it as cancelled."""
        asked = (task_id, clean_text(reason))
        await self._connection.execute(statements.REQUEST_CANCEL, *asked)

    async def log(self, records: Sequence[LogRecord]) -> None:
        await self._connection.execute(
            statements.WRITE_LOGS,
            [record.at for record in records],
            [clean_text(record.agent_id) for record in records],
            [record.task_id for record in records],
            [record.subtask_id for record in records],
            [clean_text(record.level) for record in records],
            [clean_text(record.message) for record in records],
        )

    async def _lock(self, task_id: str) -> None:
        # PostgreSQL lets a session take its lock twice: two runs would share a task.
        if task_id in self._epochs or not await self._try_lock(task_id):
            raise OwnershipLostError(
                f"the task {task_id} is held by a supervisor that runs",
                hint=f"look at it with mas show {task_id}",
            )

    async def _try_lock(self, task_id: str) -> bool:
        return bool((await self._connection.fetch(statements.LOCK, task_id))[0][0])

    async def _unlock(self, task_id: str) -> None:
        await self._connection.fetch(statements.UNLOCK, task_id)

    async def _insert_task(self, task: Task, recorded: Sequence[Recorded]) -> None:
        row = _task_row(task)
        sent = columns(recorded)
        try:
            async with self._connection.transaction():
                await self._lock(task.id)
                await self._connection.execute(statements.INSERT_TASK, *row)
                await self._insert(task.id, 1, sent, repeated=False)
                await self._change_task(task.id, recorded)
        except QueryError as error:
            same = (task.id, task.created_at, task.owner)
            if error.is_duplicate and await self._connection.fetch(
                statements.IS_SAME_TASK, *same
            ):
                return  # an answer was lost; all of it is there
            await self._unlock(task.id)
            if error.is_duplicate:
                raise StoreError(f"there is a task {task.id} already") from error
            raise

    async def _keep(self, task_id: str, epoch: int, batch: Sequence[Recorded]) -> None:
        """Append the facts. One that PostgreSQL refuses does not stop the others.

        Halving finds it, what comes before it is durable before it, and the fact itself
        is kept in an acceptable form: the journal has no hole.
        """
        try:
            await self._append(task_id, epoch, batch)
        except QueryError as error:
            if not error.is_about_data:
                raise
            if len(batch) == 1:
                await self._append(task_id, epoch, [_acceptable(batch[0], error)])
            else:
                half = len(batch) // 2
                await self._keep(task_id, epoch, batch[:half])
                await self._keep(task_id, epoch, batch[half:])

    async def _append(
        self, task_id: str, epoch: int, batch: Sequence[Recorded]
    ) -> None:
        sent = columns(batch)
        try:
            if any(isinstance(fact.event, TASK_FACTS) for fact in batch):
                async with self._connection.transaction():
                    count = await self._insert(task_id, epoch, sent, repeated=False)
                    if count:
                        await self._change_task(task_id, batch)
            else:
                count = await self._insert(task_id, epoch, sent, repeated=False)
        except QueryError as error:
            if not error.is_duplicate:
                raise
            count = await self._append_again(task_id, epoch, batch, sent)
        if count != len(batch):
            raise _lost(task_id)

    async def _append_again(
        self, task_id: str, epoch: int, batch: Sequence[Recorded], sent: Columns
    ) -> int:
        """Some of it is there: an answer was lost. Add the rest; count what is ours."""
        async with self._connection.transaction():
            if await self._insert(task_id, epoch, sent, repeated=True):
                await self._change_task(task_id, batch)
            ours = (task_id, epoch, sent.seqs, sent.ats, sent.types)
            rows = await self._connection.fetch(statements.COUNT_KEPT, *ours)
            count: int = rows[0][0]
            if count != len(batch):
                raise _lost(task_id)
        return count

    async def _insert(
        self, task_id: str, epoch: int, sent: Columns, *, repeated: bool
    ) -> int:
        statement = statements.APPEND[ATTEMPT_FINISHED in sent.types, repeated]
        arrays = (sent.seqs, sent.ats, sent.types, sent.events)
        return await self._connection.execute(statement, task_id, epoch, *arrays)

    async def _change_task(self, task_id: str, facts: Sequence[Recorded]) -> None:
        """Write what follows from the facts into the task's row."""
        execute = self._connection.execute
        for fact in facts:
            match fact.event:
                case PlanAccepted(plan=plan):
                    change = (task_id, fact.at, to_json(plan))
                    await execute(statements.SET_PLAN, *change)
                case TaskResumed():
                    await execute(statements.RESUME_TASK, task_id, fact.at)
                case TaskSuspended(reason=reason, interrupted=interrupted):
                    why = None if interrupted else reason
                    await execute(statements.SUSPEND_TASK, task_id, fact.at, why)
                case TaskFinished(status=status, result=result, error=error):
                    ending = (status.value, to_json(result), error)
                    await execute(statements.FINISH_TASK, task_id, fact.at, *ending)
                case _:
                    pass


def _acceptable(fact: Recorded, error: QueryError) -> Recorded:
    return structs.replace(fact, event=acceptable(fact.event, error.message))


def _clean_task(task: Task) -> Task:
    plan = task.plan and convert(clean_value(to_builtins(task.plan)), Plan)
    return structs.replace(task, description=clean_text(task.description), plan=plan)


def _task_row(task: Task) -> tuple[object, ...]:
    return (
        task.id,
        task.description,
        task.status.value,
        to_json(task.plan) if task.plan else None,
        task.created_at,
        task.updated_at,
        task.owner,
    )


def _lost(task_id: str) -> OwnershipLostError:
    return OwnershipLostError(
        f"the task {task_id} is not this supervisor's any more",
        hint=f"another one went on with it: mas show {task_id}",
    )
