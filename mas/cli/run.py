"""``mas run``: the main job."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
from msgspec import structs

from mas.cli.options import (
    budget_option,
    budget_tokens_option,
    config_option,
    debug_option,
    input_option,
    json_option,
    plain_option,
    read_config,
    record_option,
)
from mas.cli.resume import REPLAY, go_on
from mas.cli.supervise import Job, supervise
from mas.cli.tape import recording, replayed
from mas.config import Config
from mas.errors import UsageError
from mas.gateway.exchange import Upstream
from mas.gateway.forward import forwarding
from mas.supervisor.claude import Allowance
from mas.supervisor.folder import MAX_TASK_BYTES, check_ready, check_request


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
@record_option
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Run what was recorded there again: offline, no key, no tokens.",
)
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
    record: Path | None,
    replay: Path | None,
    timeout: float | None,
    plain: bool,
    as_json: bool,
    config_path: Path | None,
) -> int:
    """Plan TASK, run it on all agents and show it live.

    TASK is what you want, in a sentence or a page; - reads it from stdin. The end says
    where every file is. With --replay it is the recorded one.
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
    shown = partial(supervise, plain=plain, as_json=as_json)
    if resume is not None:
        given = {
            "a new task": task,
            "--input": inputs or None,
            "--planner-model": planner_model,
            "--max-subtasks": max_subtasks,
            "--record": record,
            "--replay": replay,
        }
        _check_alone("--resume", given, "the task that is gone on with has its own")
        allowance = Allowance(usd=budget_usd, tokens=budget_tokens)
        return go_on(config, resume, allowance, plain=plain, as_json=as_json)
    if replay is not None:
        _check_alone("--replay", {"--record": record}, "it is recorded already")
        return _replay(config, replay, task, inputs, shown)
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
    if record is None:
        return anyio.run(shown, config, job)
    check_request(description, inputs)
    check_ready(config, asks_claude=True)
    with recording(record, config, description, inputs) as tape:

        @asynccontextmanager
        async def recorded() -> AsyncIterator[Upstream]:
            async with forwarding(config.credentials) as claude:
                yield tape.of(claude)

        job = structs.replace(job, upstream=recorded)
        return tape.ended(anyio.run(shown, config, job))


def _replay(
    config: Config,
    path: Path,
    task: str | None,
    inputs: tuple[Path, ...],
    shown: Callable[[Config, Job], Awaitable[int]],
) -> int:
    with replayed(path, inputs) as tape:
        description = _from_stdin() if task == "-" else task or tape.task
        tape.check_task(description)
        job = Job(
            work=lambda supervisor: supervisor.run(description, tape.inputs),
            description=description,
            upstream=tape.open,
            script=REPLAY,
        )
        return tape.checked(anyio.run(shown, config, job))


def _check_alone(flag: str, others: dict[str, Any], reason: str) -> None:
    for name, value in others.items():
        if value is not None:
            raise UsageError(
                f"with {flag} goes no {name.removeprefix('a ')}",
                hint=f"{reason}; leave one of the two",
            )


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
