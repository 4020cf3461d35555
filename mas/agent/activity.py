"""What an SDK session is doing, told from its messages."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import (
    TERMINAL_TASK_STATUSES,
    AssistantMessage,
    Message,
    ResultMessage,
    SystemMessage,
    TaskNotificationMessage,
    TaskProgressMessage,
    TaskStartedMessage,
    TaskUpdatedMessage,
    ToolUseBlock,
)
from msgspec import Struct

from mas.model import Usage

MAX_ACTIVITY_CHARS = 120
MIN_INTERVAL_S = 0.1
NO_USAGE = Usage()

CREDENTIALS_REFUSED = (401, 403)
"""The HTTP statuses that no further try with the same credentials will cure."""

_ARGUMENTS = (
    *("command", "file_path", "pattern", "url", "query", "key", "description"),
    *("text", "path"),
)
"""The input fields that say most about a tool call, best first."""


class Activity(Struct, frozen=True):
    """One thing that the session does; ``subagent`` is None for the agent itself."""

    text: str
    subagent: str | None = None
    subagent_status: str | None = None


class SessionLog:
    """Follows a session's messages: what it does, and what it has used so far.

    ``used_before`` is what the CLI counts along in a session that goes on.
    """

    def __init__(self, workspace: Path, used_before: Usage = NO_USAGE) -> None:
        self._workspace = f"{workspace}/"
        self._used_before = used_before
        self._usage_by_message: dict[str, Usage] = {}
        self._subagents: dict[str, str] = {}
        self._final_usage: Usage | None = None
        self.last_error: str | None = None
        """The kind of API error that the last reply was, if it was one."""
        self.has_reply = False
        """Whether Claude has said anything, and not only the CLI in its place."""
        self.refusals: list[int] = []
        """The HTTP statuses with which the credentials were refused, in a row."""
        self.result: ResultMessage | None = None

    @property
    def usage(self) -> Usage:
        """Exact once the result is there; before it, output tokens are missing."""
        if self._final_usage is not None:
            return self._final_usage
        return sum(self._usage_by_message.values(), Usage())

    def take(self, message: Message) -> list[Activity]:
        """Note ``message`` and return what it shows to be going on."""
        if isinstance(message, AssistantMessage):
            self.last_error = message.error
            if message.error is None:
                self.has_reply = True
                self.refusals.clear()
            self._count(message)
            return list(self._tool_uses(message))
        if isinstance(message, ResultMessage):
            self.result = message
            self._final_usage = usage_of(message, self._used_before)
        elif isinstance(message, SystemMessage):
            return list(self._of_system(message))
        return []

    def _count(self, message: AssistantMessage) -> None:
        # A reply of several blocks comes as several messages with the same usage.
        if message.usage and message.message_id:
            self._usage_by_message[message.message_id] = _tokens(message.usage)

    def _tool_uses(self, message: AssistantMessage) -> Iterator[Activity]:
        uses = [block for block in message.content if isinstance(block, ToolUseBlock)]
        parent = message.parent_tool_use_id
        status = "running" if parent else None
        for use in uses:
            yield Activity(self._describe(use), parent, status)

    def _describe(self, use: ToolUseBlock) -> str:
        name = use.name.removeprefix("mcp__mas__")
        argument = next((use.input[it] for it in _ARGUMENTS if it in use.input), "")
        text = f"{name} {_flat(argument).replace(self._workspace, '')}".strip()
        return text[:MAX_ACTIVITY_CHARS]

    def _of_system(self, message: SystemMessage) -> Iterator[Activity]:
        match message:
            case TaskStartedMessage():
                self._subagents[message.task_id] = message.tool_use_id or ""
                yield self._task(message, message.description, "started")
            case TaskProgressMessage():
                text = message.last_tool_name or message.description
                yield self._task(message, text, "running")
            case TaskNotificationMessage():
                yield self._task(message, message.summary, message.status)
            case TaskUpdatedMessage(status=status) if status in TERMINAL_TASK_STATUSES:
                yield self._task(message, status, status)
            case SystemMessage(subtype="api_retry"):
                self._note_retry(message.data.get("error_status"))
                yield Activity(_retry(message.data))

    def _note_retry(self, status: int | None) -> None:
        if status in CREDENTIALS_REFUSED:
            self.refusals.append(status)
        else:
            self.refusals.clear()

    def _task(
        self,
        message: TaskStartedMessage
        | TaskProgressMessage
        | TaskNotificationMessage
        | TaskUpdatedMessage,
        text: str,
        status: str,
    ) -> Activity:
        # A subagent's own messages name the tool use that began it, so it is shown by
        # that id throughout; other tasks are shown by their own.
        subagent = self._subagents.get(message.task_id) or message.task_id
        word = "failed" if status in ("stopped", "killed") else status
        return Activity(_flat(text)[:MAX_ACTIVITY_CHARS], subagent, word)


def usage_of(result: ResultMessage, used_before: Usage = NO_USAGE) -> Usage:
    """All of the session but what it had used before: every model, subagents included.

    The CLI counts on where it goes on in a session.
    """
    if result.model_usage:
        tokens = usage_by_model(result.model_usage)
    else:
        tokens = _tokens(result.usage or {})
        used_before = Usage(cost_usd=used_before.cost_usd)
    total = tokens + Usage(cost_usd=result.total_cost_usd or 0.0)
    return _difference(total, used_before)


def _difference(total: Usage, before: Usage) -> Usage:
    return Usage(
        input_tokens=max(0, total.input_tokens - before.input_tokens),
        output_tokens=max(0, total.output_tokens - before.output_tokens),
        cache_read_tokens=max(0, total.cache_read_tokens - before.cache_read_tokens),
        cache_write_tokens=max(0, total.cache_write_tokens - before.cache_write_tokens),
        cost_usd=max(0.0, total.cost_usd - before.cost_usd),
    )


def usage_by_model(by_model: Mapping[str, Mapping[str, Any]]) -> Usage:
    """The tokens in the CLI's own account, all models together."""
    return sum(
        (
            Usage(
                input_tokens=it.get("inputTokens", 0),
                output_tokens=it.get("outputTokens", 0),
                cache_read_tokens=it.get("cacheReadInputTokens", 0),
                cache_write_tokens=it.get("cacheCreationInputTokens", 0),
            )
            for it in by_model.values()
        ),
        Usage(),
    )


