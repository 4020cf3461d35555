"""What a session may do, and the gate that it must pass to stop."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import cast

import anyio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    HookCallback,
    HookContext,
    HookInput,
    HookJSONOutput,
    HookMatcher,
    PermissionMode,
)

from mas.agent.activity import Activity
from mas.agent.prompts import SYSTEM_PROMPT
from mas.agent.tools import SERVER_NAME, Toolbox
from mas.agent.workspace import Workspace
from mas.gates import Verdict, check_output
from mas.wire.messages import ClaudeSettings, RunAttempt

TOOLS = ("Bash", "Read", "Write", "Edit", "Glob", "Grep")
WEB_TOOLS = ("WebSearch", "WebFetch")
WEB_CAPABILITY = "web_scraping"

MAX_MESSAGE_BYTES = 16 * 2**20
"""The SDK's own limit, 1 MiB, ends a session over one long line."""

STOP_HOOK_BLOCK_CAP = 5
"""Send-backs in a row, without a tool call between them, before the session ends.

Whoever does nothing after five of them will not after fifty. With tool calls between
them it is ``max_turns`` that ends the session.
"""

BASH_DEFAULT_TIMEOUT_S = 120.0
BASH_SHARE_OF_INACTIVITY = 0.9
"""A running command is silence: it has to give up before the session is given up.

The CLI ends a command at the default and tells Claude the maximum; it does not enforce
the maximum on a longer ``timeout`` that Claude asks for.
"""

_log = logging.getLogger(__name__)


def session_options(
    order: RunAttempt,
    claude: ClaudeSettings,
    workspace: Workspace,
    toolbox: Toolbox,
    report: Callable[[Activity], object],
    *,
    goes_on: bool = False,
) -> ClaudeAgentOptions:
    """Return the SDK's options for one attempt.

    ``goes_on``: in the session of that id, which has been begun; else it is begun.
    """
    web = WEB_TOOLS if WEB_CAPABILITY in order.subtask.required_capabilities else ()
    return ClaudeAgentOptions(
        cwd=workspace.root,
        system_prompt=SYSTEM_PROMPT,
        # The prompt holds text that nobody here has written: an @/path or a /command
        # in it must stay text.
        verbatim_prompts=True,
        tools=[*TOOLS, *web],
        # Never Read, Write or Edit by their bare names: that opens the whole disk.
        # Without the two rules a result cannot be written in "default" and "dontAsk".
        allowed_tools=[
            *("Bash", "Edit(/output/**)", "Edit(/temp/**)"),
            *web,
            *toolbox.allowed,
        ],
        mcp_servers={SERVER_NAME: toolbox.server},
        strict_mcp_config=True,
        # A workspace's own .claude/settings.json would run its hooks without asking.
        setting_sources=[],
        permission_mode=cast(PermissionMode, claude.permission_mode),
        max_turns=claude.max_turns,
        model=claude.model,
        session_id=None if goes_on else order.session_id,
        resume=order.session_id if goes_on else None,
        max_buffer_size=MAX_MESSAGE_BYTES,
        env=_environment(claude, order.token, workspace),
        hooks={"Stop": [HookMatcher(hooks=[_stop_gate(workspace, report)])]},
    )


def _environment(
    claude: ClaudeSettings, token: str, workspace: Workspace
) -> dict[str, str]:
    temporary = str(workspace.root / "temp")
    bash_limit_s = claude.inactivity_timeout_s * BASH_SHARE_OF_INACTIVITY
    return {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        # Subagents and commands run in the foreground: otherwise the first result
        # message comes while they still work.
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        # It opens the system prompt with a fingerprint of the first message, which a
        # gateway's prompt cache cannot share.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_STOP_HOOK_BLOCK_CAP": str(STOP_HOOK_BLOCK_CAP),
        "BASH_MAX_TIMEOUT_MS": _milliseconds(bash_limit_s),
        "BASH_DEFAULT_TIMEOUT_MS": _milliseconds(
            min(bash_limit_s, BASH_DEFAULT_TIMEOUT_S)
        ),
        # What a session leaves behind stays in its workspace.
        "TMPDIR": temporary,
        "CLAUDE_CODE_TMPDIR": temporary,
        "ANTHROPIC_BASE_URL": claude.base_url,
        "ANTHROPIC_API_KEY": token,
        "NO_PROXY": _without_proxy(os.environ, "NO_PROXY"),
        "no_proxy": _without_proxy(os.environ, "no_proxy"),
        "CLAUDE_CONFIG_DIR": claude.config_dir,
    }


def _without_proxy(environment: Mapping[str, str], name: str) -> str:
    """The hosts that are reached without a proxy, the gateway among them."""
    return ",".join(filter(None, (environment.get(name), "127.0.0.1")))


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _stop_gate(
    workspace: Workspace, report: Callable[[Activity], object]
) -> HookCallback:
    """The Stop hook: back to work until the result is right.

    It is help, not proof: the CLI gives up sending back after a while, and does not
    ask after an API error. What counts is the look at output/ after the session.
    """

    async def stop(
        event: HookInput, tool_use_id: str | None, context: HookContext
    ) -> HookJSONOutput:
        try:
            verdict = await anyio.to_thread.run_sync(check_output, workspace.output)
        except Exception as error:  # noqa: BLE001 - a hook that raises lets it end
            _log.exception("the gate failed")
            verdict = Verdict(faults=(f"it could not be checked: {error}",))
        if not verdict.faults:
            return {}
        report(Activity(f"sent back: {verdict.faults[0]}"))
        return {"decision": "block", "reason": _send_back(workspace, verdict)}

    return stop


def _send_back(workspace: Workspace, verdict: Verdict) -> str:
    faults = "\n".join(f"- {fault}" for fault in verdict.faults)
    return (
        f"You cannot stop yet. Mend this, then stop again:\n{faults}\n"
        f"The result belongs in {workspace.output / 'result.json'}. If the subtask "
        'cannot be done, write it with "success": false and the reason in "summary".'
    )
