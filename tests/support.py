"""What tests of whole runs share: a run, and what was shown of it."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio
from msgspec import Struct

from mas.core.events import Event, Recorded, TaskFinished, TaskSuspended
from mas.supervisor.supervisor import Supervisor

FAKE_AGENT = "mas.testing.fake_agent"


class Run(Struct):
    """How a run went."""

    supervisor: Supervisor
    outcome: TaskFinished | TaskSuspended
    shown: list[Recorded]
    recalled: list[Recorded] = []

    def events(self, kind: type[Event]) -> list[Any]:
        """The events of one kind, in the order in which they were shown."""
        return [
            recorded.event
            for recorded in self.shown
            if isinstance(recorded.event, kind)
        ]


class RunPlan(Protocol):
    """Runs the plan of these subtasks; see the fixture ``run_plan``."""

    async def __call__(
        self,
        *subtasks: dict[str, Any],
        show: Callable[[Supervisor, Recorded], None] = ...,
        **changes: Any,
    ) -> Run: ...


class GoOn(Protocol):
    """Goes on with a task; see the fixture ``go_on``."""

    async def __call__(
        self,
        task: str,
        show: Callable[[Supervisor, Recorded], None] = ...,
        **changes: Any,
    ) -> Run: ...


async def until(
    condition: Callable[[], Awaitable[bool]], described: str, *, deadline_s: float = 20
) -> None:
    """Return when the condition holds; fail, with its description, at the deadline."""
    with anyio.move_on_after(deadline_s):
        while not await condition():  # noqa: ASYNC110 - another process changes it
            await anyio.sleep(0.02)  # what is looked at announces nothing
        return
    raise AssertionError(f"within {deadline_s:g} s it did not come true: {described}")
