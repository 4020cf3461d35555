"""``mas cancel``: end a task, from whichever shell."""

from pathlib import Path

import anyio
import click
import msgspec

from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.config import Config
from mas.core.events import Recorded, TaskFinished
from mas.errors import MasError, UsageError, task_finished
from mas.model import Status, Task
from mas.store.postgres import TaskStore
from mas.supervisor.services import reach_servers
from mas.supervisor.supervisor import Supervisor

REASON = "cancelled with mas cancel"

_PATIENCE_S = 15.0
"""An owner that lives needs a few seconds, to interrupt what runs before killing it."""


@click.command()
@click.argument("task")
@click.option(
    "--wait",
    "patience_s",
    default=_PATIENCE_S,
    type=click.FloatRange(0, 86_400),
    show_default=True,
    help="Seconds that the process which runs it has for ending it.",
)
@json_option
@config_option
@debug_option
def cancel(
    task: str, patience_s: float, as_json: bool, config_path: Path | None
) -> int:
    """End TASK as cancelled, whoever runs it.

    TASK is an id, the beginning of one that fits no other, or - for the latest. What is
    finished of it is kept.
    """
    config = read_config(config_path)
    found, status = anyio.run(_cancel, config, task, patience_s)
    if as_json:
        click.echo(msgspec.json.encode({"task_id": found.id, "status": status}))
    elif status is Status.CANCELLED:
        click.echo(status.value)
    if status is Status.CANCELLED:
        return 0
    click.echo(f"mas: the task {found.id} had ended meanwhile: {status}", err=True)
    click.echo(f"hint: its results: mas show {found.id}", err=True)
    return 1


async def _cancel(
    config: Config, prefix: str, patience_s: float
) -> tuple[Task, Status]:
    """The task, and how it ended."""
    async with reach_servers(config) as addresses:
        store = await TaskStore.connect(addresses.postgres_dsn)
        try:
            task = await store.find_task(prefix)
            _check(task)
            status = None
            if task.owner_alive:
                status = await _ask(store, task, patience_s)
        finally:
            await store.close()
        return task, status or await _take(config, task)


def _check(task: Task) -> None:
    if task.status is Status.CANCELLED:
        raise UsageError(
            f"the task {task.id} is cancelled already",
            hint=f"what it came to: mas show {task.id}",
        )
    if task.status.is_final:
        raise task_finished(task.id, task.status)


async def _ask(store: TaskStore, task: Task, patience_s: float) -> Status | None:
    """How the task's owner ended it; None where the owner is gone before it did."""
    await store.request_cancel(task.id, REASON)
    status = await store.wait_until_finished(task.id, patience_s)
    if status is not None:
        return status
    now = await store.find_task(task.id)
    if now.status.is_final:
        return now.status
    if not now.owner_alive:
        return None
    raise MasError(
        f"the task {task.id} was asked to end and has not in {patience_s:g} s; "
        f"its owner is {now.owner}",
        hint="see whether that process hangs; when it is gone, mas cancel ends the "
        "task at once",
    )


async def _take(config: Config, task: Task) -> Status:
    """End a task that nobody owns."""
    ended = await Supervisor(config, _show_nothing).cancel(task.id, REASON)
    if isinstance(ended, TaskFinished):
        return ended.status
    raise MasError(
        f"the task {task.id} is not ended: {ended.reason}",
        hint=f"try again: mas cancel {task.id}",
    )


def _show_nothing(recorded: Recorded) -> None:
    pass
