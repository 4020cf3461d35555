"""What is due when: one timer a subtask, in a heap."""

from collections.abc import Iterator
from heapq import heappop, heappush


class Timers:
    """At most one due time for each subtask; setting one replaces the former."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        # What is not in _due (any more) is outdated, and dropped at the top.
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, subtask_id: str) -> bool:
        return subtask_id in self._due

    def set(self, subtask_id: str, due: float) -> None:
        self._due[subtask_id] = due
        heappush(self._heap, (due, subtask_id))

    def left(self, subtask_id: str, now: float) -> float | None:
        """Seconds until its timer goes off; None where it has none."""
        due = self._due.get(subtask_id)
        return None if due is None else max(0.0, due - now)

    def clear(self, subtask_id: str) -> None:
        self._due.pop(subtask_id, None)

    def next_due(self) -> float | None:
        """When the first timer goes off."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> Iterator[str]:
        """The subtasks whose timers have gone off, each cleared."""
        while (due := self.next_due()) is not None and due <= now:
            _, subtask_id = heappop(self._heap)
            del self._due[subtask_id]
            yield subtask_id
