"""Asking for a plan, and the task that begins with it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from anyio import to_thread

from mas.config import Config
from mas.core.events import PlanAccepted
from mas.gateway.patience import Patience
from mas.model import Plan, Status, Task
from mas.supervisor.claude import Claude


async def plan(
    task_id: str,
    description: str,
    inputs: Sequence[Path],
    config: Config,
    claude: Claude,
) -> PlanAccepted:
    """The plan for the task, checked, and what it took. See ``planner.plan_task``."""
    # Over a second of CPU to import, so not before the agents have been started.
    planner = await to_thread.run_sync(
        import_module, "mas.planner", abandon_on_cancel=True
    )
    patience = Patience(config.limits.planner_timeout_s)
    planned = await planner.plan_task(
        description,
        inputs,
        config,
        base_url=claude.url,
        token=claude.planner(task_id, patience),
        patience=patience,
    )
    return PlanAccepted(
        plan=planned.plan, warning=planned.warning, usage=claude.planner_usage
    )


def new_task(task_id: str, description: str, plan: Plan, owner: str) -> Task:
    """The task as it begins now: in progress, with its first owner."""
    now = datetime.now(UTC)
    return Task(
        id=task_id,
        description=description,
        status=Status.IN_PROGRESS,
        plan=plan,
        created_at=now,
        updated_at=now,
        owner=owner,
        owner_epoch=1,
    )
