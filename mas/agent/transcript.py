"""What the Claude CLI keeps of a session: its transcript in CLAUDE_CONFIG_DIR."""

import glob
import json
import os
from pathlib import Path

from mas.agent.activity import usage_by_model
from mas.model import Usage

_COST_STATE = b"cost-state"
"""The type of the line with which the CLI (2.1.330) sums up a session as it leaves."""


class Transcript:
    """The transcript of one session; the CLI names its folder after the workspace.

    The CLI writes what happens a tenth of a second later: a kill loses that much.
    """

    def __init__(self, config_dir: str, session_id: str) -> None:
        self._config_dir = Path(config_dir)
        self._pattern = f"projects/*/{glob.escape(session_id)}.jsonl"

    def exists(self) -> bool:
        """Whether the id is taken: the CLI begins no second session under it."""
        return bool(self._paths())

    def usage(self) -> Usage:
        """What the CLI will count as used when it goes on in this session.

        Not all that was used: a CLI that was killed has not summed up.
        """
        newest = Usage()
        for path in self._paths():
            if not path.is_file():
                continue
            with path.open("rb") as file:
                for line in file:
                    if _COST_STATE in line:
                        newest = _summed_up(line) or newest
        return newest

    def set_aside(self) -> None:
        """Free the session's id; what was kept stays beside it, for a person."""
        for path in self._paths():
            number = 1
            while os.path.lexists(aside := f"{path}.{number}.aside"):
                number += 1
            path.rename(aside)

    def _paths(self) -> list[Path]:
        return sorted(self._config_dir.glob(self._pattern))


def _summed_up(line: bytes) -> Usage | None:
    try:
        state = json.loads(line)
        if state["type"] != _COST_STATE.decode():
            return None
        return usage_by_model(state["modelUsage"]) + Usage(
            cost_usd=float(state["totalCostUSD"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # cut off in the middle: the CLI passes over it too
