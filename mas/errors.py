"""The errors of mas: each says what is wrong, what to do, and carries its evidence."""

from typing import ClassVar


class MasError(Exception):
    """Anything mas tells its user: one line what is wrong, one line what to do.

    ``evidence`` is what was seen (an exit code, the tail of stderr, a reply), shown
    below the two lines. ``exit_code`` is what the command ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence

    def __reduce__(self) -> tuple[object, ...]:
        state = {"hint": self.hint, "evidence": self.evidence}
        return (type(self), (self.message,), state)


class UsageError(MasError):
    """What the user typed cannot be meant: an empty task, an unknown id."""

    exit_code = 2


def task_finished(task_id: str, status: str) -> UsageError:
    """What is said to whom wants to go on with, or end, a task that has ended."""
    return UsageError(
        f"the task {task_id} is finished: {status}",
        hint=f"its results: mas show {task_id}",
    )


class NotReadyError(MasError):
    """Credentials, a service or the machine are not ready for the work."""

    exit_code = 3


class ConfigError(NotReadyError):
    """mas.toml or the environment holds something that is not allowed."""


class PlanError(MasError):
    """A plan that cannot be run. ``reasons`` lists every fault, one sentence each."""

    def __init__(
        self, message: str, *, reasons: tuple[str, ...], hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint, evidence="\n".join(reasons))
        self.reasons = reasons

    def __reduce__(self) -> tuple[object, ...]:
        return (_plan_error, (self.message, self.reasons, self.hint))


def _plan_error(message: str, reasons: tuple[str, ...], hint: str) -> PlanError:
    return PlanError(message, reasons=reasons, hint=hint)


class ProtocolError(MasError):
    """The other end of a pipe broke the protocol of frames."""


class AgentError(MasError):
    """An agent process that could not be used."""


class StoreError(MasError):
    """PostgreSQL or Redis refused, or is not there."""

    exit_code = 3


class OutageError(StoreError):
    """PostgreSQL stayed away longer than is allowed: the task waits for a resume."""

    exit_code = 4


class BudgetError(MasError):
    """The task may use no more than it has used: it waits for a larger budget."""

    exit_code = 4


class OwnershipLostError(StoreError):
    """Another supervisor owns this task now: nothing more may be written for it."""

    exit_code = 1
