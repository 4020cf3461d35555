"""Run a task without a key: scripted Claude plays the model, all the rest is real.

    python examples/scripted_run.py

Further arguments go to mas run: with ``--record FILE`` what was said is kept, and
``replayed_run.py`` runs that again.

Two subtasks: one counts the words of a file with Bash, the other reads that result and
writes a sentence. What the model says is below; what the tools answer is not.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from mas.testing import (
    Conversation,
    Request,
    Script,
    ScriptedClaude,
    plan,
    planner,
    tool_use,
)

POEM = "so much depends\nupon\n\na red wheel\nbarrow\n"


def result(request: Request, summary: str, **data: object) -> list[dict[str, object]]:
    """The Write call by which a subtask hands in its result."""
    content = {"success": True, "data": data, "summary": summary, "files_created": []}
    path = f"{request.cwd}/output/result.json"
    return [tool_use("Write", file_path=path, content=json.dumps(content))]


def hand_in_count(request: Request) -> list[dict[str, object]]:
    words = int((request.last_tool_result or "").split()[0])
    return result(request, f"The poem has {words} words.", words=words)


def hand_in_sentence(request: Request) -> list[dict[str, object]]:
    found = re.search(r'"words": (\d+)', request.last_tool_result or "")
    words = found[1] if found else "no"
    return result(request, f"Somebody counted {words} words, and I believe it.")


SCRIPT = Script(
    [
        Conversation(
            planner,
            [
                [
                    plan(
                        [
                            {"key": "count", "description": "Count the words."},
                            {
                                "key": "tell",
                                "description": "Tell how many there are.",
                                "dependencies": ["count"],
                            },
                        ]
                    )
                ]
            ],
        ),
        Conversation(
            "# Your subtask (count)",
            [
                [tool_use("Bash", command="wc -w context/inputs/poem.txt")],
                hand_in_count,
                "Counted.",
            ],
        ),
        Conversation(
            "# Your subtask (tell)",
            [
                [tool_use("Bash", command="cat context/previous_results.json")],
                hand_in_sentence,
                "Told.",
            ],
        ),
    ]
)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, ScriptedClaude(SCRIPT) as claude:
        poem = Path(folder, "poem.txt")
        poem.write_text(POEM, encoding="utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mas", "run", "How long is it?"),
                *("--input", str(poem), *sys.argv[1:]),
            ],
            env=os.environ | claude.environment | {"SHARED_FILES_PATH": folder},
            check=False,
        )
        print(*claude.errors, sep="\n")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