def _tokens(usage: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=usage.get("input_tokens") or 0,
        output_tokens=usage.get("output_tokens") or 0,
        cache_read_tokens=usage.get("cache_read_input_tokens") or 0,
        cache_write_tokens=usage.get("cache_creation_input_tokens") or 0,
    )


def _retry(data: dict[str, Any]) -> str:
    what = data.get("error_status") or "no connection"
    wait_s = (data.get("retry_delay_ms") or 0) / 1000
    return (
        f"waiting {wait_s:.0f} s for the API ({what}), "
        f"retry {data.get('attempt')} of {data.get('max_retries')}"
    )


def _flat(value: object) -> str:
    return " ".join(str(value).split())


class Throttle:
    """Passes activities on, at most one in ``MIN_INTERVAL_S``; the newest wins.

    What is superseded before its turn is left out, but the last one of each subagent
    always gets through, so that what is shown is what is going on.
    """

    def __init__(self, report: Callable[[Activity], object]) -> None:
        self._report = report
        self._waiting: dict[str | None, Activity] = {}
        self._changed = anyio.Event()

    def offer(self, activity: Activity) -> None:
        """Report ``activity``, now or as soon as its turn comes."""
        self._waiting[activity.subagent] = activity
        self._changed.set()

    async def run(self) -> None:
        """Report until cancelled; then what still waits."""
        try:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                while self._waiting:
                    self._report_next()
                    await anyio.sleep(MIN_INTERVAL_S)
        finally:
            while self._waiting:
                self._report_next()

    def _report_next(self) -> None:
        self._report(self._waiting.pop(next(iter(self._waiting))))
