"""What a run that breaks off says, from whatever error ended it."""

from typing import TypeVar

from mas.core.events import TaskSuspended
from mas.errors import MasError, OwnershipLostError

_Error = TypeVar("_Error", bound=Exception)


def broken_off(failure: Exception, *, hint: str) -> TaskSuspended:
    """The word on why the work stops; ``hint`` is how it goes on, if it can here."""
    cause = cause_of(failure, MasError)
    told = cause.message if cause else "it broke off"
    lost = isinstance(cause, OwnershipLostError)
    return TaskSuspended(reason=told, hint=cause.hint if cause and lost else hint)


def cause_of(error: Exception, kind: type[_Error]) -> _Error | None:
    """The first error of this kind, however many task groups are around it."""
    if isinstance(error, kind):
        return error
    if isinstance(error, ExceptionGroup):
        return next((it for e in error.exceptions if (it := cause_of(e, kind))), None)
    return None
