"""The whole table of deaths: what to kill where, and how each of them went."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from tests.crash.points import (
    AGENT,
    JOURNAL_WRITES,
    SUPERVISOR,
    Point,
    Side,
    functions,
    table,
)
from tests.crash.scenarios import Scenario
from tests.crash.trial import Arena, Trial, attempt_trial

AT_ONCE = 2
"""Trials that run side by side."""

_BY_SUPERVISOR = (
    Scenario.PLAIN,
    Scenario.RESUMED,
    Scenario.TROUBLED,
    Scenario.INTERRUPTED,
    Scenario.DISCONNECTED,
)
_BY_AGENT = (Scenario.AGENT, Scenario.AGENT_INTERRUPTED)


class Case(Struct, frozen=True, order=True):
    """A death: where, in which run."""

    scenario: Scenario
    point: Point

    @property
    def digest(self) -> bytes:
        return self.point.digest

    def __str__(self) -> str:
        return f"{self.scenario} {self.point}"


class Survey(Struct, frozen=True):
    """The scenarios, undisturbed."""

    trials: Mapping[Scenario, Trial]

    @property
    def unreached(self) -> list[str]:
        """The functions that no scenario calls: nothing dies there."""
        reached = {name for trial in self.trials.values() for name in trial.calls}
        names = functions((*SUPERVISOR, *AGENT))
        return [name for name in names if name not in reached]

    @property
    def share_reached(self) -> float:
        number = len(functions((*SUPERVISOR, *AGENT)))
        return 1 - len(self.unreached) / number

    def cases(self) -> list[Case]:
        """Every death to die: each function in the first scenario that calls it."""
        supervisor = self._deaths(_BY_SUPERVISOR, SUPERVISOR)
        agent = self._deaths(_BY_AGENT, AGENT)
        return sorted({*supervisor, *agent, *self._real()})

    def _deaths(
        self, scenarios: Iterable[Scenario], modules: Iterable[str]
    ) -> Iterator[Case]:
        done: set[str] = set()
        modules = list(modules)
        for scenario in scenarios:
            if scenario not in self.trials:
                continue
            calls = self.trials[scenario].calls
            names = [
                name
                for name in functions(modules)
                if name in calls and (name not in done or name in JOURNAL_WRITES)
            ]
            done.update(names)
            yield from (Case(scenario, point) for point in table(names, calls))

    def _real(self) -> Iterator[Case]:
        if Scenario.REAL not in self.trials:
            return
        for point in table(JOURNAL_WRITES, self.trials[Scenario.REAL].calls):
            if point.side is Side.LEAVES:
                yield Case(Scenario.REAL, point)


def survey(arena: Arena, scenarios: Iterable[Scenario] = tuple(Scenario)) -> Survey:
    """Run each scenario to its end, counting the calls."""
    scenarios = list(scenarios)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = pool.map(lambda scenario: attempt_trial(arena, scenario), scenarios)
        return Survey(dict(zip(scenarios, trials, strict=True)))


def run_cases(
    arena: Arena,
    cases: Iterable[Case],
    tell: Callable[[Case, Trial], object] = lambda case, trial: None,
) -> list[Trial]:
    """Die each death, several at a time; ``tell`` hears of each as it is over."""

    def run(case: Case) -> Trial:
        trial = attempt_trial(arena, case.scenario, case.point)
        tell(case, trial)
        return trial

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, cases))
