"""``--record`` and ``--replay``: a run's exchanges with Claude, kept and played."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import click

from mas import __version__
from mas.config import Config
from mas.errors import MasError, UsageError
from mas.gateway.cassettes.cassette import (
    Cassette,
    CassetteWriter,
    Header,
    read_cassette,
)
from mas.gateway.cassettes.inputs import check_inputs, read_inputs
from mas.gateway.cassettes.normal import Secrets
from mas.gateway.cassettes.recording import Recorder
from mas.gateway.cassettes.replay import Replay
from mas.gateway.exchange import Upstream

_STATUSES = {0: "completed", 1: "failed", 4: "suspended"}
_WARNINGS_SHOWN = 10


@contextmanager
def recording(
    path: Path, config: Config, task: str, inputs: Sequence[Path]
) -> Iterator["Recording"]:
    """A recording of a run, at ``path``; it is ended when this is left."""
    secrets = Secrets(config.credentials.secrets)
    claude = config.claude
    try:
        kept = read_inputs(inputs, secrets)
    except OSError as error:
        raise UsageError(
            f"an input cannot be read: {error}", hint="check --input"
        ) from error
    header = Header(
        recorded_at=datetime.now(UTC),
        mas_version=__version__,
        task=secrets.mask(task),
        inputs=kept,
        models=tuple(sorted({claude.model, claude.planner_model or claude.model})),
    )
    tape = Recording(CassetteWriter(path, header), config)
    try:
        yield tape
    finally:
        tape.close()


class Recording:
    """A recording that is being made."""

    def __init__(self, writer: CassetteWriter, config: Config) -> None:
        self._writer = writer
        self._secrets = config.credentials.secrets
        self._recorder: Recorder | None = None
        self._status = "interrupted"

    def of(self, upstream: Upstream) -> Recorder:
        """The upstream that records what this one answers."""
        self._recorder = Recorder(
            upstream, self._writer, report=_warn, secrets=self._secrets
        )
        return self._recorder

    def ended(self, code: int) -> int:
        """The run has ended with this exit code, which is given back."""
        self._status = _STATUSES.get(code, self._status)
        return code

    def close(self) -> None:
        """End the file; where nothing was asked, there is none."""
        if self._recorder is None:
            self._writer.discard()
            return
        if self._recorder.close(self._status):
            click.echo(f"mas: recorded in {self._writer.path}", err=True)


@contextmanager
def replayed(path: Path, given: tuple[Path, ...]) -> Iterator["Replayed"]:
    """The recording at ``path``, with its inputs, where ``given`` has no others."""
    cassette = read_cassette(path)
    for warning in check_inputs(given, cassette.header.inputs):
        _warn(warning)
    with tempfile.TemporaryDirectory(prefix="mas-replay-") as folder:
        restored = cassette.restore_inputs(Path(folder), given)
        yield Replayed(cassette, (*given, *restored))


class Replayed:
    """A recording that is played."""

    def __init__(self, cassette: Cassette, inputs: tuple[Path, ...]) -> None:
        self.task = cassette.header.task
        self.inputs = inputs
        self.check_task = cassette.check_task
        self._replay = Replay(cassette)

    def open(self) -> AbstractAsyncContextManager[Upstream]:
        """The upstream that answers from it."""
        return nullcontext(self._replay)

    def checked(self, code: int) -> int:
        """The exit code, given back; MasError where an answer was missing or left.

        Smaller differences from the recording are said.
        """
        warnings = self._replay.warnings
        for warning in warnings[:_WARNINGS_SHOWN]:
            _warn(warning)
        if more := len(warnings[_WARNINGS_SHOWN:]):
            _warn(f"{more} more differences from the recording")
        if code == 0:
            self._replay.finish()
        if self._replay.errors:
            raise MasError(
                "this run is not the one that was recorded",
                hint="record it again with --record, or mend what has changed",
                evidence="\n".join(self._replay.errors),
            )
        return code


def _warn(text: str) -> None:
    click.echo(f"mas: warning: {text}", err=True)
