"""What the calls of Claude's API took: counted at once, written beside the work."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

import anyio

from mas.errors import StoreError
from mas.model import CallState, ModelCall, Usage

_RETRY_SOONEST_S = 0.2
_RETRY_LATEST_S = 2.0
_CLOSE_DEADLINE_S = 2.0

_Attempt = tuple[str | None, int | None]
"""Subtask and attempt; the planner's calls have neither."""


class Ledger:
    """The calls of one task: those that run, and the sums of those that ended.

    ``write`` makes calls durable, however often each comes, and returns what all tasks
    spent today; ``day_total`` hears that. ``changed`` hears each change of a call, and
    ``report`` that writing fails, once. ``history`` is what was recorded before this
    run: it is counted and not written again. ``day_usd`` is what was spent today
    before the first write.
    """

    def __init__(
        self,
        write: Callable[[Sequence[ModelCall]], Awaitable[float]],
        *,
        history: Iterable[ModelCall] = (),
        changed: Callable[[ModelCall], None],
        day_total: Callable[[float], None],
        report: Callable[[str], None],
        day_usd: float = 0.0,
    ) -> None:
        self._write_calls = write
        self._changed = changed
        self._day_total = day_total
        self._report = report
        self._open: dict[str, ModelCall] = {}
        self._ended: dict[_Attempt, dict[str | None, Usage]] = {}
        """By attempt and, in it, subagent; None is the session itself."""
        self._ended_by_model: dict[str, Usage] = {}
        self._ended_total = Usage()
        for call in history:
            self._count(call)
        self._unwritten: dict[str, ModelCall] = {}
        self._wake = anyio.Event()
        self._turn = anyio.Lock()
        self._is_failing = False
        self._day_usd = day_usd
        self._usd_in_day = self.total.cost_usd

    def begin(self, call: ModelCall) -> None:
        """The call is sent."""
        self._open[call.id] = call
        self._note(call)

    def update(self, call: ModelCall) -> None:
        """More is known of a call that is answered; of another, nothing happens."""
        former = self._open.get(call.id)
        if former is not None and former != call:
            self._open[call.id] = call
            self._note(call)

    def end(self, call: ModelCall) -> None:
        """The call has ended, as its state says; ending it again changes nothing."""
        if call.state is CallState.OPEN:
            raise ValueError(f"the call {call.id} is said to have ended, but is open")
        if self._open.pop(call.id, None) is not None:
            self._count(call)
            self._note(call)

    @property
    def open_calls(self) -> tuple[ModelCall, ...]:
        """The calls that run, in the order in which they were sent."""
        return tuple(self._open.values())

    @property
    def total(self) -> Usage:
        """What the task took so far, with the calls that run; so do all sums here."""
        return sum((call.usage for call in self._open.values()), self._ended_total)

    @property
    def day_usd(self) -> float:
        """What all tasks spent today: as last heard, and this task since then."""
        return self._day_usd + self.total.cost_usd - self._usd_in_day

    def by_model(self) -> dict[str, Usage]:
        """What each model took, by name; a call that took nothing names none."""
        sums = dict(self._ended_by_model)
        for call in self._open.values():
            _add_to(sums, call.model, call.usage)
        return sums

    def usage_of(self, subtask_id: str, attempt: int) -> Usage:
        """What the attempt took, its subagents included."""
        return sum(self._parts((subtask_id, attempt)).values(), Usage())

    def usage_of_subagents(self, subtask_id: str, attempt: int) -> dict[str, Usage]:
        """What each subagent of the attempt took, by its id."""
        parts = self._parts((subtask_id, attempt))
        return {name: usage for name, usage in parts.items() if name is not None}

    def usage_of_planner(self) -> Usage:
        return sum(self._parts((None, None)).values(), Usage())

    async def write_forever(self) -> None:
        """Write whatever changes, until cancelled.

        What changes during one write is the next. What cannot be written is kept, and
        tried again at the next change or after two seconds.
        """
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            if await self._write():
                continue
            await anyio.sleep(_RETRY_SOONEST_S)
            with anyio.move_on_after(_RETRY_LATEST_S - _RETRY_SOONEST_S):
                await self._wake.wait()  # nobody tells when PostgreSQL is back
            self._wake.set()

    async def close(self) -> None:
        """Write what is left, for at most two seconds; tell of what is not written."""
        with anyio.move_on_after(_CLOSE_DEADLINE_S, shield=True):
            while self._unwritten and await self._write():
                pass
        if self._unwritten:
            count = len(self._unwritten)
            self._report(f"what {count} model calls took is not recorded")

    async def _write(self) -> bool:
        """Write what changed; False where that fails, and all is kept."""
        async with self._turn:
            if not self._unwritten:
                return True
            batch = list(self._unwritten.values())
            usd_in_day = self.total.cost_usd
            try:
                day_usd = await self._write_calls(batch)
            except StoreError as error:
                if not self._is_failing:
                    self._report(f"model calls are recorded later: {error.message}")
                self._is_failing = True
                return False
            self._is_failing = False
            for call in batch:
                if self._unwritten[call.id] is call:  # else it changed meanwhile
                    del self._unwritten[call.id]
            self._day_usd, self._usd_in_day = day_usd, usd_in_day
        self._day_total(day_usd)
        return True

    def _note(self, call: ModelCall) -> None:
        self._unwritten[call.id] = call
        self._wake.set()
        self._changed(call)

    def _count(self, call: ModelCall) -> None:
        parts = self._ended.setdefault((call.subtask_id, call.attempt), {})
        parts[call.subagent] = parts.get(call.subagent, Usage()) + call.usage
        _add_to(self._ended_by_model, call.model, call.usage)
        self._ended_total += call.usage

    def _parts(self, attempt: _Attempt) -> dict[str | None, Usage]:
        """What an attempt took, by subagent."""
        parts = dict(self._ended.get(attempt, {}))
        for call in self._open.values():
            if (call.subtask_id, call.attempt) == attempt:
                parts[call.subagent] = parts.get(call.subagent, Usage()) + call.usage
        return parts


def _add_to(sums: dict[str, Usage], model: str, usage: Usage) -> None:
    if usage != Usage():
        sums[model] = sums.get(model, Usage()) + usage
