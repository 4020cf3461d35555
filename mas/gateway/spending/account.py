"""What each call takes, from the moment it is sent: between meter and ledger."""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct, structs

from mas.gateway.exchange import Request, Response
from mas.gateway.spending.budget import Budget
from mas.gateway.spending.ledger import Ledger
from mas.gateway.spending.meter import Meter
from mas.gateway.spending.prices import Prices
from mas.model import CallState, ModelCall

_LOOK_EVERY_S = 0.5
"""Between two looks at what a running answer has used."""
_MODEL_CHARACTERS = 200
_SUBAGENT = b"x-claude-code-agent-id"


class Book:
    """Opens an account for each call; what it takes goes to ledger and budget.

    ``notice`` hears what a person should know: an unknown price. ``warn`` hears of a
    budget nearly used, and is ``notice`` where it is not given.
    """

    def __init__(
        self,
        ledger: Ledger,
        budget: Budget,
        prices: Prices,
        notice: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._budget = budget
        self._prices = prices
        self._notice = notice
        self._warn = warn or notice
        self._unpriced: set[str] = set()

    def open(self, request: Request, *, held_s: float) -> "Account":
        """The call is being sent now."""
        caller = request.caller
        call = ModelCall(
            id=uuid.uuid4().hex,
            task_id=caller.task_id,
            subtask_id=caller.subtask_id,
            attempt=caller.attempt,
            agent_id=caller.agent_id,
            subagent=request.header(_SUBAGENT) or None,
            path=request.path,
            model=model_of(request.body),
            started_at=datetime.now(UTC),
            held_s=held_s,
        )
        self._ledger.begin(call)
        return Account(call, self._prices, self._changed)

    def _changed(self, call: ModelCall) -> None:
        if call.state is CallState.OPEN:
            self._ledger.update(call)
            self._budget.run(call.id, call.usage)
        else:
            self._ledger.end(call)
            self._budget.settle(call.id, call.usage)
        if call.usage.unpriced_tokens and call.model not in self._unpriced:
            self._unpriced.add(call.model)
            self._notice(
                f"the price of {call.model} is not known: its tokens are counted, its "
                f'cost is not; add [prices."{call.model}"] to mas.toml'
            )
        if warning := self._budget.warning():
            self._warn(warning)


class Account:
    """One call, until it is closed."""

    def __init__(
        self, call: ModelCall, prices: Prices, changed: Callable[[ModelCall], None]
    ) -> None:
        self._call = call
        self._prices = prices
        self._changed = changed
        self._began = self._looked = time.monotonic()
        self._first_byte_s: float | None = None
        self._meter: Meter | None = None
        self._is_complete = False
        self._error: str | None = None

    def answered(self, response: Response) -> None:
        """Status and headers are there."""
        self._meter = Meter(
            response.status, response.headers, self._prices, self._call.model
        )
        self._first_byte_s = time.monotonic() - self._began

    def read(self, chunk: bytes) -> None:
        """A part of the answer came."""
        assert self._meter is not None
        knew_input = self._meter.has_begun
        self._meter.feed(chunk)
        now = time.monotonic()
        if not knew_input or now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            self._changed(self._state(CallState.OPEN))

    def complete(self) -> None:
        """The answer has come to its end."""
        self._is_complete = True

    def fail(self, error: str) -> None:
        """Why there is no answer, or no more of it."""
        self._error = error

    def close(self) -> None:
        """The call has ended, however; what it used stands now."""
        if self._meter is None:
            state = CallState.UNANSWERED
        elif self._meter.status >= 400:
            state = CallState.REFUSED
        else:
            self._meter.end(self._is_complete)
            whole = self._is_complete and self._meter.is_complete
            state = CallState.COMPLETE if whole else CallState.CUT
        ended = self._state(state)
        took_s = time.monotonic() - self._began
        self._changed(structs.replace(ended, duration_s=took_s))

    def _state(self, state: CallState) -> ModelCall:
        meter = self._meter
        if meter is None:
            return structs.replace(self._call, state=state, error=self._error)
        return structs.replace(
            self._call,
            state=state,
            http_status=meter.status,
            model=meter.model,
            usage=meter.usage,
            first_byte_s=self._first_byte_s,
            error=self._error or meter.error,
        )


class _Head(Struct):
    model: str = ""


_decode_head = msgspec.json.Decoder(_Head).decode


def model_of(body: bytes) -> str:
    """The model that a request names, within reason; empty where it names none."""
    try:
        return _decode_head(body).model[:_MODEL_CHARACTERS]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
