"""Draw live.svg: the screen of a real ``mas demo``, taken by tmux while it runs.

    python .github/pictures/make_live.py

Needs tmux and an installed mas. The screen is taken when the given number of subtasks
is done, so that finished, running and waiting ones are seen together.
"""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

SESSION = "mas-picture"
WIDTH, HEIGHT = 110, 14
DONE_ENOUGH = re.compile(r" [3-5]/\d+  2 running")
DEADLINE_S = 90


def tmux(*arguments: str) -> str:
    done = subprocess.run(
        ["tmux", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


def screen_of_a_demo() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = shlex.join([sys.executable, "-m", "mas", "demo"])
        size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
        shell = f"cd {shlex.quote(folder)} && SHARED_FILES_PATH=. {command}"
        tmux("new-session", "-d", "-s", SESSION, *size, shell)
        try:
            deadline = time.monotonic() + DEADLINE_S
            while time.monotonic() < deadline:
                if DONE_ENOUGH.search(tmux("capture-pane", "-p", "-t", SESSION)):
                    return tmux("capture-pane", "-e", "-p", "-t", SESSION)
                time.sleep(0.05)
        finally:
            tmux("kill-session", "-t", SESSION)
    sys.exit("the demo did not come to a screen worth taking")


def main() -> None:
    # One decoder for all lines: tmux lets a colour last over the end of a line.
    lines = list(AnsiDecoder().decode(screen_of_a_demo().rstrip()))
    first = next(n for n, line in enumerate(lines) if line.plain.startswith("stage"))
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere)
        for line in lines[first - 1 :]:
            console.print(line, crop=True, no_wrap=True)
        svg = console.export_svg(title="mas demo")
    # The picture loads nothing from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, Menlo, DejaVu Sans Mono")
    Path(__file__).with_name("live.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
