"""One attempt at one subtask: workspace, session, gate, answer."""

import logging
from collections.abc import Callable

import anyio

from mas.agent import processes
from mas.agent.activity import Activity, SessionLog, Throttle
from mas.agent.options import session_options
from mas.agent.outcome import SessionEnd, conclude, failed
from mas.agent.prompts import attempt_prompt
from mas.agent.session import Session
from mas.agent.tools import open_tools
from mas.agent.workspace import Workspace, WorkspaceError, prepare
from mas.gates import check_output
from mas.model import FailureKind, Usage
from mas.wire.messages import AttemptDone, Configure, Progress, RunAttempt

_log = logging.getLogger(__name__)


class Attempt:
    """Runs one ``RunAttempt``; ``usage`` can be read at any time."""

    def __init__(
        self,
        order: RunAttempt,
        configuration: Configure,
        send: Callable[[Progress], object],
    ) -> None:
        self._order = order
        self._configuration = configuration
        self._send = send
        self._session_log: SessionLog | None = None

    @property
    def usage(self) -> Usage:
        return self._session_log.usage if self._session_log else Usage()

    async def run(self) -> AttemptDone:
        """Work on the subtask to its end, whichever that is."""
        try:
            workspace = await anyio.to_thread.run_sync(
                prepare, self._order, anyio.from_thread.check_cancelled
            )
        except WorkspaceError as error:
            return failed(self._order, FailureKind.WORKSPACE, error.message)
        for path in workspace.left_out:
            _log.warning("not handed over, it leads outside or is no file: %s", path)
        end = await self._hold_session(workspace)
        # Before the last look at output/: a process left behind may still write there.
        await anyio.to_thread.run_sync(processes.kill_descendants)
        verdict = await anyio.to_thread.run_sync(check_output, workspace.output)
        return conclude(self._order, end, verdict)

    async def _hold_session(self, workspace: Workspace) -> SessionEnd:
        claude = self._configuration.claude
        log = self._session_log = SessionLog(workspace.root)
        throttle = Throttle(self._report)

        def note(activity: Activity) -> None:
            if activity.subagent is None:
                _log.info("%s", activity.text)
            throttle.offer(activity)

        async with (
            open_tools(self._order, self._configuration.services, workspace) as toolbox,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(throttle.run)
            options = session_options(self._order, claude, workspace, toolbox, note)
            session = Session(options, log, note)
            end = await session.run(
                attempt_prompt(self._order, workspace),
                inactivity_timeout_s=claude.inactivity_timeout_s,
            )
            tasks.cancel_scope.cancel()
        return end

    def _report(self, activity: Activity) -> None:
        usage = self.usage
        self._send(
            Progress(
                subtask_id=self._order.subtask.id,
                attempt=self._order.attempt,
                activity=activity.text,
                subagent=activity.subagent,
                subagent_status=activity.subagent_status,
                usage=usage if usage.tokens else None,
            )
        )
