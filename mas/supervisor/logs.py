"""What agents log, written to ``agent_logs`` in batches, beside the journal."""

from collections.abc import Callable

import anyio

from mas.errors import StoreError
from mas.model import LogRecord
from mas.store.postgres import TaskStore

_QUEUE = 10_000
_FLUSH_DEADLINE_S = 2.0


class LogWriter:
    """Queues log records and writes them on a connection of their own.

    When the queue is full it drops records, and tells ``report`` how many.
    """

    def __init__(self, store: TaskStore, *, report: Callable[[str], None]) -> None:
        self._store = store
        self._report = report
        self._records: list[LogRecord] = []
        self._dropped = 0
        self._wake = anyio.Event()

    def add(self, record: LogRecord) -> None:
        if len(self._records) >= _QUEUE:
            self._dropped += 1
            if self._dropped == 1 or self._dropped % _QUEUE == 0:
                self._report(f"{self._dropped} log records are lost: too many at once")
            return
        self._records.append(record)
        self._wake.set()

    async def write(self) -> None:
        """Write whatever is added, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self._flush()

    async def close(self) -> None:
        """Write what is left, for at most two seconds."""
        with anyio.move_on_after(_FLUSH_DEADLINE_S, shield=True):
            await self._flush()

    async def _flush(self) -> None:
        records = self._records[:]
        if not records:
            return
        try:
            await self._store.write_logs(records)
        except StoreError as error:
            self._report(f"{len(records)} log records are lost: {error.message}")
        del self._records[: len(records)]
