"""A fast version of ``python -m tests.benchmarks.forwarding``, with generous bounds.

They are wide enough for a machine that is busy with other tests, and narrow enough for
what would really be wrong: a wait for an acknowledgement takes 40 ms.
"""

from tests.benchmarks.forwarding import MOST_CPU, MOST_MS, Cost, measure


def test_the_gateway_costs_little() -> None:
    cost = measure(requests=80, agents=5, seconds=3.0)

    table = "\n".join(cost.lines())
    assert cost.added_ms < 5 * MOST_MS, table
    assert cost.cpu < 5 * MOST_CPU, table
    # 114 come, and pings: a gateway that lags would look cheap.
    assert cost.events_per_s > 60, table


def test_the_bounds_are_those_of_the_table() -> None:
    cost = Cost(
        requests=1,
        direct_ms=1.0,
        through_ms=1.0 + MOST_MS + 0.01,
        agents=5,
        seconds=1.0,
        events_per_s=100.0,
        cpu=0.01,
    )
    assert not cost.is_within_bounds
    assert any("3.01 ms" in line and "3.00 ms" in line for line in cost.lines())
