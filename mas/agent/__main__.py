"""``python -m mas.agent --id agent_1``: one agent, talking frames on its stdio."""

import argparse
import os
import sys
from pathlib import Path

from mas.wire.framing import MARKER, frame
from mas.wire.messages import PROTOCOL_VERSION, Hello, encode

_NOT_FOR_CLAUDE = ("ANTHROPIC_", "DATABASE_URL", "POSTGRES_", "REDIS_", "PGPASS")
"""What no session may see: the SDK hands all of os.environ to the CLI."""


def main() -> None:
    """Greet, then work until the supervisor's end; never returns."""
    parser = argparse.ArgumentParser(
        prog="python -m mas.agent",
        description="One agent of mas: started by mas, it talks frames on stdio.",
    )
    parser.add_argument("--id", required=True, metavar="AGENT_ID")
    agent_id = parser.parse_args().id
    if os.isatty(0):
        parser.error("an agent is started by mas, not by hand: see `mas run --help`")
    wire_in, wire_out = claim_stdio()
    hello = Hello(protocol=PROTOCOL_VERSION, agent_id=agent_id, pid=os.getpid())
    greeting = MARKER + frame(encode(hello))
    # Less than a pipe holds, so it goes out whole, and before anything heavy is loaded.
    os.write(wire_out, greeting)
    prepare_environment()

    from mas.agent.worker import serve  # noqa: PLC0415 - after the greeting

    serve(agent_id, wire_in, wire_out)


def claim_stdio() -> tuple[int, int]:
    """Keep stdin and stdout for frames alone; what others print goes to stderr."""
    wire_in, wire_out = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return wire_in, wire_out


def prepare_environment() -> None:
    """Drop what no session may see, and put mas's own ``python3`` first on PATH."""
    for name in [name for name in os.environ if name.startswith(_NOT_FOR_CLAUDE)]:
        del os.environ[name]
    own = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([own, os.environ.get("PATH", os.defpath)])


if __name__ == "__main__":
    main()
