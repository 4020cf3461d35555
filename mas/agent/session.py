"""One Claude session: started, followed, watched for silence, and always ended."""

import logging
import math
from collections import deque
from collections.abc import Callable

import anyio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ProcessError,
    ResultError,
    ResultMessage,
)

from mas.agent import processes
from mas.agent.activity import Activity, SessionLog
from mas.agent.outcome import SessionEnd
from mas.model import FailureKind

CONNECT_TIMEOUT_S = 60.0
"""Starting the CLI takes half a second; five at once on a busy laptop, some more."""

INTERRUPT_TIMEOUT_S = 1.0
CLOSE_GRACE_S = 1.5
"""The CLI leaves some 0.3 s after its input ends; the SDK would wait 5 s for it."""

REFUSALS_ENOUGH = 2
"""The CLI would try ten times, three minutes long; one refusal may be a slip."""

MAX_STDERR_LINES = 20
MAX_STDERR_LINE_CHARS = 1_000

_HISTORY_FAULTS = ("messages.", "tool_use", "tool use", "prompt is too long")
"""Words of a 400 that is about the history; it will be refused again, as it is."""

_log = logging.getLogger(__name__)


class Session:
    """One conversation, from the prompt to the moment Claude stops."""

    def __init__(
        self,
        options: ClaudeAgentOptions,
        log: SessionLog,
        report: Callable[[Activity], object],
    ) -> None:
        self._stderr: deque[str] = deque(maxlen=MAX_STDERR_LINES)
        options.stderr = lambda line: self._stderr.append(line[:MAX_STDERR_LINE_CHARS])
        self._goes_on = options.resume is not None
        self._client = ClaudeSDKClient(options)
        self._log = log
        self._report = report
        self._silence = anyio.CancelScope()
        self._limit_s = 0.0
        self._is_held = False

    def hold(self, is_held: bool) -> None:
        """Whether it waits for its turn at Claude: silence means nothing then."""
        self._is_held = is_held
        self._heard()

    async def run(self, prompt: str, *, inactivity_timeout_s: float) -> SessionEnd:
        """Hold the conversation; when this returns or raises, the CLI is gone.

        Silence of ``inactivity_timeout_s`` ends it. A running tool is silence too, so
        a command that takes longer than that ends the attempt. ``options.py`` gives
        Bash a shorter default, and Claude then hears of it instead.
        """
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await self._client.connect()
        except TimeoutError:
            return self._lost(
                f"the Claude CLI did not start in {CONNECT_TIMEOUT_S:g} s"
            )
        except Exception as error:  # noqa: BLE001 - the SDK raises bare ones on a failed start
            return self._lost(f"the Claude CLI did not start: {_reason(error)}", error)
        try:
            await self._client.query(prompt)
            self._limit_s = inactivity_timeout_s
            self._heard()
            with self._silence:
                await self._listen()
                if self._is_refused():
                    await self._interrupt()
                return self._ended()
            await self._interrupt()
            error_text = f"nothing was heard from Claude for {inactivity_timeout_s:g} s"
            return self._end(FailureKind.INACTIVITY, error_text)
        except ClaudeSDKError as error:
            return self._lost(f"the Claude CLI broke off: {_reason(error)}", error)
        except anyio.get_cancelled_exc_class():
            await self._interrupt()
            raise
        finally:
            await self._close()

    def _heard(self) -> None:
        """The silence begins anew."""
        limit_s = math.inf if self._is_held or not self._limit_s else self._limit_s
        self._silence.deadline = anyio.current_time() + limit_s

    async def _listen(self) -> None:
        async for message in self._client.receive_response():
            self._heard()
            for activity in self._log.take(message):
                self._report(activity)
            if self._is_refused():
                return

    def _is_refused(self) -> bool:
        return len(self._log.refusals) >= REFUSALS_ENOUGH

    def _ended(self) -> SessionEnd:
        if self._is_refused():
            status = self._log.refusals[-1]
            error = f"Claude refused the credentials (HTTP {status})"
            return self._end(FailureKind.AUTHENTICATION, error)
        result = self._log.result
        if result is None:
            return self._lost("the Claude CLI ended without a word")
        if (failure := classify(result, self._log.last_error)) is None:
            return SessionEnd(usage=self._log.usage)
        error = describe_result(result)
        refused = is_about_history(result) and self._is_unanswered()
        return self._end(failure, error, history_refused=refused)

    def _end(
        self, failure: FailureKind, error: str, *, history_refused: bool = False
    ) -> SessionEnd:
        return SessionEnd(
            failure=failure,
            error=error,
            usage=self._log.usage,
            history_refused=history_refused,
        )

    def _lost(self, error: str, cause: Exception | None = None) -> SessionEnd:
        """The CLI let us down; what it wrote to stderr is the best evidence."""
        tail = "".join(f"\n{line}" for line in self._stderr)
        refused = gave_up(cause) and self._is_unanswered()
        return self._end(FailureKind.INTERNAL, error + tail, history_refused=refused)

    def _is_unanswered(self) -> bool:
        """Whether it was to go on in a session, and Claude has not said a word."""
        return self._goes_on and not self._log.has_reply

    async def _interrupt(self) -> None:
        """Ask the CLI to stop what it does, which also ends its Bash commands.

        Its answer carries what the session has used.
        """
        with anyio.move_on_after(INTERRUPT_TIMEOUT_S, shield=True):
            try:
                await self._client.interrupt()
                async for message in self._client.receive_response():
                    self._log.take(message)
            except Exception as error:  # noqa: BLE001 - the SDK raises bare ones; the end follows anyway
                _log.info("the session could not be interrupted: %s", error)

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True):  # bounded: see _kill_late
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_kill_late)
                try:
                    await self._client.disconnect()
                except Exception as error:  # noqa: BLE001 - nothing of it is used any more
                    _log.info("the session was not closed cleanly: %s", error)
                tasks.cancel_scope.cancel()


