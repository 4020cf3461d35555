"""``mas tasks``: the recorded tasks, newest first."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec
from rich.console import Console

from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.cli.tables import tasks_table
from mas.config import Config
from mas.model import Task
from mas.supervisor.services import open_store

_LEFT_OUT = ("plan", "result")


@click.command()
@click.option(
    "--limit",
    default=100,
    type=click.IntRange(1, 100_000),
    show_default=True,
    help="At most so many.",
)
@json_option
@config_option
@debug_option
def tasks(limit: int, as_json: bool, config_path: Path | None) -> int:
    """List the recorded tasks, newest first."""
    found = anyio.run(_read, read_config(config_path), limit)
    if as_json:
        click.echo(msgspec.json.encode({"tasks": list(map(_fields, found))}))
        return 0
    Console().print(tasks_table(found, now=datetime.now(UTC)))
    return 0


def _fields(task: Task) -> dict[str, Any]:
    """The task without plan and result, which ``mas show`` tells."""
    fields: dict[str, Any] = msgspec.to_builtins(task)
    fields["status"] = task.shown_status
    return {key: value for key, value in fields.items() if key not in _LEFT_OUT}


async def _read(config: Config, limit: int) -> list[Task]:
    async with open_store(config) as store:
        return await store.tasks(limit)
