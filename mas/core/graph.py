"""A plan as a graph: what is wrong with it, what waits for what, and how long.

Nothing here recurses: a chain of 10,000 subtasks is a plan like any other.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from mas.errors import PlanError
from mas.model import AgentSpec, Plan, Subtask

MAX_KEY_CHARS = 64
MAX_KEY_BYTES = 255
"""A key names a folder, and this is what a file system takes."""

_MAX_CYCLES_TOLD = 10
_MAX_KEYS_TOLD = 12


def check_plan(
    plan: Plan,
    roster: Sequence[AgentSpec],
    *,
    capabilities: Collection[str],
    max_subtasks: int,
) -> list[str]:
    """Every fault of ``plan``, each a sentence that says what to change; [] is good."""
    subtasks = plan.subtasks
    if not subtasks:
        return ["the plan has no subtasks; give at least one"]
    faults = []
    if len(subtasks) > max_subtasks:
        faults.append(
            f"the plan has {len(subtasks)} subtasks and at most {max_subtasks} are "
            "allowed; join those that belong together"
        )
    faults += _key_faults(subtasks)
    offered = {item for agent in roster for item in agent.capabilities}
    for subtask in subtasks:
        faults += _value_faults(subtask)
        faults += _capability_faults(subtask, capabilities, offered)
    faults += _dependency_faults(subtasks)
    faults += _cycle_faults(subtasks)
    return faults


def stages(plan: Plan) -> list[list[str]]:
    """Subtasks by level: those of one level depend on earlier levels only.

    A subtask's level is the longest way to it; within a level the plan's order holds.
    """
    level: dict[str, int] = {}
    for subtask in _topological_order(plan):
        level[subtask.id] = 1 + max(
            (level[key] for key in subtask.dependencies), default=-1
        )
    found: list[list[str]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for subtask in plan.subtasks:
        found[level[subtask.id]].append(subtask.id)
    return found


def remaining_path_s(plan: Plan) -> dict[str, float]:
    """For each subtask the longest way to the end in seconds, itself included."""
    after = dict.fromkeys((subtask.id for subtask in plan.subtasks), 0.0)
    remaining: dict[str, float] = {}
    for subtask in reversed(_topological_order(plan)):
        path_s = remaining[subtask.id] = after[subtask.id] + subtask.estimated_duration
        for key in subtask.dependencies:
            after[key] = max(after[key], path_s)
    return remaining


def critical_path(plan: Plan) -> list[str]:
    """The chain of subtasks that takes longest, first to last."""
    remaining = remaining_path_s(plan)
    dependents = dependents_of(plan)
    path = []
    choices = [subtask.id for subtask in plan.subtasks]
    while choices:
        longest = max(choices, key=remaining.__getitem__)
        path.append(longest)
        choices = dependents[longest]
    return path


def dependents_of(plan: Plan) -> dict[str, list[str]]:
    """For each subtask the keys of those that need its result, each once."""
    found: dict[str, list[str]] = {subtask.id: [] for subtask in plan.subtasks}
    for subtask in plan.subtasks:
        for key in dict.fromkeys(subtask.dependencies):
            if key in found:
                found[key].append(subtask.id)
    return found


def _topological_order(plan: Plan) -> list[Subtask]:
    """Subtasks after their dependencies; PlanError where there is no such order."""
    by_key = {subtask.id: subtask for subtask in plan.subtasks}
    missing = {subtask.id: len(set(subtask.dependencies)) for subtask in plan.subtasks}
    dependents = dependents_of(plan)
    order = [subtask for subtask in plan.subtasks if not missing[subtask.id]]
    for subtask in order:  # grows as it is walked
        for key in dependents[subtask.id]:
            missing[key] -= 1
            if not missing[key]:
                order.append(by_key[key])
    if len(order) < len(plan.subtasks):
        reasons = [*_dependency_faults(plan.subtasks), *_cycle_faults(plan.subtasks)]
        raise PlanError(
            "the plan's subtasks have no order in which they could run",
            reasons=tuple(reasons),
            hint="Let each subtask depend only on others of the plan, without a cycle.",
        )
    return order


def _key_faults(subtasks: Sequence[Subtask]) -> Iterator[str]:
    counts = Counter(subtask.id for subtask in subtasks)
    spelled: dict[str, str] = {}
    for key, count in counts.items():
        if words := _folder_name_fault(key):
            yield f"the key {key!r} {words}; keys are names of folders, choose another"
        if count > 1:
            yield f"{count} subtasks have the key {key!r}; give each its own"
        # macOS takes names that differ in case or in composed accents for one.
        folded = unicodedata.normalize(
            "NFC", unicodedata.normalize("NFD", key).casefold()
        )
        other = spelled.setdefault(folded, key)
        if other != key:
            yield (
                f"the keys {other!r} and {key!r} would be one folder where upper and "
                "lower case are the same; rename one"
            )


def _folder_name_fault(key: str) -> str | None:
    if not key:
        return "is empty"
    if len(key) > MAX_KEY_CHARS:
        return f"has {len(key)} characters and at most {MAX_KEY_CHARS} are allowed"
    if not key.isprintable():
        return "holds a character that cannot be printed"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"takes more than {MAX_KEY_BYTES} bytes"
    if "/" in key or "\\" in key:
        return "holds a slash or a backslash"
    if key[0] in ".-":
        return f"starts with {key[0]!r}"
    if key != key.strip():
        return "starts or ends with a space"
    return None


def _value_faults(subtask: Subtask) -> Iterator[str]:
    name = f"subtask {subtask.id!r}"
    if not subtask.description.strip():
        yield f"{name} has an empty description; say what is to be done"
    if not 0 <= subtask.priority <= 10:
        yield f"{name} has the priority {subtask.priority}; use 0 to 10"
    seconds = subtask.estimated_duration
    if not (math.isfinite(seconds) and seconds > 0):
        yield (
            f"{name} has the estimated_duration {seconds}; use a number of seconds "
            "above 0"
        )


def _capability_faults(
    subtask: Subtask, capabilities: Collection[str], offered: set[str]
) -> Iterator[str]:
    name = f"subtask {subtask.id!r}"
    known = [item for item in subtask.required_capabilities if item in capabilities]
    for capability in dict.fromkeys(subtask.required_capabilities):
        if capability not in capabilities:
            yield (
                f"{name} requires {capability!r}, which is not a capability; use some "
                f"of: {', '.join(capabilities)}"
            )
    if known and offered.isdisjoint(known):
        yield (
            f"{name} requires {', '.join(known)}, and no agent has any of it; the "
            f"agents have: {', '.join(sorted(offered))}"
        )


def _dependency_faults(subtasks: Sequence[Subtask]) -> Iterator[str]:
    keys = {subtask.id for subtask in subtasks}
    for subtask in subtasks:
        for key in dict.fromkeys(subtask.dependencies):
            if key == subtask.id:
                yield f"subtask {key!r} depends on itself; remove that dependency"
            elif key not in keys:
                yield (
                    f"subtask {subtask.id!r} depends on {key!r}, which is not in the "
                    "plan; use the key of a subtask or remove that dependency"
                )


def _cycle_faults(subtasks: Sequence[Subtask]) -> Iterator[str]:
    for number, cycle in enumerate(_cycles(subtasks)):
        if number == _MAX_CYCLES_TOLD:
            yield "there are more cycles than these"
            return
        told = [key if key.isprintable() else repr(key) for key in [*cycle, cycle[0]]]
        if len(told) > _MAX_KEYS_TOLD:
            half = _MAX_KEYS_TOLD // 2
            told[half:-half] = [f"… ({len(told) - 2 * half} more)"]
        yield (
            f"the dependencies form a cycle, {' → '.join(told)} (each needs the "
            "next); remove one of them"
        )


def _cycles(subtasks: Sequence[Subtask]) -> Iterator[list[str]]:
    """Cycles such that cutting the last link of each leaves none.

    A depth-first walk: a link back to a subtask that the walk came through closes one.
    Links to oneself and out of the plan are faults of their own, not followed here.
    """
    links = {item.id: dict.fromkeys(item.dependencies) for item in subtasks}
    done: set[str] = set()
    for start in links:
        path: dict[str, Iterator[str]] = {}
        if start not in done:
            path[start] = iter(links[start])
        while path:
            current = next(reversed(path))
            for key in path[current]:
                if key in path and key != current:
                    way = list(path)
                    yield way[way.index(key) :]
                elif key in links and key not in done and key != current:
                    path[key] = iter(links[key])
                    break
            else:
                done.add(path.popitem()[0])
