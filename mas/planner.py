"""The planner: a task becomes a plan by one call to Claude with structured output."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
from anthropic.types import Message, MessageParam
from msgspec import Struct

from mas.config import Config
from mas.core.graph import check_plan
from mas.core.plan import PLAN_SCHEMA, parse_plan, single_subtask_plan
from mas.errors import MasError, NotReadyError, PlanError
from mas.gateway.patience import Patience
from mas.model import Plan

_MAX_TOKENS = 16_000
_RETRIES = 2
_HEAD_BYTES = 2000
_INPUTS_SHOWN = 40
_GATEWAY = "mas: "
"""So begins what the gateway itself answers."""

_SYSTEM = """\
You plan work for a team of agents that run at the same time. Split the task into \
subtasks that together fulfil it, as a directed acyclic graph.

- Independent subtasks run in parallel on different agents: prefer a wide plan to a \
long chain, but never split what one agent does better in one go. A simple task is \
one subtask.
- A subtask sees only its own description, the results and files of its \
dependencies, and the user's files. Make each description complete: what to do, \
with what, and what to hand over.
- Name as dependencies all subtasks whose results it needs, and no others.
- "key" is short and unique, such as load_data. "priority" is 0 to 10, higher first. \
"estimated_duration" is in seconds.
- "required_capabilities" is the least that the subtask needs, from this list:
{capabilities}
- These agents are there: {roster}.
- At most {max_subtasks} subtasks.
"""


class PlannedTask(Struct, frozen=True, kw_only=True):
    plan: Plan
    warning: str | None = None
    """Why the plan is the whole task as one subtask, where it is."""


async def plan_task(
    description: str,
    inputs: Sequence[Path],
    config: Config,
    *,
    base_url: str,
    token: str,
    patience: Patience,
) -> PlannedTask:
    """Ask Claude for a plan and check it; ask once more with the reasons if it is bad.

    Claude is asked at ``base_url`` with ``token``, for as long as ``patience`` lasts.

    A second bad plan becomes one subtask, with a warning. Raises NotReadyError where
    Claude cannot be reached or refuses the credentials, MasError where it declines or
    does not come to an end.
    """
    client = anthropic.AsyncAnthropic(
        api_key=token,
        base_url=base_url,
        max_retries=_RETRIES,
        # The gateway is on loopback, whatever proxy there is for the rest; of
        # trust_env this client thinks only after it has looked at the environment.
        http_client=anthropic.DefaultAsyncHttpxClient(
            trust_env=False, mounts={"all://127.0.0.1": None}
        ),
    )
    try:
        with patience.scope:
            async with client:
                return await _plan(client, description, inputs, config)
    except anthropic.APIError as error:
        raise _explained(error, config) from error
    raise NotReadyError(
        f"the planner had no answer from Claude within {patience.timeout_s:g} s",
        hint="try again, or raise limits.planner_timeout_s in mas.toml",
    )


async def _plan(
    client: anthropic.AsyncAnthropic,
    description: str,
    inputs: Sequence[Path],
    config: Config,
) -> PlannedTask:
    conversation: list[MessageParam] = [
        {"role": "user", "content": _question(description, inputs)}
    ]
    reasons: tuple[str, ...] = ()
    for _ in range(2):
        answer = await _ask(client, conversation, config)
        text = "".join(block.text for block in answer.content if block.type == "text")
        try:
            plan = parse_plan(text)
            reasons = tuple(
                check_plan(
                    plan,
                    config.roster,
                    capabilities=config.capabilities,
                    max_subtasks=config.limits.max_subtasks,
                )
            )
        except PlanError as error:
            reasons = error.reasons
        else:
            if not reasons:
                return PlannedTask(plan=plan)
        conversation += [
            {"role": "assistant", "content": text or "(nothing)"},
            {"role": "user", "content": _correction(reasons)},
        ]
    return PlannedTask(
        plan=single_subtask_plan(description),
        warning="the plan was not usable, so the task is one subtask: "
        + "; ".join(reasons),
    )


async def _ask(
    client: anthropic.AsyncAnthropic, conversation: list[MessageParam], config: Config
) -> Message:
    answer = await client.messages.create(
        model=config.claude.planner_model or config.claude.model,
        max_tokens=_MAX_TOKENS,
        system=_SYSTEM.format(
            capabilities="\n".join(
                f"  {name}: {meaning}" for name, meaning in config.capabilities.items()
            ),
            roster="; ".join(
                f"{agent.id} ({', '.join(agent.capabilities)})"
                for agent in config.roster
            ),
            max_subtasks=config.limits.max_subtasks,
        ),
        messages=conversation,
        output_config={"format": {"type": "json_schema", "schema": PLAN_SCHEMA}},
    )
    if not isinstance(answer, Message):  # the client returns what it cannot decode
        raise NotReadyError(
            "what answers to the planner is not the Messages API",
            hint="check ANTHROPIC_BASE_URL",
            evidence=str(answer)[:400],
        )
    if answer.stop_reason == "refusal":
        raise MasError(
            "Claude declined to plan this task", hint="say it in another way"
        )
    if answer.stop_reason == "max_tokens":
        raise MasError(
            f"the plan did not end within {_MAX_TOKENS} tokens",
            hint="ask for less at once, or split the task yourself",
        )
    return answer


def _question(description: str, inputs: Sequence[Path]) -> str:
    if not inputs:
        return description
    shown = "\n".join(_described(path) for path in inputs[:_INPUTS_SHOWN])
    return (
        f"{description}\n\nThe user's files, which every subtask finds in "
        f"context/inputs/:\n{shown}"
    )


def _described(path: Path) -> str:
    """A file's name, size and, where it is text, its beginning."""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())[:_INPUTS_SHOWN]
        return f"- {path.name}/ (a folder): {', '.join(names)}"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    line = f"- {path.name} ({path.stat().st_size} bytes)"
    if b"\0" in head:
        return line
    return f"{line}, it begins:\n{head.decode(errors='replace')}"


