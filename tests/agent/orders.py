"""What tests of the agent share: the orders that a supervisor would send."""

import json
import uuid
from pathlib import Path
from typing import Any

from mas.model import Subtask
from mas.wire.messages import (
    ClaudeSettings,
    Configure,
    DependencyResult,
    RunAttempt,
    ServiceSettings,
)

TASK_ID = "7f0c"

NOWHERE = ServiceSettings(
    database_dsn="postgresql://nobody@127.0.0.1:1/nothing",
    redis_url="redis://127.0.0.1:1/0",
)
"""Services that nobody listens for."""


def result_json(**changes: Any) -> str:
    """A result.json that passes the gate, with changes; None drops a field."""
    fields = {"success": True, "data": {}, "summary": "done", "files_created": []}
    fields |= changes
    return json.dumps(
        {key: value for key, value in fields.items() if value is not None}
    )


def an_order(workspace: Path, **changes: Any) -> RunAttempt:
    """An order for attempt 1 at the subtask ``count``."""
    fields: dict[str, Any] = {
        "task_id": TASK_ID,
        "task_description": "Find out how many there are",
        "subtask": Subtask(id="count", description="Count the things"),
        "attempt": 1,
        "session_id": str(uuid.uuid4()),
        "workspace": str(workspace),
        "database_schema": "task_7f0c",
        "token": "token-of-count-1",
    }
    return RunAttempt(**fields | changes)


def a_dependency(subtask_id: str, output_dir: Path, **result: Any) -> DependencyResult:
    """A finished dependency whose files are in ``output_dir``."""
    return DependencyResult(
        subtask_id=subtask_id,
        description=f"what {subtask_id} was to do",
        output=json.loads(result_json(**result)),
        output_dir=str(output_dir),
    )


def a_configuration(
    config_dir: Path, services: ServiceSettings = NOWHERE, **changes: Any
) -> Configure:
    """A configuration; ``changes`` are those of the Claude settings."""
    settings: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "permission_mode": "acceptEdits",
        "max_turns": 20,
        "inactivity_timeout_s": 30.0,
        "config_dir": str(config_dir),
        "base_url": "http://127.0.0.1:9",
    }
    return Configure(
        supervisor="supervisor",
        claude=ClaudeSettings(**settings | changes),
        services=services,
        heartbeat_s=10,
    )
