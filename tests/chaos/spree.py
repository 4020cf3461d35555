"""Many runs after each other, in a home of their own, until the time is up."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.chaos.run import chaos_run
from tests.chaos.scorecard import Result, Scorecard, add_up
from tests.keeper.conftest import folder_for_homes
from tests.keeper.support import processes, until

REAL_SHARE = 0.12
"""Of the runs: with the real agent and the real CLI. They take ten times as long."""


_SERVERS_END_S = 30.0


def spree(
    *,
    minutes: float,
    seed: str,
    stories: Path | None = None,
    most_runs: int | None = None,
    tell: Callable[[Result], object] = lambda result: None,
) -> Scorecard:
    """Run until ``minutes`` are over, one run at least; ``tell`` hears of each.

    A run is known by its seed: that of all, a point and its number, and an r where
    the real CLI works. The folders of those that go wrong are kept in ``stories``.
    """
    kept = stories or Path(tempfile.mkdtemp(prefix="mas-chaos-", dir="/var/tmp"))
    kept.mkdir(parents=True, exist_ok=True)
    kept.chmod(0o755)
    deadline = time.monotonic() + minutes * 60
    dice = Random(seed)
    results: list[Result] = []
    with folder_for_homes() as folder:
        while not results or time.monotonic() < deadline:
            real = dice.random() < REAL_SHARE
            name = f"{seed}.{len(results) + 1}{'r' if real else ''}"
            result = chaos_run(folder / "home", kept / name, name, real=real)
            results.append(result)
            tell(result)
            if len(results) == most_runs:
                break
        home = folder / "home"
        until(lambda: not processes(home), "the servers end", timeout_s=_SERVERS_END_S)
    if not any(kept.iterdir()):
        kept.rmdir()
    return add_up(results)
