"""What a session may do, and that its gate can only close by mistake, never open."""

from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import ClaudeAgentOptions
from msgspec import structs

from mas.agent import options as module
from mas.agent.activity import Activity
from mas.agent.options import session_options
from mas.agent.tools import open_tools
from mas.agent.workspace import prepare
from mas.model import Subtask
from tests.agent.orders import NOWHERE, a_configuration, an_order, result_json


async def options_for(
    folder: Path, shown: list[Activity] | None = None, **changes: Any
) -> ClaudeAgentOptions:
    order = an_order(folder / "count")
    if capabilities := changes.pop("capabilities", None):
        subtask = Subtask(
            id="count", description="", required_capabilities=capabilities
        )
        order = structs.replace(order, subtask=subtask)
    goes_on = changes.pop("goes_on", False)
    workspace = prepare(order)
    claude = a_configuration(folder / "config", **changes).claude
    report = (shown if shown is not None else []).append
    async with open_tools(order, NOWHERE, workspace) as toolbox:
        return session_options(
            order, claude, workspace, toolbox, report, goes_on=goes_on
        )


async def stop(options: ClaudeAgentOptions) -> Any:
    """Call the Stop hook as the CLI would."""
    assert options.hooks is not None
    (matcher,) = options.hooks["Stop"]
    event: Any = {"hook_event_name": "Stop", "stop_hook_active": False}
    return await matcher.hooks[0](event, None, {"signal": None})


async def test_no_tool_opens_the_whole_disk(tmp_path: Path) -> None:
    options = await options_for(tmp_path)
    assert not {"Read", "Write", "Edit", "Glob", "Grep"} & set(options.allowed_tools)
    assert "Bash" in options.allowed_tools
    assert "mcp__mas__generate_embedding" in options.allowed_tools
    assert options.setting_sources == []
    assert options.strict_mcp_config
    assert options.verbatim_prompts


async def test_the_web_is_for_those_who_need_it(tmp_path: Path) -> None:
    for capabilities, allowed in (
        (("data_analysis",), False),
        (("web_scraping",), True),
    ):
        options = await options_for(tmp_path, capabilities=capabilities)
        assert isinstance(options.tools, list)
        assert ("WebSearch" in options.tools) is allowed
        assert ("WebFetch" in options.allowed_tools) is allowed


async def test_a_session_is_begun_or_gone_on_with(tmp_path: Path) -> None:
    begun = await options_for(tmp_path)
    assert (begun.session_id is None, begun.resume) == (False, None)
    resumed = await options_for(tmp_path, goes_on=True)
    assert (resumed.session_id, resumed.resume is None) == (None, False)
    assert not resumed.fork_session


async def test_a_command_is_given_up_before_the_attempt(tmp_path: Path) -> None:
    options = await options_for(tmp_path, inactivity_timeout_s=300)
    assert int(options.env["BASH_DEFAULT_TIMEOUT_MS"]) == 120_000
    assert int(options.env["BASH_MAX_TIMEOUT_MS"]) == 270_000
    options = await options_for(tmp_path, inactivity_timeout_s=10)
    assert int(options.env["BASH_DEFAULT_TIMEOUT_MS"]) == 9_000


async def test_a_session_reaches_the_gateway_with_a_token_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "internal.example")
    options = await options_for(tmp_path, base_url="http://127.0.0.1:4711")
    assert options.env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4711"
    assert options.env["ANTHROPIC_API_KEY"] == an_order(tmp_path).token
    # The gateway is on loopback, whatever proxy there is for the rest.
    assert options.env["no_proxy"] == "internal.example,127.0.0.1"
    assert options.env["CLAUDE_CONFIG_DIR"] == str(tmp_path / "config")


async def test_what_agents_send_to_claude_differs_in_nothing_that_a_cache_would_share(
    tmp_path: Path,
) -> None:
    options = await options_for(tmp_path)
    assert options.env["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    assert options.env["CLAUDE_CODE_STOP_HOOK_BLOCK_CAP"] == str(
        module.STOP_HOOK_BLOCK_CAP
    )


async def test_the_gate_lets_a_right_result_pass(tmp_path: Path) -> None:
    options = await options_for(tmp_path)
    (tmp_path / "count/output/result.json").write_text(result_json())
    assert await stop(options) == {}


async def test_the_gate_sends_back_with_every_fault(tmp_path: Path) -> None:
    shown: list[Activity] = []
    options = await options_for(tmp_path, shown)
    result = result_json(files_created=["a.csv", "b.csv"])
    (tmp_path / "count/output/result.json").write_text(result)
    answer = await stop(options)
    assert answer["decision"] == "block"
    assert "'a.csv'" in answer["reason"]
    assert "'b.csv'" in answer["reason"]
    assert shown[0].text.startswith("sent back: files_created names 'a.csv'")


async def test_a_gate_that_breaks_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(output: Path) -> None:
        raise MemoryError("out of it")

    options = await options_for(tmp_path)
    monkeypatch.setattr(module, "check_output", broken)
    answer = await stop(options)
    assert answer["decision"] == "block"
    assert "out of it" in answer["reason"]