def _correction(reasons: Sequence[str]) -> str:
    faults = "\n".join(f"- {reason}" for reason in reasons)
    return f"This plan cannot be run:\n{faults}\nGive the whole plan again, corrected."


def _explained(error: anthropic.APIError, config: Config) -> MasError:
    """What went wrong between mas and Claude, with what to do about it."""
    address = config.credentials.base_url or "https://api.anthropic.com"
    evidence = _body(error)
    if isinstance(error, anthropic.AuthenticationError):
        return NotReadyError(
            "Claude refused the credentials (401)",
            hint="check ANTHROPIC_API_KEY",
            evidence=evidence,
        )
    if isinstance(error, anthropic.PermissionDeniedError):
        return NotReadyError(
            "these credentials may not do this (403)",
            hint="check what the key is allowed, in the Anthropic console",
            evidence=evidence,
        )
    if isinstance(error, anthropic.NotFoundError):
        model = config.claude.planner_model or config.claude.model
        return NotReadyError(
            f"Claude does not know the model {model!r} (404)",
            hint="set claude.model in mas.toml or CLAUDE_MODEL",
            evidence=evidence,
        )
    if isinstance(error, anthropic.APIStatusError) and evidence.startswith(_GATEWAY):
        return NotReadyError(
            evidence.removeprefix(_GATEWAY),
            hint="check the network and ANTHROPIC_BASE_URL",
        )
    if isinstance(error, anthropic.APIStatusError):
        return MasError(
            f"Claude answered {error.status_code} to the planner, "
            f"{_RETRIES} retries included",
            hint="try again later; nothing was recorded",
            evidence=evidence,
        )
    return NotReadyError(
        f"Claude could not be reached at {address}: {error.__cause__ or error}",
        hint="check the network and ANTHROPIC_BASE_URL",
    )


def _body(error: anthropic.APIError) -> str:
    body: Any = error.body
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return str(body["error"].get("message", ""))
    return "" if body is None else str(body)[:500]
