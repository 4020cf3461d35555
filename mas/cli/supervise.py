"""Work that a supervisor does in this process: shown, and stopped by signals."""

import signal
from collections.abc import Awaitable, Callable

import anyio
from msgspec import Struct

from mas.cli.display import shown
from mas.cli.streams import stop_writing
from mas.config import Config
from mas.core.events import Recorded, TaskFinished, TaskSuspended
from mas.model import Status
from mas.supervisor.supervisor import OpenUpstream, Supervisor

_SIGNALS = {
    signal.SIGINT: "Ctrl-C was pressed",
    signal.SIGTERM: "SIGTERM came",
    signal.SIGHUP: "the terminal was closed",
}
_SUSPENDED = 4


class Job(Struct, frozen=True, kw_only=True):
    """What a supervisor is to do."""

    work: Callable[[Supervisor], Awaitable[TaskFinished | TaskSuspended]]
    description: str
    upstream: OpenUpstream | None = None
    """Opens what answers in Claude's place; None: Claude itself."""
    script: str | None = None
    """What that is, for the task's first fact."""


async def supervise(config: Config, job: Job, *, plain: bool, as_json: bool) -> int:
    """Do the job to its end, showing it, and return the command's exit code."""
    async with shown(
        job.description,
        max_attempts=config.limits.max_attempts,
        plain=plain,
        as_json=as_json,
    ) as screen:

        def show_or_stop(recorded: Recorded) -> None:
            try:
                screen.show(recorded)
            except OSError as error:  # as in `mas run … --json | head -1`
                stop_writing()
                reason = error.strerror or str(error)
                supervisor.interrupt(f"the output cannot be written: {reason}")

        supervisor = Supervisor(
            config,
            show_or_stop,
            recall=screen.recall,
            upstream=job.upstream,
            script=job.script,
        )
        stopped_by: list[signal.Signals] = []
        outcome: TaskFinished | TaskSuspended | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey_signals, supervisor, stopped_by, tasks.cancel_scope)
            outcome = await job.work(supervisor)
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
    # Before that there is nothing to stop cleanly, and the servers' start cannot be
    # cancelled: a signal ends the process at once.
    await supervisor.opened.wait()
    wanted = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    with anyio.open_signal_receiver(*wanted) as signals:
        async for received in signals:
            stopped_by.append(received)
            if len(stopped_by) > 1:
                everything.cancel()
                return
            supervisor.interrupt(_SIGNALS[received])
