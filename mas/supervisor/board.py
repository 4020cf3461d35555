"""What the agents do right now, published to Redis: never in the way of the work."""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
import msgspec
from msgspec import structs

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    Recorded,
)
from mas.errors import MasError, StoreError
from mas.model import AgentStatus, Status
from mas.store.outage import Revive
from mas.store.redis import AgentBoard
from mas.wire.messages import Heartbeat

_PROGRESS_QUEUE = 1000
_REPORT_EVERY_S = 60.0
_INTERVAL_S = 0.2
"""Between two writes: people look, and thousands of short subtasks must not wait."""


class BoardWriter:
    """Keeps each agent's status and writes what changed, the latest only.

    Redis down blinds mas and stops nothing: ``report`` is told, at most once a minute,
    and with the next heartbeats every status is published again, whole. ``revive`` is
    called where it is mas that has to bring Redis back.
    """

    def __init__(
        self,
        board: AgentBoard,
        supervisor_id: str,
        *,
        ttl_s: float,
        report: Callable[[str], None],
        revive: Revive | None = None,
    ) -> None:
        self._board = board
        self._supervisor_id = supervisor_id
        self._ttl_s = ttl_s
        self._report = report
        self._revive = revive
        self._reported_at = -_REPORT_EVERY_S
        self._statuses: dict[str, AgentStatus] = {}
        self._completed: dict[str, int] = {}
        """By agents that are gone, and may come back."""
        self._changed: dict[str, bool] = {}
        self._progress: list[Recorded] = []
        self._wake = anyio.Event()

    def ready(self, event: AgentReady) -> None:
        self._statuses[event.agent_id] = AgentStatus(
            agent_id=event.agent_id,
            supervisor=self._supervisor_id,
            pid=event.pid,
            is_available=True,
            current_task=None,
            capabilities=event.capabilities,
            cpu_usage=0.0,
            memory_usage=0.0,
            tasks_completed=self._completed.get(event.agent_id, 0),
            last_heartbeat=datetime.now(UTC),
        )
        self._touch(event.agent_id)

    def lost(self, event: AgentLost) -> None:
        if status := self._statuses.pop(event.agent_id, None):
            self._completed[event.agent_id] = status.tasks_completed
            self._touch(event.agent_id, gone=True)

    def heartbeat(self, agent_id: str, beat: Heartbeat) -> None:
        self._update(
            agent_id,
            cpu_usage=beat.cpu_percent,
            memory_usage=beat.memory_mib,
            last_heartbeat=datetime.now(UTC),
        )

    def show(self, recorded: Recorded) -> None:
        """Follow the events of a task: who works on what."""
        event = recorded.event
        if isinstance(event, AttemptStarted):
            self._update(
                event.agent_id, current_task=event.subtask_id, is_available=False
            )
        elif isinstance(event, AttemptFinished):
            self._update(event.agent_id, current_task=None, is_available=True)
            self._count(event)
        elif isinstance(event, AttemptProgress):
            if len(self._progress) < _PROGRESS_QUEUE:
                self._progress.append(recorded)
            self._wake.set()

    async def write(self) -> None:
        """Publish whatever changes, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            changed, self._changed = self._changed, {}
            progress, self._progress = self._progress, []
            try:
                await self._publish(changed, progress)
            except StoreError as error:
                # Not woken for these: the next heartbeat brings them along.
                self._changed = changed | self._changed
                self._report_once(error)
                await self._bring_back()
            await anyio.sleep(_INTERVAL_S)

    async def remove_all(self) -> None:
        """Take this supervisor's agents off the board."""
        try:
            for agent_id in [*self._statuses, *self._changed]:
                await self._board.remove(self._supervisor_id, agent_id)
        except StoreError as error:
            self._report_once(error)

    async def _publish(
        self, changed: dict[str, bool], progress: list[Recorded]
    ) -> None:
        for agent_id, gone in changed.items():
            if gone:
                await self._board.remove(self._supervisor_id, agent_id)
            elif status := self._statuses.get(agent_id):
                await self._board.publish(status, self._ttl_s)
        for recorded in progress:
            payload = msgspec.json.encode(recorded.to_json())
            await self._board.publish_progress(recorded.task_id, payload)

    async def _bring_back(self) -> None:
        if self._revive is not None:
            try:
                await self._revive()
            except MasError as error:
                self._report_once(error)

    def _report_once(self, error: MasError) -> None:
        now = anyio.current_time()
        if now - self._reported_at >= _REPORT_EVERY_S:
            self._reported_at = now
            self._report(f"{error.message}; the work goes on without")

    def _update(self, agent_id: str, **changes: object) -> None:
        if agent_id in self._statuses:
            self._statuses[agent_id] = structs.replace(
                self._statuses[agent_id], **changes
            )
            self._touch(agent_id)

    def _touch(self, agent_id: str, *, gone: bool = False) -> None:
        self._changed[agent_id] = gone
        self._wake.set()

    def _count(self, event: AttemptFinished) -> None:
        status = self._statuses.get(event.agent_id)
        if status and event.status is Status.COMPLETED:
            done = status.tasks_completed + 1
            self._update(event.agent_id, tasks_completed=done)
