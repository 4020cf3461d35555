"""``mas run``: the main job."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click

from mas.cli.options import (
    budget_option,
    budget_tokens_option,
    config_option,
    debug_option,
    input_option,
    json_option,
    plain_option,
    read_config,
)
from mas.cli.resume import go_on
from mas.cli.supervise import Job, supervise
from mas.errors import UsageError
from mas.supervisor.claude import Allowance
from mas.supervisor.folder import MAX_TASK_BYTES


@click.command()
@click.argument("task", required=False)
@input_option
@click.option(
    "--resume",
    metavar="TASK",
    help="Go on with this task, by its id, as mas resume does.",
)
@click.option("--model", help="The model for agents and planner.")
@click.option("--planner-model", help="Another model for the planner.")
@click.option("--permission-mode", help="What agents may do without asking.")
@click.option("--max-subtasks", type=int, help="The largest plan that is accepted.")
@budget_option
@budget_tokens_option
@click.option("--timeout", type=float, help="Seconds for the whole task; 0 is none.")
@plain_option
@json_option
@config_option
@debug_option
def run(
    task: str | None,
    inputs: tuple[Path, ...],
    resume: str | None,
    model: str | None,
    planner_model: str | None,
    permission_mode: str | None,
    max_subtasks: int | None,
    budget_usd: float | None,
    budget_tokens: int | None,
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
        ("limits", "budget_usd"): budget_usd,
        ("limits", "budget_tokens"): budget_tokens,
    }
    config = read_config(config_path, flags)
    if resume is not None:
        if task is not None or inputs:
            raise UsageError(
                "with --resume goes neither a new task nor an input",
                hint="the task that is gone on with has its own; leave one of the two",
            )
        if planner_model is not None or max_subtasks is not None:
            raise UsageError(
                "with --resume goes neither --planner-model nor --max-subtasks",
                hint="the task that is gone on with has its plan; leave them out",
            )
        allowance = Allowance(usd=budget_usd, tokens=budget_tokens)
        return go_on(config, resume, allowance, plain=plain, as_json=as_json)
    if task is None:
        raise UsageError(
            "there is no task to run",
            hint='say what you want: mas run "…"; or go on: mas run --resume TASK',
        )
    description = _from_stdin() if task == "-" else task
    job = Job(
        work=lambda supervisor: supervisor.run(description, inputs),
        description=description,
    )
    return anyio.run(partial(supervise, config, job, plain=plain, as_json=as_json))


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
