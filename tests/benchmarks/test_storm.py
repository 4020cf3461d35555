"""A short storm: with the gateway all gets through, and hardly a call is rejected."""

from pathlib import Path

from mas.keeper import Servers
from tests.benchmarks.storm import with_gateway
from tests.benchmarks.upstream import Part


def test_five_agents_weather_a_storm(
    home: Path, servers: Servers, tmp_path: Path, leaves_no_process: None
) -> None:
    part = Part(subtasks=10, turns=12, per_s=6)
    outcome = with_gateway(home, tmp_path, part)
    assert outcome.at_first == outcome.completed == part.subtasks
    assert outcome.seen.calls >= 120
    assert outcome.seen.rejected_share < 0.05
