"""The points of death: found in the code, and heard when they are passed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.crash.command import ROOT
from tests.crash.points import (
    AGENT,
    JOURNAL_WRITES,
    SUPERVISOR,
    Point,
    Side,
    functions,
    sample,
    table,
)

PROGRAM = """
import asyncio, sys, threading
from contextlib import asynccontextmanager, contextmanager
from tests.crash.instrument import instrument

told = []
instrument(["victim"], lambda point: told.append(str(point)))
import victim
victim.plain()
try:
    victim.fails()
except KeyError:
    told.append("KeyError")
assert asyncio.run(victim.Thing().work()) == [1, 2]
with victim.managed() as value:
    told.append(value)
print(*told, sep="\\n")
"""
VICTIM = '''
from contextlib import contextmanager

def plain():
    """It has a docstring, and nothing else."""

def fails():
    raise KeyError

class Thing:
    async def work(self):
        def inner():
            return 1
        return [inner(), await self.two()]

    async def two(self):
        return 2

@contextmanager
def managed():
    yield "inside"
'''


def test_every_kind_of_function_tells_when_it_is_entered_and_left(
    tmp_path: Path,
) -> None:
    (tmp_path / "victim.py").write_text(VICTIM)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert told == [
        "victim:plain/enters/1",
        "victim:plain/leaves/1",
        "victim:fails/enters/1",
        "victim:fails/leaves/1",
        "KeyError",
        "victim:Thing.work/enters/1",
        "victim:Thing.work.<locals>.inner/enters/1",
        "victim:Thing.work.<locals>.inner/leaves/1",
        "victim:Thing.two/enters/1",
        "victim:Thing.two/leaves/1",
        "victim:Thing.work/leaves/1",
        "victim:managed/enters/1",
        "inside",
        "victim:managed/leaves/1",
    ]


def test_the_functions_are_those_of_the_code() -> None:
    names = functions((*SUPERVISOR, *AGENT))
    assert len(names) == len(set(names)) > 120
    assert set(JOURNAL_WRITES) < set(names)
    assert "mas.supervisor.engine:Engine._write" in names
    assert "mas.agent.worker:_serve.<locals>.read" in names


def test_the_table_has_both_sides_of_each_function_and_all_of_the_journals_writes() -> (
    None
):
    write = JOURNAL_WRITES[-1]
    points = table(["m:once", "m:often", "m:never", write], Counter(
        {"m:once": 1, "m:often": 9, write: 4}
    ))  # fmt: skip
    calls = {
        name: {point.call for point in points if point.function == name}
        for name in ("m:once", "m:often", "m:never", write)
    }
    assert calls == {
        "m:once": {1},
        "m:often": {1, 5},
        "m:never": {1},
        write: {1, 2, 3, 4},
    }
    assert {point.side for point in points} == set(Side)
    assert all(Point.parse(str(point)) == point for point in points)
    assert sample(points, 3) == sample(list(reversed(points)), 3)
    assert len(sample(points, 3)) == 3
