"""One attempt at one subtask: workspace, session, gate, answer."""

import logging
from collections.abc import Callable

import anyio

from mas.agent import processes
from mas.agent.activity import Activity, SessionLog, Throttle
from mas.agent.options import session_options
from mas.agent.outcome import SessionEnd, conclude, failed
from mas.agent.prompts import attempt_prompt, resumed_prompt
from mas.agent.session import Session
from mas.agent.tools import open_tools
from mas.agent.transcript import Transcript
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
        self._session: Session | None = None

    @property
    def usage(self) -> Usage:
        return self._session_log.usage if self._session_log else Usage()

    def hold(self, is_held: bool) -> None:
        """Whether it waits for its turn at Claude: silence means nothing then."""
        if self._session:
            self._session.hold(is_held)

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
        end = await self._work(workspace)
        # Before the last look at output/: a process left behind may still write there.
        await anyio.to_thread.run_sync(processes.kill_descendants)
        verdict = await anyio.to_thread.run_sync(check_output, workspace.output)
        return conclude(self._order, end, verdict)

    async def _work(self, workspace: Workspace) -> SessionEnd:
        """Go on in the session where that is asked for and possible; else begin it."""
        order = self._order
        transcript = Transcript(self._configuration.claude.config_dir, order.session_id)
        is_begun = await anyio.to_thread.run_sync(transcript.exists)
        if is_begun and order.resumes:
            used_before = await anyio.to_thread.run_sync(transcript.usage)
            log = SessionLog(workspace.root, used_before)
            prompt = resumed_prompt(order, workspace)
            end = await self._hold_session(workspace, log, prompt, goes_on=True)
            if not end.history_refused:
                return end
            _log.warning("the session cannot go on, it begins anew: %s", end.error)
        if is_begun:
            await anyio.to_thread.run_sync(transcript.set_aside)
        log = SessionLog(workspace.root)
        prompt = attempt_prompt(order, workspace)
        return await self._hold_session(workspace, log, prompt, goes_on=False)

    async def _hold_session(
        self, workspace: Workspace, log: SessionLog, prompt: str, *, goes_on: bool
    ) -> SessionEnd:
        claude = self._configuration.claude
        self._session_log = log
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
            options = session_options(
                self._order, claude, workspace, toolbox, note, goes_on=goes_on
            )
            self._session = Session(options, log, note)
            end = await self._session.run(
                prompt, inactivity_timeout_s=claude.inactivity_timeout_s
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
