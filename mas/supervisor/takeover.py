"""Taking over a task whose owner is gone: who may, and what it left."""

import os
import platform
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from mas.core.events import PlanAccepted, Recorded, TaskCreated
from mas.errors import MasError, NotReadyError, UsageError
from mas.model import Plan, Task
from mas.store.postgres import TaskStore
from mas.supervisor.processes import remove_all_of


class Inheritance(Struct, frozen=True, kw_only=True):
    """A task that is ours now, and what is recorded of it."""

    task: Task
    epoch: int
    created: TaskCreated
    plan: Plan
    recorded: tuple[Recorded, ...]

    @property
    def folder(self) -> Path:
        return Path(self.created.folder)


def owner_name(supervisor_id: str) -> str:
    """What ``tasks.owner`` says of this process; starts with the supervisor's id."""
    return f"{supervisor_id} on {platform.node()}, process {os.getpid()}"


async def find_unowned(store: TaskStore, task: str) -> Task:
    """The task that ``task`` names, if it is not finished and nobody works on it."""
    found = await store.find_task(task)
    if found.status.is_final:
        raise UsageError(
            f"the task {found.id} is finished: {found.status}",
            hint=f"its results: mas show {found.id}",
        )
    if found.owner_alive:
        raise UsageError(
            f"the task {found.id} is being worked on by {found.owner}",
            hint=f"look at it with mas show {found.id}, or stop it: "
            f"mas cancel {found.id}",
        )
    return found


async def take_over(store: TaskStore, task: Task, supervisor_id: str) -> Inheritance:
    """Own the task from now on; nothing that its last owner started is left then."""
    epoch = await store.take_task(task.id, owner_name(supervisor_id))
    recorded = tuple(await store.events(task.id))
    if task.owner:
        await to_thread.run_sync(remove_all_of, task.owner.split()[0])
    events = [it.event for it in recorded]
    created = next((it for it in events if isinstance(it, TaskCreated)), None)
    accepted = next((it for it in events if isinstance(it, PlanAccepted)), None)
    if created is None or accepted is None:
        raise MasError(
            f"the journal of the task {task.id} does not begin with its plan",
            hint="start the task anew; please report this",
        )
    return Inheritance(
        task=task,
        epoch=epoch,
        created=created,
        plan=accepted.plan,
        recorded=recorded,
    )


def check_folder(inheritance: Inheritance) -> None:
    """Raise where the workspaces, which the journal names, are not there any more."""
    if not inheritance.folder.is_dir():
        raise NotReadyError(
            f"the folder of the task is gone: {inheritance.folder}",
            hint="put it back where it was, or start the task anew; "
            f"the recorded results: mas show {inheritance.task.id} --json",
        )
