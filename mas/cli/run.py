"""``mas run``: the main job."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import click

from mas.cli.display import shown
from mas.cli.options import (
    config_option,
    debug_option,
    input_option,
    json_option,
    plain_option,
    read_config,
)
from mas.cli.streams import stop_writing
from mas.config import Config
from mas.core.events import Recorded, TaskFinished, TaskSuspended
from mas.errors import UsageError
from mas.model import Status
from mas.supervisor.folder import MAX_TASK_BYTES
from mas.supervisor.supervisor import Supervisor

_SIGNALS = {
    signal.SIGINT: "interrupted by Ctrl-C",
    signal.SIGTERM: "ended by SIGTERM",
    signal.SIGHUP: "the terminal was closed",
}
_SUSPENDED = 4


@click.command()
@click.argument("task")
@input_option
@click.option("--model", help="The model for agents and planner.")
@click.option("--planner-model", help="Another model for the planner.")
@click.option("--permission-mode", help="What agents may do without asking.")
@click.option("--max-subtasks", type=int, help="The largest plan that is accepted.")
@click.option("--timeout", type=float, help="Seconds for the whole task; 0 is none.")
@plain_option
@json_option
@config_option
@debug_option
def run(
    task: str,
    inputs: tuple[Path, ...],
    model: str | None,
    planner_model: str | None,
    permission_mode: str | None,
    max_subtasks: int | None,
    timeout: float | None,
    plain: bool,
    as_json: bool,
    config_path: Path | None,
) -> int:
    """Plan TASK, run it on all agents and show it live.

    TASK is what you want, in a sentence or a page; - reads it from stdin. The end says
    where every file is.
    """
    flags: dict[tuple[str, str], Any] = {
        ("claude", "model"): model,
        ("claude", "planner_model"): planner_model,
        ("claude", "permission_mode"): permission_mode,
        ("limits", "max_subtasks"): max_subtasks,
        ("limits", "task_timeout_s"): timeout,
    }
    config = read_config(config_path, flags)
    description = _from_stdin() if task == "-" else task
    return run_task(config, description, inputs, plain=plain, as_json=as_json)


def run_task(
    config: Config,
    description: str,
    inputs: Sequence[Path] = (),
    *,
    plain: bool,
    as_json: bool,
) -> int:
    """Run one task to its end, showing it, and return the command's exit code."""
    return anyio.run(_run, config, description, inputs, plain, as_json)


async def _run(
    config: Config,
    description: str,
    inputs: Sequence[Path],
    plain: bool,
    as_json: bool,
) -> int:
    attempts = config.limits.max_attempts
    async with shown(
        description, max_attempts=attempts, plain=plain, as_json=as_json
    ) as show:

        def show_or_stop(recorded: Recorded) -> None:
            try:
                show(recorded)
            except OSError as error:  # as in `mas run … --json | head -1`
                stop_writing()
                reason = error.strerror or str(error)
                supervisor.interrupt(f"the output cannot be written: {reason}")

        supervisor = Supervisor(config, show_or_stop)
        stopped_by: list[signal.Signals] = []
        outcome: TaskFinished | TaskSuspended | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey_signals, supervisor, stopped_by, tasks.cancel_scope)
            outcome = await supervisor.run(description, inputs)
            tasks.cancel_scope.cancel()
    if isinstance(outcome, TaskFinished):
        return 0 if outcome.status is Status.COMPLETED else 1
    return 128 + stopped_by[0] if stopped_by else _SUSPENDED


async def _obey_signals(
    supervisor: Supervisor,
    stopped_by: list[signal.Signals],
    everything: anyio.CancelScope,
) -> None:
    """The first signal stops cleanly and keeps the task; the second stops at once.

    One that is ignored stays so: under nohup a closed terminal stops nothing.
    """
    wanted = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*wanted) as signals:
        async for received in signals:
            stopped_by.append(received)
            if len(stopped_by) > 1:
                everything.cancel()
                return
            supervisor.interrupt(_SIGNALS[received])


def _from_stdin() -> str:
    # One byte more than is allowed tells a task that is too long from one that fits.
    raw = sys.stdin.buffer.read(MAX_TASK_BYTES + 1)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        if len(raw) > MAX_TASK_BYTES:
            return raw.decode("utf-8", errors="replace")
        raise UsageError(
            "the task on stdin is not UTF-8 text", hint="check what is piped in"
        ) from None
