"""The tree below a process is killed whole, and measured whole."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("leaves_no_process")


def run(script: str) -> Any:
    """What a Python process of its own makes of ``script``, as it prints it."""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=True)
    return json.loads(result.stdout)


def test_a_tree_is_killed_whole_though_much_of_it_called_setsid() -> None:
    survivors, living, zombies = run("""
import json, os, subprocess, sys
import psutil
from mas.agent import processes
processes.claim_descendants()
tree = "for n in 1 2 3 4 5; do setsid sh -c 'sleep 300 & sleep 300' & done; echo; wait"
child = subprocess.Popen(["sh", "-c", tree], stdout=subprocess.PIPE)
child.stdout.readline()
survivors = processes.kill_descendants()
living = len(processes.living_descendants())
child.wait()
processes.reap_orphans()
print(json.dumps([survivors, living, len(psutil.Process().children())]))
""")
    assert (survivors, living, zombies) == ([], 0, 0)


BURN = "import time\nwhile time.process_time() < 0.4: pass\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux adds a child's time")
def test_a_command_that_came_and_went_is_measured() -> None:
    seconds, memory_mib = run(f"""
import json, subprocess, sys, time
from mas.agent.processes import TreeMeter
meter, began = TreeMeter(), time.monotonic()
subprocess.run([sys.executable, "-c", {BURN!r}])
percent, memory = meter.sample()
print(json.dumps([percent / 100 * (time.monotonic() - began), memory]))
""")
    assert 0.35 < seconds < 1.5
    assert memory_mib > 5


def test_a_command_that_runs_on_is_measured_once() -> None:
    first, second = run(f"""
import json, subprocess, sys, time
from mas.agent.processes import TreeMeter
meter, began = TreeMeter(), time.monotonic()
child = subprocess.Popen(
    [sys.executable, "-c", {BURN!r} + "print(flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
first = meter.sample()[0] / 100 * (time.monotonic() - began)
began = time.monotonic()
child.communicate(b"\\n")
second = meter.sample()[0] / 100 * (time.monotonic() - began)
print(json.dumps([first, second]))
""")
    assert 0.3 < first < 1.5
    assert second < 0.3
