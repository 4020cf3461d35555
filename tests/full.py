"""``python -m tests.full``: the whole crash matrix, then minutes of chaos.

A line for each death; at the end what was reached, what was lost, and the scorecard.
The exit code is 1 where anything is not as it must be. The story of each failure is in
a folder that its line names.
"""

import argparse
import secrets
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from mas import keeper
from tests.chaos.scorecard import Result
from tests.chaos.spree import spree
from tests.crash.command import pass_on_signals
from tests.crash.matrix import Case, Survey, run_cases, survey
from tests.crash.scenarios import Scenario
from tests.crash.trial import Arena, Trial
from tests.keeper.conftest import folder_for_homes
from tests.keeper.support import processes, until

_SERVERS_END_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.full", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of chaos")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of chaos")
    parser.add_argument("--only", help="deaths whose line contains this, no chaos")
    parser.add_argument("--stories", type=Path, help="where failures are told")
    given = parser.parse_args()
    pass_on_signals()
    stories = given.stories or Path(tempfile.mkdtemp(prefix="mas-full-"))
    stories.mkdir(parents=True, exist_ok=True)
    stories.chmod(0o755)
    is_clean = matrix(stories, given.only or "")
    if given.only is None:
        card = spree(
            minutes=given.minutes,
            seed=given.seed,
            stories=stories / "chaos",
            tell=_tell_of_chaos,
        )
        _say(f"chaos, seed {given.seed}", *card.lines())
        is_clean = is_clean and card.is_clean
    return 0 if is_clean else 1


def matrix(stories: Path, only: str) -> bool:
    """Die every death; whether nothing was lost."""
    with folder_for_homes() as folder:
        home = folder / "home"
        with keeper.join(home) as lease:
            arena = Arena(home=home, servers=lease.servers, folder=stories)
            undisturbed = survey(arena)
            is_clean = _tell_of_survey(undisturbed)
            cases = [case for case in undisturbed.cases() if only in str(case)]
            trials = run_cases(arena, cases, _Progress(len(cases)).tell)
        until(lambda: not processes(home), "the servers end", timeout_s=_SERVERS_END_S)
    return _tell_of_deaths(undisturbed, cases, trials) and is_clean


class _Progress:
    """A line for each death, as it is over; several threads tell."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._done = 0
        self._lock = threading.Lock()

    def tell(self, case: Case, trial: Trial) -> None:
        with self._lock:
            self._done += 1
            reached = "" if trial.reached else ", not reached"
            state = f"{trial.seconds:.1f} s{reached}"
            _say(f"{self._done}/{self._number} {case}: {state}", *_faults(trial))


def _tell_of_survey(undisturbed: Survey) -> bool:
    for scenario, trial in undisturbed.trials.items():
        _say(f"undisturbed, {scenario}: {trial.seconds:.1f} s", *_faults(trial))
    return not any(trial.faults for trial in undisturbed.trials.values())


def _tell_of_deaths(
    undisturbed: Survey, cases: list[Case], trials: list[Trial]
) -> bool:
    deaths: Counter[Scenario] = Counter(case.scenario for case in cases)
    reached: Counter[Scenario] = Counter()
    failed: Counter[Scenario] = Counter()
    for trial in trials:
        reached[trial.scenario] += trial.reached
        failed[trial.scenario] += bool(trial.faults)
    _say("", f"{'scenario':<20}{'deaths':>8}{'reached':>9}{'failed':>8}")
    for scenario in Scenario:
        counts = (deaths[scenario], reached[scenario], failed[scenario])
        _say(f"{scenario:<20}{counts[0]:>8}{counts[1]:>9}{counts[2]:>8}")
    _say(
        f"{undisturbed.share_reached:.0%} of the functions are called; never called:",
        *(f"  {name}" for name in undisturbed.unreached),
    )
    return not any(trial.faults for trial in trials)


def _faults(trial: Trial) -> list[str]:
    if not trial.faults:
        return []
    return [*(f"  {fault}" for fault in trial.faults), f"  told in {trial.folder}"]


def _tell_of_chaos(result: Result) -> None:
    done = ", ".join(map(str, result.injuries)) or "no fault"
    _say(f"{result.seed}: {done}", *(f"  {fault}" for fault in result.faults))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
