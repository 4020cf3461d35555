"""``mas show``: one task, its subtasks, attempts and results."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec
from msgspec import Struct
from rich.console import Console

from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.cli.tables import task_details
from mas.config import Config
from mas.core.events import Recorded, TaskCreated
from mas.core.spending import add_up
from mas.core.view import RunView
from mas.model import ModelCall, SubtaskResult, Task
from mas.supervisor.services import open_store


class Records(Struct, frozen=True):
    """All that is recorded of a task."""

    task: Task
    results: list[SubtaskResult]
    events: list[Recorded]
    calls: list[ModelCall]


@click.command()
@click.argument("task")
@click.option("--calls", "lists_calls", is_flag=True, help="List each call of Claude.")
@json_option
@config_option
@debug_option
def show(task: str, lists_calls: bool, as_json: bool, config_path: Path | None) -> int:
    """Show the state and the results of TASK, and what it took.

    TASK is an id, the beginning of one that fits no other, or - for the latest.
    """
    config = read_config(config_path)
    found = anyio.run(_read, config, task)
    if as_json:
        click.echo(msgspec.json.encode(document(found, lists_calls=lists_calls)))
        return 0
    details = task_details(
        found.task,
        found.results,
        _view(found.events),
        now=datetime.now(UTC),
        folder=_folder(found.events) or config.files.path / found.task.id,
        calls=found.calls,
        lists_calls=lists_calls,
    )
    Console().print(details, crop=False)  # a path is for copying: never cut
    return 0


def document(found: Records, *, lists_calls: bool = False) -> dict[str, Any]:
    """The task as JSON: the plan with each subtask's status, a row an attempt.

    ``spending`` is what its calls of Claude took; ``calls`` are they, where wanted.
    """
    task = found.task
    fields: dict[str, Any] = msgspec.to_builtins(task)
    del fields["plan"]
    fields["status"] = task.shown_status
    statuses = _view(found.events).statuses()
    fields["subtasks"] = [
        {**msgspec.to_builtins(subtask), "status": statuses[subtask.id].value}
        for subtask in (task.plan.subtasks if task.plan else ())
    ]
    fields["spending"] = msgspec.to_builtins(add_up(found.calls))
    if lists_calls:
        fields["calls"] = msgspec.to_builtins(found.calls)
    return {"task": fields, "subtask_results": found.results}


def _view(events: list[Recorded]) -> RunView:
    view = RunView()
    for recorded in events:
        view.apply(recorded)
    return view


def _folder(events: list[Recorded]) -> Path | None:
    """The task's folder, where its journal names one."""
    for recorded in events:
        if isinstance(recorded.event, TaskCreated) and recorded.event.folder:
            return Path(recorded.event.folder)
    return None


async def _read(config: Config, prefix: str) -> Records:
    async with open_store(config) as store:
        task = await store.find_task(prefix)
        return Records(
            task,
            await store.results(task.id),
            await store.events(task.id),
            await store.calls(task.id),
        )
