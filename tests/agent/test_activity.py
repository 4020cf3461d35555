"""What is shown of a session: tools, subagents, retries, and what it has used."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import (
    AssistantMessage,
    CLIConnectionError,
    ProcessError,
    ResultMessage,
    SystemMessage,
    TaskNotificationMessage,
    TaskProgressMessage,
    TaskStartedMessage,
    TaskUpdatedMessage,
    TextBlock,
    ToolUseBlock,
)
from msgspec import structs

from mas.agent.activity import (
    MAX_ACTIVITY_CHARS,
    MIN_INTERVAL_S,
    Activity,
    SessionLog,
    Throttle,
)
from mas.agent.session import (
    classify,
    describe_result,
    gave_up,
    is_about_history,
)
from mas.model import FailureKind, Usage

WORKSPACE = Path("/shared/7f0c/count")
TASK: dict[str, Any] = {"task_id": "t1", "uuid": "u", "session_id": "s"}
SYSTEM: dict[str, Any] = {"subtype": "task", "data": {}}
TASK_USAGE: Any = {"total_tokens": 5, "tool_uses": 1, "duration_ms": 9}


@pytest.fixture
def log() -> SessionLog:
    return SessionLog(WORKSPACE)


def using(name: str, parent: str | None = None, **arguments: Any) -> AssistantMessage:
    block = ToolUseBlock("id", name, arguments)
    return AssistantMessage([block], "model", parent_tool_use_id=parent)


def a_result(**fields: Any) -> ResultMessage:
    known: dict[str, Any] = {
        "subtype": "success",
        "duration_ms": 1,
        "duration_api_ms": 1,
        "is_error": False,
        "num_turns": 1,
        "session_id": "s",
    }
    return ResultMessage(**known | fields)


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("Bash", {"command": "python3  fit.py\n --all"}, "Bash python3 fit.py --all"),
        ("Read", {"file_path": f"{WORKSPACE}/context/a.csv"}, "Read context/a.csv"),
        ("Grep", {"pattern": "x", "path": "y"}, "Grep x"),
        ("mcp__mas__query_database", {"query": "SELECT 1"}, "query_database SELECT 1"),
        ("mcp__mas__share_data", {"key": "k", "value": 1}, "share_data k"),
        ("Odd", {}, "Odd"),
    ],
)
def test_a_tool_is_shown_by_name_and_argument(
    log: SessionLog, name: str, arguments: dict[str, Any], shown: str
) -> None:
    assert log.take(using(name, **arguments)) == [Activity(shown)]


def test_a_long_argument_is_cut(log: SessionLog) -> None:
    (activity,) = log.take(using("Bash", command="x" * 10_000))
    assert len(activity.text) == MAX_ACTIVITY_CHARS


def test_a_subagent_is_followed_under_one_id(log: SessionLog) -> None:
    words = "look around"
    started = TaskStartedMessage(
        **SYSTEM, **TASK, description=words, tool_use_id="toolu_1"
    )
    running = TaskProgressMessage(
        **SYSTEM, **TASK, description=words, usage=TASK_USAGE, last_tool_name="Grep"
    )
    ended = TaskNotificationMessage(
        **SYSTEM, **TASK, status="completed", output_file="", summary="found it"
    )
    shown = [
        *log.take(started),
        *log.take(using("Read", parent="toolu_1", file_path="a")),
        *log.take(running),
        *log.take(ended),
    ]
    assert shown == [
        Activity(words, "toolu_1", "started"),
        Activity("Read a", "toolu_1", "running"),
        Activity("Grep", "toolu_1", "running"),
        Activity("found it", "toolu_1", "completed"),
    ]


def test_a_subagent_that_was_killed_is_shown_as_failed(log: SessionLog) -> None:
    updated = TaskUpdatedMessage(**SYSTEM, task_id="t1", patch={}, status="killed")
    assert log.take(updated) == [Activity("killed", "t1", "failed")]
    running = TaskUpdatedMessage(**SYSTEM, task_id="t1", patch={}, status="running")
    assert log.take(running) == []


def test_a_retry_says_what_is_waited_for(log: SessionLog) -> None:
    data = {
        "error_status": 529,
        "retry_delay_ms": 2400,
        "attempt": 3,
        "max_retries": 10,
    }
    (activity,) = log.take(SystemMessage("api_retry", data))
    assert activity.text == "waiting 2 s for the API (529), retry 3 of 10"


def test_tokens_are_counted_once_for_each_reply(log: SessionLog) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 5}
    for message_id in ("m1", "m1", "m2"):
        log.take(
            AssistantMessage([TextBlock("a")], "m", usage=usage, message_id=message_id)
        )
    assert log.usage == Usage(20, 2, 10)


def test_the_result_has_the_last_word_on_usage(log: SessionLog) -> None:
    log.take(AssistantMessage([], "m", usage={"input_tokens": 1}, message_id="m1"))
    model: Any = {
        "inputTokens": 10,
        "outputTokens": 20,
        "cacheReadInputTokens": 30,
        "cacheCreationInputTokens": 40,
    }
    log.take(a_result(model_usage={"a": model, "b": model}, total_cost_usd=0.5))
    assert log.usage == Usage(20, 40, 60, 80, 0.5)


def test_a_result_without_models_still_has_its_usage(log: SessionLog) -> None:
    log.take(a_result(usage={"input_tokens": 3, "output_tokens": 4}))
    assert log.usage == Usage(3, 4)


def test_what_a_session_had_used_before_is_not_counted_again() -> None:
    log = SessionLog(WORKSPACE, Usage(10, 20, 30, 0, 0.4))
    model: Any = {"inputTokens": 15, "outputTokens": 21, "cacheReadInputTokens": 29}
    log.take(a_result(model_usage={"a": model}, total_cost_usd=0.5))
    assert structs.replace(log.usage, cost_usd=0.0) == Usage(5, 1)
    assert log.usage.cost_usd == pytest.approx(0.1)


def test_what_a_session_had_used_before_is_only_in_the_account_by_model() -> None:
    log = SessionLog(WORKSPACE, Usage(10, 20, 30, 0, 0.4))
    log.take(a_result(usage={"input_tokens": 3, "output_tokens": 4}))
    assert log.usage == Usage(3, 4)


def a_retry(status: int | None) -> SystemMessage:
    return SystemMessage("api_retry", {"error_status": status, "retry_delay_ms": 500})


def test_refused_credentials_are_counted_in_a_row(log: SessionLog) -> None:
    for status in (401, None, 401, 529, 403):
        log.take(a_retry(status))
    assert log.refusals == [403]
    log.take(a_retry(401))
    assert log.refusals == [403, 401]
    log.take(using("Bash"))
    assert log.refusals == []


def test_what_the_cli_says_in_claudes_place_is_no_reply(log: SessionLog) -> None:
    log.take(AssistantMessage([], "<synthetic>", error="server_error"))
    assert not log.has_reply
    log.take(using("Bash"))
    assert log.has_reply


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (ProcessError("No conversation found", exit_code=1), True),
        (ProcessError("killed", exit_code=-9), False),
        (ProcessError("terminated", exit_code=143), False),
        (ProcessError("unknown"), False),
        (CLIConnectionError("no pipe"), False),
        (None, False),
    ],
)
def test_a_cli_that_gives_up_is_told_from_one_that_was_ended(
    cause: Exception | None, *, expected: bool
) -> None:
    assert gave_up(cause) is expected


@pytest.mark.parametrize(
    ("status", "words", "expected"),
    [
        (400, "messages.3: `tool_use` ids were found without `tool_result`", True),
        (400, "API Error: 400 due to tool use concurrency issues.", True),
        (400, "Prompt is too long", True),
        (413, "Prompt is too long", True),
        (400, "Your credit balance is too low", False),
        (529, "messages are not taken now", False),
        (None, "messages.", False),
    ],
)
def test_a_refusal_of_the_history_is_told_from_others(
    status: int | None, words: str, *, expected: bool
) -> None:
    result = a_result(is_error=True, result=words, api_error_status=status)
    assert is_about_history(result) is expected


@pytest.mark.parametrize(
    ("fields", "last_error", "kind"),
    [
        ({}, None, None),
        ({"terminal_reason": "hook_stopped"}, None, None),
        ({"is_error": True, "subtype": "error_max_turns"}, None, "max_turns"),
        ({"is_error": True, "terminal_reason": "max_turns"}, None, "max_turns"),
        ({"is_error": True, "api_error_status": 401}, None, "authentication"),
        ({"is_error": True}, "authentication_failed", "authentication"),
        ({"is_error": True, "api_error_status": 529}, None, "api_error"),
        ({"terminal_reason": "api_error"}, None, "api_error"),
        ({"is_error": True, "stop_reason": "refusal"}, "invalid_request", "refusal"),
        ({"is_error": True, "subtype": "error_during_execution"}, None, "api_error"),
    ],
)
def test_an_end_is_judged_by_more_than_its_subtype(
    fields: dict[str, Any], last_error: str | None, kind: str | None
) -> None:
    expected = None if kind is None else FailureKind(kind)
    assert classify(a_result(**fields), last_error) is expected


def test_an_end_with_an_error_has_words() -> None:
    assert describe_result(a_result(errors=["a", "b"])) == "a; b"
    assert describe_result(a_result(result="busy", api_error_status=529)) == (
        "busy (HTTP 529)"
    )
    assert describe_result(a_result(subtype="error_odd")) == "error_odd"


async def test_the_throttle_keeps_the_pace_and_the_last_word() -> None:
    reported: list[tuple[float, Activity]] = []
    throttle = Throttle(lambda it: reported.append((anyio.current_time(), it)))
    seen = anyio.Event()
    last = Activity("tool 99", "one", "completed")

    def report(activity: Activity) -> None:
        reported.append((anyio.current_time(), activity))
        if activity == last:
            seen.set()

    throttle = Throttle(report)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(throttle.run)
        for number in range(99):
            throttle.offer(Activity(f"tool {number}"))
            throttle.offer(Activity(f"tool {number}", "one", "running"))
        throttle.offer(last)
        with anyio.fail_after(5):
            await seen.wait()
        throttle.offer(Activity("the end"))
        tasks.cancel_scope.cancel()
    texts = [activity.text for _, activity in reported]
    assert texts == ["tool 98", "tool 99", "the end"]
    assert reported[1][0] - reported[0][0] >= MIN_INTERVAL_S * 0.9
