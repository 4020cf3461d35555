"""``python -m tests.chaos --minutes N``: random faults over random plans."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from tests.chaos.scorecard import Result
from tests.chaos.spree import spree
from tests.crash.command import pass_on_signals


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of the dice")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--stories", type=Path, help="where failing runs are told")
    given = parser.parse_args()
    pass_on_signals()

    def tell(result: Result) -> None:
        told = ", ".join(str(injury) for injury in result.injuries) or "no fault"
        print_err(f"{result.seed}: {told}")
        for fault in result.faults:
            print_err(f"  {fault}")

    card = spree(
        minutes=given.minutes, seed=given.seed, stories=given.stories, tell=tell
    )
    if given.as_json:
        sys.stdout.write(json.dumps(card.to_json()) + "\n")
    else:
        sys.stdout.write("\n".join([f"seed {given.seed}", *card.lines()]) + "\n")
    return 0 if card.is_clean else 1


def print_err(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
