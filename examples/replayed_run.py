"""A pipeline as a test that costs nothing: what Claude said is recorded.

    python examples/replayed_run.py

``poem.cassette`` holds one run's exchanges with Claude, made with
``mas run … --record`` (here: ``python examples/scripted_run.py --record
examples/poem.cassette``). Played, it takes no key and no network, and all the rest is
real: planning, agents, the Claude CLI, its tools, the databases. So in CI it
tells whether the pipeline still works when the code around it has changed;
pytest finds the test below by its name.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CASSETTE = Path(__file__).with_name("poem.cassette")


def replayed(folder: str) -> dict[str, Any]:
    """The last event of the run: its status and result."""
    done = subprocess.run(
        [sys.executable, "-m", "mas", "run", "--replay", str(CASSETTE), "--json"],
        env=os.environ | {"SHARED_FILES_PATH": folder},
        stdout=subprocess.PIPE,
        check=True,  # a missing answer, or one too many, is exit code 1
    )
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def test_the_pipeline_still_counts_the_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ended = replayed(folder)
    assert ended["status"] == "completed"
    count = ended["result"]["subtasks"]["count"]["result"]
    assert count["data"] == {"words": 8}
    print(f"{count['data']['words']} words, as recorded; no key, no tokens.")


if __name__ == "__main__":
    test_the_pipeline_still_counts_the_words()
