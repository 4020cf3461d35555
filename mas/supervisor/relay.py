"""Passes on what happens: to the screen, the agents' board, the logs, the engine."""

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskGroup

from mas.config import Config
from mas.core.events import (
    AgentLost,
    AgentReady,
    Event,
    Noticed,
    Recorded,
    SchedulerInput,
    TaskFinished,
    TaskSuspended,
    Waiting,
)
from mas.model import LogRecord, Usage
from mas.supervisor.board import BoardWriter
from mas.supervisor.engine import Engine
from mas.supervisor.logs import LogWriter
from mas.supervisor.services import Services
from mas.wire import messages

SUPERVISOR = "supervisor"
"""The ``agent_id`` of what the supervisor itself logs."""
_CLOSING_DEADLINE_S = 2.0


class Relay:
    """One supervisor's relay; ``task_id`` is the task that everything is about."""

    def __init__(self, task_id: str, show: Callable[[Recorded], None]) -> None:
        self.task_id = task_id
        self._show_outside = show
        self._board: BoardWriter | None = None
        self._logs: LogWriter | None = None
        self._engine: Engine | None = None
        self._early: list[SchedulerInput] = []
        """What happened before there was an engine."""
        self._over = False

    def start(
        self, tasks: TaskGroup, services: Services, config: Config, supervisor_id: str
    ) -> None:
        """Publish and write from now on, as tasks of the caller's."""
        self._logs = LogWriter(services.log_store, report=self._tell)
        self._board = BoardWriter(
            services.board,
            supervisor_id,
            ttl_s=config.supervisor.agent_ttl_s,
            report=self._tell,
            revive=services.addresses.revive_redis,
        )
        tasks.start_soon(self._board.write)
        tasks.start_soon(self._logs.write)

    async def close(self) -> None:
        """Write what is left and take the agents off the board, in two seconds."""
        with anyio.move_on_after(_CLOSING_DEADLINE_S, shield=True):
            if self._logs:
                await self._logs.close()
            if self._board:
                await self._board.remove_all()

    def attach(self, engine: Engine) -> None:
        """Tell ``engine`` everything, what happened before it too."""
        self._engine = engine
        for event in self._early:
            engine.feed(event)

    def feed(self, event: SchedulerInput) -> None:
        """Something happened that the scheduler has to know."""
        if self._engine:
            self._engine.feed(event)
        else:
            self._early.append(event)

    def agent_changed(self, event: AgentReady | AgentLost) -> None:
        if self._board and isinstance(event, AgentReady):
            self._board.ready(event)
        elif self._board and isinstance(event, AgentLost):
            self._board.lost(event)
        self.feed(event)

    def received(self, agent_id: str, message: messages.FromAgent) -> None:
        """An agent says something."""
        if isinstance(message, messages.Heartbeat) and self._board:
            self._board.heartbeat(agent_id, message)
        elif isinstance(message, messages.Log) and self._logs:
            record = LogRecord(
                at=message.at,
                agent_id=agent_id,
                level=message.level,
                message=message.message,
                task_id=self.task_id if self._engine else None,
                subtask_id=message.subtask_id,
            )
            self._logs.add(record)
        elif self._engine:
            self._engine.received(agent_id, message)

    def wait_for(self, reason: str, *, until: datetime | None = None) -> None:
        """Show what is waited for; nothing any more where ``reason`` is empty."""
        self.show_now(Waiting(reason=reason, until=until))

    def noticed(self, text: str, *, is_passing: bool = False) -> None:
        """Show what a person should know, and log it; see ``Noticed``."""
        self.show_now(Noticed(text=text, is_passing=is_passing))
        self.log("warning", text)

    def _tell(self, text: str) -> None:
        """Show it only: it may be that logs cannot be written."""
        self.show_now(Noticed(text=text))

    def log(self, level: str, message: str, subtask_id: str | None = None) -> None:
        """Log something of the supervisor's own."""
        if self._logs:
            self._logs.add(
                LogRecord(
                    at=datetime.now(UTC),
                    agent_id=SUPERVISOR,
                    level=level,
                    message=message,
                    task_id=self.task_id if self._engine else None,
                    subtask_id=subtask_id,
                )
            )

    def used(self, subtask_id: str, attempt: int, usage: Usage) -> None:
        """An attempt's calls of Claude took so much, all together."""
        if self._engine:
            self._engine.used(subtask_id, attempt, usage)

    def held(self, subtask_id: str, attempt: int, is_held: bool) -> None:
        """An attempt waits for its turn at Claude, or does not any more."""
        if self._engine:
            self._engine.held(subtask_id, attempt, is_held)

    def show_now(self, event: Event) -> None:
        """Show what is not recorded."""
        at = datetime.now(UTC)
        self.show(Recorded(seq=None, at=at, task_id=self.task_id, event=event))

    def show(self, recorded: Recorded) -> None:
        if self._over:
            return  # what ended the run is the last thing shown of it
        self._over = isinstance(recorded.event, TaskFinished | TaskSuspended)
        if self._board:
            self._board.show(recorded)
        self._show_outside(recorded)
