"""What a task's calls of Claude's API took, added up for people and programs."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

from msgspec import Struct

from mas.model import CallState, ModelCall, Usage

_Key = TypeVar("_Key", str, str | None)


class ModelSpending(Struct, frozen=True, kw_only=True):
    """What one model took."""

    model: str
    calls: int
    usage: Usage


class SubtaskSpending(Struct, frozen=True, kw_only=True):
    """What one subtask took, over all its attempts."""

    subtask_id: str | None
    """None is the planner."""
    calls: int
    usage: Usage


class Spending(Struct, frozen=True, kw_only=True):
    """What all the calls took; ``to_builtins`` makes it JSON."""

    usage: Usage
    by_model: tuple[ModelSpending, ...]
    """The costliest first; calls whose model was never known took nothing."""
    by_subtask: tuple[SubtaskSpending, ...]
    """In the order of their first calls."""
    calls: int
    refused: int
    """Those that were answered with an HTTP error."""
    median_first_byte_s: float | None
    """Of the calls that took tokens; None where there is none."""
    cache_read_share: float | None
    """Of all that was sent, what the prompt cache held: 0 to 1; None before any."""


def add_up(calls: Iterable[ModelCall]) -> Spending:
    """Add up the calls of a task, given by their start, those that run included."""
    all_calls = list(calls)
    usage = _usage(all_calls)
    by_model = [
        ModelSpending(model=model, calls=len(group), usage=_usage(group))
        for model, group in _grouped(all_calls, lambda call: call.model).items()
        if model or _usage(group) != Usage()
    ]
    by_subtask = [
        SubtaskSpending(subtask_id=subtask_id, calls=len(group), usage=_usage(group))
        for subtask_id, group in _grouped(all_calls, lambda c: c.subtask_id).items()
    ]
    first_bytes_s = [
        call.first_byte_s
        for call in all_calls
        if call.first_byte_s is not None and call.usage != Usage()
    ]
    sent = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return Spending(
        usage=usage,
        by_model=tuple(sorted(by_model, key=_costliest_first)),
        by_subtask=tuple(by_subtask),
        calls=len(all_calls),
        refused=sum(call.state is CallState.REFUSED for call in all_calls),
        median_first_byte_s=median(first_bytes_s) if first_bytes_s else None,
        cache_read_share=usage.cache_read_tokens / sent if sent else None,
    )


def _grouped(
    calls: Iterable[ModelCall], key: Callable[[ModelCall], _Key]
) -> dict[_Key, list[ModelCall]]:
    groups: dict[_Key, list[ModelCall]] = {}
    for call in calls:
        groups.setdefault(key(call), []).append(call)
    return groups


def _usage(calls: Sequence[ModelCall]) -> Usage:
    return sum((call.usage for call in calls), Usage())


def _costliest_first(spending: ModelSpending) -> tuple[float, int, str]:
    return -spending.usage.cost_usd, -spending.usage.tokens, spending.model
