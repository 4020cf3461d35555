"""A supervisor with real servers, a scripted planner and fake agents."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from mas.config import Config, Credentials, Files, Limits
from mas.config import Supervisor as SupervisorSettings
from mas.core.events import Recorded, TaskFinished, TaskSuspended
from mas.keeper import Servers
from mas.supervisor.supervisor import Supervisor
from mas.testing import Conversation, Script, ScriptedClaude, plan, planner
from tests.support import FAKE_AGENT, GoOn, Run, RunPlan


@pytest.fixture
def config(home: Path, servers: Servers, tmp_path: Path) -> Config:
    return Config(
        home=home,
        credentials=Credentials(api_key="test-key"),
        files=Files(path=tmp_path / "shared"),
        limits=Limits(attempt_timeout_s=30),
        supervisor=SupervisorSettings(shutdown_grace_s=2, handshake_timeout_s=15),
    )


@pytest.fixture
def run_plan(config: Config, leaves_no_process: None) -> RunPlan:
    """Run a plan, given as its subtasks' JSON, on fake agents."""

    async def run(
        *subtasks: dict[str, Any],
        show: Callable[[Supervisor, Recorded], None] = lambda supervisor, event: None,
        **changes: Any,
    ) -> Run:
        described = [{"description": f"do {task['key']}"} | task for task in subtasks]
        script = Script([Conversation(planner, [[plan(described)]])])
        with ScriptedClaude(script) as claude:
            credentials = Credentials(api_key="test-key", base_url=claude.url)
            used = structs.replace(config, credentials=credentials, **changes)
            run = await _shown(used, show, lambda it: it.run("test the supervisor"))
            assert claude.errors == []
        return run

    return run


@pytest.fixture
def go_on(config: Config, leaves_no_process: None) -> GoOn:
    """Go on with a task on fake agents, in another supervisor."""

    async def resume(
        task: str,
        show: Callable[[Supervisor, Recorded], None] = lambda supervisor, event: None,
        **changes: Any,
    ) -> Run:
        used = structs.replace(config, **changes)
        return await _shown(used, show, lambda it: it.resume(task))

    return resume


async def _shown(
    config: Config,
    show: Callable[[Supervisor, Recorded], None],
    work: Callable[[Supervisor], Awaitable[TaskFinished | TaskSuspended]],
) -> Run:
    shown: list[Recorded] = []
    recalled: list[Recorded] = []

    def take(recorded: Recorded) -> None:
        shown.append(recorded)
        show(supervisor, recorded)

    supervisor = Supervisor(
        config, take, recall=recalled.append, agent_module=FAKE_AGENT
    )
    return Run(supervisor, await work(supervisor), shown, recalled)
