"""What the attempts at a task came to: judged here, kept for those that follow."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct

from mas.core.events import AttemptFinished, AttemptStarted, Fact
from mas.core.result import aggregate, check_result, inside_output
from mas.gates import RESULT_NAME, left_result
from mas.model import FailureKind, Plan, Status, Usage
from mas.wire import messages

NO_USAGE = Usage()


class CutOff(Struct, frozen=True, kw_only=True):
    """An attempt that ended with its agent or its supervisor, without a word."""

    started: AttemptStarted
    error: str
    """Why nothing more will be heard of it."""
    execution_time: float = 0.0
    usage: Usage = NO_USAGE
    """By the ledger."""
    since: datetime | None = None
    """When it began, where ``execution_time`` is not known."""


class Results:
    """One task's results and failures so far; its folder is where they are judged."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._descriptions = {it.id: it.description for it in plan.subtasks}
        self._folder = folder
        self._outputs: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, list[messages.PreviousAttempt]] = {}

    def note(self, fact: Fact) -> None:
        """Remember what later attempts and the task's result are made of."""
        if not isinstance(fact, AttemptFinished):
            return
        if fact.output is not None:
            self._outputs[fact.subtask_id] = fact.output
        if fact.error:
            failure = messages.PreviousAttempt(
                attempt=fact.attempt, agent_id=fact.agent_id, error=fact.error
            )
            self._failures.setdefault(fact.subtask_id, []).append(failure)

    def failures(self, subtask_id: str) -> tuple[messages.PreviousAttempt, ...]:
        return tuple(self._failures.get(subtask_id, ()))

    def handed_over(self, dependency: str) -> messages.DependencyResult:
        """What a dependent of the completed subtask ``dependency`` is given."""
        return messages.DependencyResult(
            subtask_id=dependency,
            description=self._descriptions[dependency],
            output=self._outputs[dependency],
            output_dir=str(self._output_dir(dependency)),
        )

    def of_task(self, statuses: Mapping[str, Status]) -> dict[str, Any]:
        """The task's result: every subtask's, and where their files are."""
        return aggregate(self._plan, self._outputs, statuses, self._files())

    def judge(
        self,
        agent_id: str,
        done: messages.AttemptDone,
        *,
        execution_time: float,
        usage: Usage,
    ) -> AttemptFinished:
        """Decide what an attempt came to. Only here does a result count."""
        output, failure, error = None, done.failure, done.error
        if done.result is not None:
            output_dir = self._output_dir(done.subtask_id)
            output, faults = check_result(done.result, PurePosixPath(output_dir))
            if output is None:
                failure = FailureKind.NO_RESULT
                error = "result.json is not usable: " + "; ".join(faults)
            elif output["success"] is not True:
                failure = FailureKind.REPORTED_FAILURE
                error = output["summary"] or "result.json says success: false"
        elif failure is None:
            failure = FailureKind.NO_RESULT
        status = Status.COMPLETED
        if failure is not None:
            cancelled = failure is FailureKind.CANCELLED
            status = Status.CANCELLED if cancelled else Status.FAILED
        return AttemptFinished(
            subtask_id=done.subtask_id,
            attempt=done.attempt,
            agent_id=agent_id,
            status=status,
            output=output if failure is None else None,
            error=error,
            failure=failure,
            execution_time=execution_time,
            usage=usage,
        )

    def judge_left(self, attempt: CutOff) -> AttemptFinished:
        """Decide by its files what an attempt came to that was cut off. Blocks.

        A result that passes the gate counts: Claude is not paid for it again.
        """
        started = attempt.started
        verdict = left_result(self._folder / started.subtask_id, started.attempt)
        output = verdict.result
        if output is not None and output["success"] is not True:
            output = None
        took_s = attempt.execution_time
        if output is not None and attempt.since is not None:
            took_s = self._age_of_result(started.subtask_id, attempt.since)
        return AttemptFinished(
            subtask_id=started.subtask_id,
            attempt=started.attempt,
            agent_id=started.agent_id,
            status=Status.FAILED if output is None else Status.COMPLETED,
            output=output,
            error=attempt.error if output is None else None,
            failure=FailureKind.AGENT_LOST if output is None else None,
            execution_time=took_s,
            usage=attempt.usage,
        )

    def _age_of_result(self, subtask_id: str, since: datetime) -> float:
        """Seconds from ``since`` to the moment when result.json was written."""
        try:
            written = (self._output_dir(subtask_id) / RESULT_NAME).stat().st_mtime
        except OSError:
            return 0.0
        return max(0.0, written - since.timestamp())

    def _output_dir(self, subtask_id: str) -> Path:
        return self._folder / subtask_id / "output"

    def _files(self) -> dict[str, list[str]]:
        """Every completed subtask's files, absolute, as its result names them."""
        files: dict[str, list[str]] = {}
        for subtask_id, output in self._outputs.items():
            folder = self._output_dir(subtask_id)
            paths = [
                inside_output(path, PurePosixPath(folder))
                for path in output["files_created"]
            ]
            files[subtask_id] = [str(folder / path) for path in paths if path]
        return files
