"""Every example runs, as its docstring says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mas.keeper import Servers

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "replayed_run.py": "8 words, as recorded; no key, no tokens.",
    "scripted_run.py": "Somebody counted 8 words, and I believe it.",
}


def test_every_example_is_run_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(
    name: str, home: Path, servers: Servers, leaves_no_process: None
) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=os.environ | {"MAS_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
