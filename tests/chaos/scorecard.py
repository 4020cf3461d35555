"""What a chaos run amounts to, in figures. Pure."""

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any

from msgspec import Struct

from tests.chaos.plans import Injury
from tests.crash.verdict import Fault, Kind


class Recovery(Struct, frozen=True):
    """How long it took until the run made progress after an injury."""

    injury: Injury
    seconds: float


class Result(Struct, kw_only=True):
    """How one run of many went."""

    seed: str
    real: bool
    story: str
    """The folder that tells it, where there are faults."""
    commands: int = 0
    completed: int = 0
    injuries: list[Injury] = []
    api_faults: int = 0
    recoveries: list[Recovery] = []
    faults: list[Fault] = []
    told: str = ""
    """The same story as in the folder."""


class Scorecard(Struct, frozen=True, kw_only=True):
    """All runs together. ``zeros`` are the figures that must be 0."""

    runs: int
    real_runs: int
    commands: int
    faults: dict[str, int]
    completed: int
    zeros: dict[str, int]
    median_recovery_s: float | None
    worst_recovery_s: float | None
    worst_recovery_from: str | None
    failed: list[tuple[str, str]]
    """Seed and story of each run in which something was not as it must be."""

    @property
    def is_clean(self) -> bool:
        return not any(self.zeros.values())

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def lines(self) -> list[str]:
        """As a person reads it."""
        number = sum(self.faults.values())
        lines = [
            _line("runs", f"{self.runs}, {self.real_runs} of them with the real CLI"),
            _line("commands", f"{self.commands} of mas run and mas resume"),
            _line("faults", str(number)),
            *(_line(f"  {name}", str(count)) for name, count in self.faults.items()),
            _line("subtasks completed", str(self.completed)),
            *(
                _line(name, f"{count} (must be 0)")
                for name, count in self.zeros.items()
            ),
        ]
        if self.median_recovery_s is not None:
            worst = f"{self.worst_recovery_s:.2f} s after {self.worst_recovery_from}"
            lines += [
                _line("recovery, median", f"{self.median_recovery_s:.2f} s"),
                _line("recovery, worst", worst),
            ]
        lines += [f"failed: seed {seed}: {story}" for seed, story in self.failed]
        return lines


def add_up(results: Iterable[Result]) -> Scorecard:
    """Make the scorecard of these runs."""
    results = list(results)
    injuries = Counter(str(injury) for result in results for injury in result.injuries)
    if api := sum(result.api_faults for result in results):
        injuries["error of Claude's API"] = api
    kinds = Counter(fault.kind for result in results for fault in result.faults)
    recoveries = [it for result in results for it in result.recoveries]
    worst = max(recoveries, key=lambda it: it.seconds, default=None)
    return Scorecard(
        runs=len(results),
        real_runs=sum(result.real for result in results),
        commands=sum(result.commands for result in results),
        faults=dict(sorted(injuries.items())),
        completed=sum(result.completed for result in results),
        zeros={_NAMES[kind]: kinds[kind] for kind in Kind},
        median_recovery_s=median(it.seconds for it in recoveries) if worst else None,
        worst_recovery_s=worst.seconds if worst else None,
        worst_recovery_from=str(worst.injury) if worst else None,
        failed=[(result.seed, result.story) for result in results if result.faults],
    )


_NAMES = {
    Kind.REEXECUTED: "re-executed",
    Kind.LOST: "lost",
    Kind.DOUBLED: "doubled",
    Kind.EARLY: "begun too early",
    Kind.ORPHAN: "orphans",
    Kind.KEY: "keys without TTL",
    Kind.BROKEN: "other failures",
}


def _line(name: str, value: str) -> str:
    return f"{name:<30} {value}"
