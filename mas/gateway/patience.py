"""A deadline that stands still while nothing can be done about it."""

import anyio


class Patience:
    """``with patience.scope`` ends after ``timeout_s``, less the time it is held.

    The scope's ``cancelled_caught`` says whether it did.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.scope = anyio.CancelScope(deadline=anyio.current_time() + timeout_s)
        self._left_s: float | None = None

    def hold(self, is_held: bool) -> None:
        """Stop the clock, or let it go on."""
        now = anyio.current_time()
        if is_held and self._left_s is None:
            self._left_s = self.scope.deadline - now
            self.scope.deadline = float("inf")
        elif not is_held and self._left_s is not None:
            self.scope.deadline = now + self._left_s
            self._left_s = None
