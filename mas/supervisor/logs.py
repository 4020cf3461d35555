"""What agents log, written to ``agent_logs`` in batches, beside the journal."""

from collections.abc import Callable

import anyio

from mas.errors import OutageError, StoreError
from mas.model import LogRecord
from mas.store.postgres import TaskStore

_QUEUE = 10_000
_QUEUE_CHARS = 16_000_000
_RETRY_AFTER_S = 2.0
_FLUSH_DEADLINE_S = 2.0


class LogWriter:
    """Queues log records and writes them on a connection of their own.

    While PostgreSQL is away they are kept, and written when it is back. When the queue
    is full it drops records, and tells ``report`` how many.
    """

    def __init__(self, store: TaskStore, *, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._records: list[LogRecord] = []
        self._chars = 0
        self._dropped = 0
        self._is_away = False
        self._is_refused = False
        self._wake = anyio.Event()

    def add(self, record: LogRecord) -> None:
        chars = self._chars + len(record.message)
        if len(self._records) >= _QUEUE or chars > _QUEUE_CHARS:
            self._dropped += 1
            if self._dropped == 1 or self._dropped % _QUEUE == 0:
                self._report(f"{self._dropped} log records are lost: too many at once")
            return
        self._records.append(record)
        self._chars = chars
        self._wake.set()

    async def write(self) -> None:
        """Write whatever is added, until cancelled.

        The batch that is under way then is given two seconds: cut off after its COMMIT,
        it would be written again.
        """
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self._flush_whole()
            if self._is_away:
                self._wake.set()
                await anyio.sleep(_RETRY_AFTER_S)  # nobody tells when it is back

    async def close(self) -> None:
        """Write what is left, for at most two seconds."""
        with anyio.move_on_after(_FLUSH_DEADLINE_S, shield=True):
            await self._flush()

    async def _flush_whole(self) -> None:
        shielded = anyio.CancelScope(shield=True)

        async def limit_when_cancelled() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                shielded.deadline = anyio.current_time() + _FLUSH_DEADLINE_S

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limit_when_cancelled)
            with shielded:
                await self._flush()
            tasks.cancel_scope.cancel()

    async def _flush(self) -> None:
        records = self._records[:]
        if not records:
            return
        try:
            await self._store.write_logs(records)
        except OutageError as error:
            if not self._is_away:
                self._report(f"log records are kept for later: {error.message}")
            self._is_away = True
            return
        except StoreError as error:
            if not self._is_refused:
                self._report(f"{len(records)} log records are lost: {error.message}")
            self._is_refused = True
        else:
            self._is_refused = False
        self._is_away = False
        del self._records[: len(records)]
        self._chars -= sum(len(record.message) for record in records)