async def _kill_late() -> None:
    """End a CLI that does not leave, and with it the SDK's wait for it."""
    await anyio.sleep(CLOSE_GRACE_S)
    await anyio.to_thread.run_sync(processes.kill_descendants)


def classify(result: ResultMessage, last_error: str | None) -> FailureKind | None:
    """Why the session did not end by itself; None where it did.

    Not by ``subtype``, which is "success" after an API error too.
    """
    reason = result.terminal_reason
    if not result.is_error and reason != "api_error":
        return None
    if reason == "max_turns" or result.subtype == "error_max_turns":
        return FailureKind.MAX_TURNS
    if result.stop_reason == "refusal":
        return FailureKind.REFUSAL
    if result.api_error_status in (401, 403) or last_error == "authentication_failed":
        return FailureKind.AUTHENTICATION
    return FailureKind.API_ERROR


def gave_up(cause: Exception | None) -> bool:
    """Whether the CLI ended by itself, with an error: not by a signal."""
    code = cause.exit_code if isinstance(cause, ProcessError) else None
    return code is not None and 0 < code < 128


def is_about_history(result: ResultMessage) -> bool:
    """Whether the API refused what was said before, and so will refuse it again."""
    words = describe_result(result).lower()
    return result.api_error_status in (400, 413) and any(
        fault in words for fault in _HISTORY_FAULTS
    )


def describe_result(result: ResultMessage) -> str:
    """What the CLI says about an end with an error, in one text."""
    words = "; ".join(result.errors or []) or result.result or result.subtype
    if result.api_error_status is not None:
        return f"{words} (HTTP {result.api_error_status})"
    return words


def _reason(error: Exception) -> str:
    # The text of a ProcessError only says that stderr says more.
    if isinstance(error, ProcessError) and not isinstance(error, ResultError):
        return f"it ended with exit code {error.exit_code}"
    return str(error) or type(error).__name__
