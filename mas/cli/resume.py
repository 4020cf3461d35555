"""``mas resume``: go on with a task whose owner is gone."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import click

from mas.cli.options import (
    budget_option,
    budget_tokens_option,
    config_option,
    debug_option,
    json_option,
    plain_option,
    read_config,
)
from mas.cli.supervise import Job, supervise
from mas.config import Config
from mas.core.events import TaskCreated
from mas.errors import MasError
from mas.store.postgres import TaskStore
from mas.supervisor.claude import Allowance
from mas.supervisor.services import reach_servers
from mas.supervisor.takeover import beginning, find_unowned

DEMO = "demo"
"""The script that plays Claude in ``mas demo``."""
REPLAY = "replay"
"""What plays Claude in ``mas run --replay``."""


@click.command()
@click.argument("task")
@click.option("--model", help="The model for the agents from now on.")
@click.option("--permission-mode", help="What agents may do without asking.")
@budget_option
@budget_tokens_option
@click.option("--timeout", type=float, help="Seconds for the whole task; 0 is none.")
@plain_option
@json_option
@config_option
@debug_option
def resume(
    task: str,
    model: str | None,
    permission_mode: str | None,
    budget_usd: float | None,
    budget_tokens: int | None,
    timeout: float | None,
    plain: bool,
    as_json: bool,
    config_path: Path | None,
) -> int:
    """Go on with TASK where it stopped, however that was.

    TASK is an id, the beginning of one that fits no other, or - for the latest. What is
    finished is neither run nor paid for again; what was under way goes on in its own
    Claude session.

    The budget of the first run holds until another one is given. Its other flags are
    not remembered: give them again, or put them into mas.toml.
    """
    flags: dict[tuple[str, str], Any] = {
        ("claude", "model"): model,
        ("claude", "permission_mode"): permission_mode,
        ("limits", "task_timeout_s"): timeout,
        ("limits", "budget_usd"): budget_usd,
        ("limits", "budget_tokens"): budget_tokens,
    }
    config = read_config(config_path, flags)
    allowance = Allowance(usd=budget_usd, tokens=budget_tokens)
    return go_on(config, task, allowance, plain=plain, as_json=as_json)


def go_on(
    config: Config, task: str, allowance: Allowance, *, plain: bool, as_json: bool
) -> int:
    """Resume a task, showing it, and return the command's exit code."""
    return anyio.run(
        partial(_go_on, config, task, allowance, plain=plain, as_json=as_json)
    )


async def _go_on(
    config: Config, task: str, allowance: Allowance, *, plain: bool, as_json: bool
) -> int:
    # Held meanwhile, so that embedded servers do not end and start again in between.
    async with reach_servers(config) as addresses:
        job, created = await _look(addresses.postgres_dsn, task, allowance)
        if created.script is None:
            return await supervise(config, job, plain=plain, as_json=as_json)
        if created.script != DEMO or not created.inputs:
            raise MasError(
                f"a script plays Claude in this task: {created.script}",
                hint="start it anew: mas run --replay FILE"
                if created.script == REPLAY
                else "only tasks of mas demo can be gone on with from here",
            )
        # Scripted Claude is a web server: only this task needs it.
        demo = import_module("mas.cli.demo")
        code: int = await demo.play(
            config, created.inputs[0], job, plain=plain, as_json=as_json
        )
        return code


async def _look(dsn: str, task: str, allowance: Allowance) -> tuple[Job, TaskCreated]:
    """What is recorded of the task; raises where it cannot be gone on with."""
    store = await TaskStore.connect(dsn)
    try:
        found = await find_unowned(store, task)
        created, _ = await beginning(store, found)
    finally:
        await store.close()
    job = Job(
        work=lambda supervisor: supervisor.resume(found.id, allowance),
        description=found.description,
    )
    return job, created
