"""``mas show``: one task, its subtasks, attempts and results."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec
from rich.console import Console

from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.cli.tables import task_details
from mas.config import Config
from mas.core.events import Recorded, TaskCreated
from mas.core.view import RunView
from mas.model import SubtaskResult, Task
from mas.supervisor.services import open_store


@click.command()
@click.argument("task")
@json_option
@config_option
@debug_option
def show(task: str, as_json: bool, config_path: Path | None) -> int:
    """Show the state and the results of TASK.

    TASK is an id, the beginning of one that fits no other, or - for the latest.
    """
    config = read_config(config_path)
    found, results, events = anyio.run(_read, config, task)
    if as_json:
        click.echo(msgspec.json.encode(document(found, results, events)))
        return 0
    details = task_details(
        found,
        results,
        _view(events),
        now=datetime.now(UTC),
        folder=_folder(events) or config.files.path / found.id,
    )
    Console().print(details, crop=False)  # a path is for copying: never cut
    return 0


def document(
    task: Task, results: list[SubtaskResult], events: list[Recorded]
) -> dict[str, Any]:
    """The task as JSON: the plan with each subtask's status, a row an attempt."""
    fields: dict[str, Any] = msgspec.to_builtins(task)
    del fields["plan"]
    fields["status"] = task.shown_status
    statuses = _view(events).statuses()
    fields["subtasks"] = [
        {**msgspec.to_builtins(subtask), "status": statuses[subtask.id].value}
        for subtask in (task.plan.subtasks if task.plan else ())
    ]
    return {"task": fields, "subtask_results": results}


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


async def _read(
    config: Config, prefix: str
) -> tuple[Task, list[SubtaskResult], list[Recorded]]:
    async with open_store(config) as store:
        task = await store.find_task(prefix)
        return task, await store.results(task.id), await store.events(task.id)
