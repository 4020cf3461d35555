"""Runs ``python -m mas`` as a person would, in a folder and environment of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

_DEADLINE_S = 120
_FROM_OUTSIDE = (
    "ANTHROPIC_", "CLAUDE", "DATABASE_URL", "POSTGRES_", "REDIS_", "MAS_HOME",
)  # fmt: skip


class Done(Struct):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON on stdout."""
        document: dict[str, Any] = json.loads(self.out)
        return document


class Mas:
    """The command, with what every call of it shares."""

    def __init__(self, home: Path, folder: Path, **environment: str) -> None:
        self.folder = folder
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FROM_OUTSIDE)
        }
        self.environment = outside | {
            "MAS_HOME": str(home),
            "ANTHROPIC_API_KEY": "test-key",
            "COLUMNS": "100",
            **environment,
        }

    def run(self, *arguments: str, **environment: str) -> Done:
        """Run to the end."""
        return self.run_with(b"", *arguments, **environment)

    def run_with(self, stdin: bytes, *arguments: str, **environment: str) -> Done:
        """Run to the end with this on stdin."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(stdin, timeout=_DEADLINE_S)
        return Done(process.returncode, out.decode(), err.decode())

    @contextmanager
    def start(
        self, *arguments: str, **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start it; what still runs at the end of the block is killed."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mas", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def interrupted(self, *arguments: str, after: str, times: int = 1) -> Done:
        """Send SIGINT, as Ctrl-C does, when a JSON line of type ``after`` comes."""
        return self.stopped(
            signal.SIGINT,
            *arguments,
            when=lambda event: event["type"] == after,
            times=times,
        )

    def stopped(
        self,
        number: signal.Signals,
        *arguments: str,
        when: Callable[[dict[str, Any]], bool],
        times: int = 1,
    ) -> Done:
        """Send the signal when a JSON line comes of which ``when`` is true."""
        with self.start(*arguments, "--json") as process:
            assert process.stdout is not None and process.stderr is not None
            seen = read_until(process, when)
            for _ in range(times):
                process.send_signal(number)
            out, err = process.communicate(timeout=_DEADLINE_S)
        return Done(process.returncode, (seen + out).decode(), err.decode())


def read_until(
    process: subprocess.Popen[bytes], when: Callable[[dict[str, Any]], bool]
) -> bytes:
    """Read its JSON lines up to the first of which ``when`` is true."""
    assert process.stdout is not None
    seen = b""
    for line in process.stdout:
        seen += line
        if when(json.loads(line)):
            return seen
    raise AssertionError(f"it ended before that: {seen.decode()}")
