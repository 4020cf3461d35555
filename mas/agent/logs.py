"""What the agent logs, as frames: the supervisor writes them to ``agent_logs``."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from mas.wire.messages import Log

MAX_MESSAGE_CHARS = 8_000
"""A longer record, a traceback over a huge repr for instance, is cut in its middle."""


def shortened(text: str, limit: int) -> str:
    """Return ``text``, cut in its middle where it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} […{len(text) - 2 * half} characters…] {text[-half:]}"


class FrameHandler(logging.Handler):
    """Sends every record as a ``Log`` frame, text unchanged."""

    def __init__(
        self, send: Callable[[Log], object], subtask: Callable[[], str | None]
    ) -> None:
        super().__init__()
        self._send = send
        self._subtask = subtask

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = Log(
                level=_level(record.levelno),
                message=shortened(self.format(record), MAX_MESSAGE_CHARS),
                at=datetime.fromtimestamp(record.created, UTC),
                subtask_id=self._subtask(),
            )
            self._send(message)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted; logging's own way
            self.handleError(record)


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
