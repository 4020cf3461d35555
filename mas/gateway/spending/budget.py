"""How much may be spent: asked before each request goes out. Pure, the time passed in.

What running calls have used so far counts as spent, so a task exceeds its budget by no
more than what the calls take that are under way when the last one is let go.
"""

import math
from datetime import date, datetime
from typing import Literal

from msgspec import Struct

from mas.model import Usage

WARN_AT = 0.8
"""The share of a limit at which a warning is due."""

_ROUNDING_USD = 1e-9
"""Ten times ten cents are a dollar, though their sum in binary is less."""

_NOTHING = Usage()

Kind = Literal["task_usd", "task_tokens", "day_usd"]


class Refusal(Struct, frozen=True, kw_only=True):
    """Why no more requests go out."""

    kind: Kind
    reason: str
    hint: str
    """What to do; ``{task}`` stands for the task's id."""


class _Limit(Struct, frozen=True):
    kind: Kind
    most: float
    used: float
    name: str
    """As in "NAME is spent"."""
    used_words: str
    hint: str

    @property
    def is_reached(self) -> bool:
        return self.used >= self.most - _ROUNDING_USD


class Budget:
    """What one task may use, in all and today; None is no limit.

    ``spent`` is what its ended calls used in earlier runs, ``spent_today_usd`` what of
    today's spending is known at the start, whoever spent it. A call counts for the day
    on which it ends. ValueError for a limit that is not above 0.
    """

    def __init__(
        self,
        limit_usd: float | None,
        limit_tokens: int | None,
        limit_usd_per_day: float | None,
        spent: Usage = _NOTHING,
        spent_today_usd: float = 0.0,
    ) -> None:
        for limit in (limit_usd, limit_tokens, limit_usd_per_day):
            if limit is not None and not (0 < limit < math.inf):
                raise ValueError(f"a budget of {limit} is no budget")
        self._limit_usd = limit_usd
        self._limit_tokens = limit_tokens
        self._limit_usd_per_day = limit_usd_per_day
        self._spent = spent
        self._spent_today_usd = spent_today_usd
        self._others_today_usd = 0.0
        self._running: dict[str, Usage] = {}
        self._settled: set[str] = set()
        self._warned: set[Kind] = set()
        self._today: date | None = None

    @property
    def counts_usd(self) -> bool:
        """Whether a limit is in US dollars."""
        return self._limit_usd is not None or self._limit_usd_per_day is not None

    @property
    def spent(self) -> Usage:
        """What ended and running calls have used, earlier runs included."""
        return sum(self._running.values(), self._spent)

    @property
    def spent_today_usd(self) -> float:
        """What was spent today, by others as well."""
        running_usd = sum(usage.cost_usd for usage in self._running.values())
        return self._spent_today_usd + self._others_today_usd + running_usd

    def run(self, call_id: str, usage: Usage) -> None:
        """What a running call has used so far, in all."""
        if call_id not in self._settled:
            self._running[call_id] = usage

    def settle(self, call_id: str, usage: Usage) -> None:
        """What a call used that has ended; only the first time counts."""
        if call_id in self._settled:
            return
        self._settled.add(call_id)
        self._running.pop(call_id, None)
        self._spent += usage
        self._spent_today_usd += usage.cost_usd

    def others_today(self, usd: float) -> None:
        """What other supervisors spent today; it stands until it is said anew."""
        self._others_today_usd = usd

    def refusal(self, now: datetime) -> Refusal | None:
        """Why the next request must not go out at ``now``, in local time; None: it may.

        A new date begins with nothing spent of our own, but by the calls still running.
        """
        self._turn_to(now.date())
        for limit in self._limits():
            if limit.is_reached:
                reason = f"{limit.name} is spent: {limit.used_words} used"
                return Refusal(kind=limit.kind, reason=reason, hint=limit.hint)
        return None

    def warning(self) -> str | None:
        """That most of a limit is used; once a limit, the day's once a day."""
        for limit in self._limits():
            if limit.kind not in self._warned and limit.used >= WARN_AT * limit.most:
                self._warned.add(limit.kind)
                share = f"{WARN_AT * 100:.0f} %"
                return f"{share} of {limit.name} is used: {limit.used_words}"
        return None

    def _turn_to(self, today: date) -> None:
        if self._today is not None and today != self._today:
            self._spent_today_usd = 0.0
            self._warned.discard("day_usd")
        self._today = today

    def _limits(self) -> list[_Limit]:
        """The limits that are set, with what is used of each."""
        spent = self.spent
        limits = []
        if (usd := self._limit_usd) is not None:
            name, used = f"the budget of {_usd(usd, usd)}", _usd(spent.cost_usd, usd)
            hint = "go on with mas resume {task} --budget MORE"
            limits.append(_Limit("task_usd", usd, spent.cost_usd, name, used, hint))
        if (tokens := self._limit_tokens) is not None:
            name, used = f"the budget of {tokens:,} tokens", f"{spent.tokens:,}"
            hint = "go on with mas resume {task} --budget-tokens MORE"
            limits.append(_Limit("task_tokens", tokens, spent.tokens, name, used, hint))
        if (usd := self._limit_usd_per_day) is not None:
            today = self.spent_today_usd
            name, used = f"the budget of {_usd(usd, usd)} a day", _usd(today, usd)
            hint = "it goes on tomorrow, or raise limits.budget_usd_per_day"
            limits.append(_Limit("day_usd", usd, today, name, used, hint))
        return limits


def _usd(amount: float, limit: float) -> str:
    """Cents, or as much finer as the limit is."""
    cents = round(limit * 100, 6)
    digits = 2 if limit >= 1 or cents == int(cents) else 4 if limit >= 0.01 else 6
    return f"${amount:.{digits}f}"
