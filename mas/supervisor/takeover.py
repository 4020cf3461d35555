"""Taking over a task whose owner is gone: who may, and what it left."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from mas.config import Limits
from mas.core.events import PlanAccepted, Recorded, TaskCreated, TaskResumed
from mas.errors import (
    MasError,
    NotReadyError,
    StoreError,
    UsageError,
    task_finished,
)
from mas.model import ModelCall, Plan, Task
from mas.store.postgres import TaskStore
from mas.store.redis import AgentBoard
from mas.supervisor.claude import Allowance
from mas.supervisor.processes import remove_all_of


class Inheritance(Struct, frozen=True, kw_only=True):
    """A task that is ours now, and what is recorded of it."""

    task: Task
    epoch: int
    created: TaskCreated
    plan: Plan
    recorded: tuple[Recorded, ...]
    former: frozenset[str]
    """The supervisors that owned it, by id; nothing of them is left."""


def owner_name(supervisor_id: str) -> str:
    """What ``tasks.owner`` says of this process; starts with the supervisor's id."""
    return f"{supervisor_id} on {platform.node()}, process {os.getpid()}"


async def find_unowned(store: TaskStore, task: str) -> Task:
    """The task that ``task`` names, if it is not finished and nobody works on it."""
    found = await store.find_task(task)
    if found.status.is_final:
        raise task_finished(found.id, found.status)
    if found.owner_alive:
        raise UsageError(
            f"the task {found.id} is being worked on by {found.owner}",
            hint=f"look at it with mas show {found.id}, or stop it: "
            f"mas cancel {found.id}",
        )
    return found


async def take_over(
    store: TaskStore, task: Task, supervisor_id: str, *, needs_folder: bool
) -> Inheritance:
    """Own the task from now on; nothing that a former owner started is left then.

    With ``needs_folder`` it is taken only where its workspaces are.
    """
    if needs_folder:
        _check_folder(task, (await beginning(store, task))[0])
    epoch = await store.take_task(task.id, owner_name(supervisor_id))
    recorded = tuple(await store.events(task.id))
    owners = [it.event.owner for it in recorded if isinstance(it.event, TaskResumed)]
    former = frozenset(owner.split()[0] for owner in [*owners, task.owner] if owner)
    for supervisor in former:
        await to_thread.run_sync(remove_all_of, supervisor)
    created, accepted = _beginning(task, recorded)
    return Inheritance(
        task=task,
        epoch=epoch,
        created=created,
        plan=accepted.plan,
        recorded=recorded,
        former=former,
    )


async def beginning(store: TaskStore, task: Task) -> tuple[TaskCreated, PlanAccepted]:
    """The task's first two facts, which every journal has."""
    return _beginning(task, await store.events(task.id, limit=2))


def _beginning(
    task: Task, recorded: Sequence[Recorded]
) -> tuple[TaskCreated, PlanAccepted]:
    events = [it.event for it in recorded[:2]]
    match events:
        case [TaskCreated() as created, PlanAccepted() as accepted]:
            return created, accepted
    raise MasError(
        f"the journal of the task {task.id} does not begin with its plan",
        hint="start the task anew; please report this",
    )


def allowance_of(
    recorded: Sequence[Recorded], given: Allowance, limits: Limits
) -> Allowance:
    """What the task may use: as given now, else as it was told last, else in mas.toml.

    The flags of a former run hold until they are given anew: a task with a budget does
    not lose it by going on.
    """
    told = Allowance()
    for it in recorded:
        if isinstance(it.event, TaskCreated | TaskResumed):
            told = Allowance(usd=it.event.budget_usd, tokens=it.event.budget_tokens)
    return Allowance(
        usd=given.usd or told.usd or limits.budget_usd,
        tokens=given.tokens or told.tokens or limits.budget_tokens,
    )


async def calls_of_former_runs(store: TaskStore, task_id: str) -> list[ModelCall]:
    """What former runs asked of Claude; what they left open is closed."""
    await store.close_open_calls(task_id)
    return await store.calls(task_id)


def resumed_by(supervisor_id: str, epoch: int, allowance: Allowance) -> TaskResumed:
    """The fact that this supervisor goes on with a task."""
    return TaskResumed(
        owner=owner_name(supervisor_id),
        epoch=epoch,
        budget_usd=allowance.usd,
        budget_tokens=allowance.tokens,
    )


async def clear_board(
    board: AgentBoard, supervisors: Iterable[str], *, report: Callable[[str], None]
) -> None:
    """Take the agents of supervisors that are gone off the board."""
    try:
        for supervisor in supervisors:
            await board.remove_all_of(supervisor)
    except StoreError as error:
        report(f"{error.message}; the work goes on without")


def _check_folder(task: Task, created: TaskCreated) -> None:
    if not Path(created.folder).is_dir():
        raise NotReadyError(
            f"the folder of the task is gone: {created.folder}",
            hint="put it back where it was, or start the task anew; "
            f"the recorded results: mas show {task.id} --json",
        )
