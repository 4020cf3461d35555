"""Less than a minute of chaos, with dice that fall the same each time.

``python -m tests.chaos --minutes 10`` prints the scorecard that the README shows.
"""

from pathlib import Path

from tests.chaos.spree import spree

RUNS = 6
MINUTES = 0.75
"""On a slow machine there are fewer runs; one there is always."""


def test_chaos_loses_nothing(tmp_path: Path) -> None:
    stories: list[str] = []
    card = spree(
        minutes=MINUTES,
        seed="ci",
        stories=tmp_path / "stories",
        most_runs=RUNS,
        tell=lambda result: stories.append(result.told),
    )
    assert card.is_clean, "\n".join([*card.lines(), *stories])
    assert card.completed >= 5
    assert card.faults
