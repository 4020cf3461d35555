"""The task's shared state in Redis, connected when it is first needed."""

import anyio

from mas.store.redis import SharedState

GO_ON = "Go on without it where the subtask allows that, and say so in your summary."


class Shared:
    """What share_data and get_shared_data work on, for one task."""

    def __init__(self, url: str, task_id: str) -> None:
        self.task_id = task_id
        self._url = url
        self._state: SharedState | None = None
        self._lock = anyio.Lock()  # two reads may ask for the first connection at once

    async def state(self) -> SharedState:
        """The connected state; NotReadyError where Redis is not there."""
        async with self._lock:
            if self._state is None:
                self._state = await SharedState.connect(self._url)
            return self._state

    async def close(self) -> None:
        """Let the connection go, in good time."""
        if self._state is not None:
            await self._state.close()
