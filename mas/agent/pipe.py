"""The agent's ends of the pipe: one thread reads frames, one writes them.

Threads and not tasks, so that the supervisor's end is noticed and a full pipe is borne
even while the event loop is busy. Neither ends before the process does.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from mas.errors import ProtocolError
from mas.wire.framing import FrameDecoder, frame
from mas.wire.messages import (
    AttemptDone,
    FromAgent,
    Log,
    ToAgent,
    decode_to_agent,
    encode,
)

MAX_QUEUED_BYTES = 2**20
"""How much of what may be lost waits for a blocked pipe; beyond it, it is dropped."""

_READ_BYTES = 2**16


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, however the pipe cuts it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Outbox:
    """Sends messages to the supervisor without ever making the sender wait."""

    def __init__(self, fd: int, *, on_broken: Callable[[], object]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped: Counter[str] = Counter()
        self._closed = False
        self._changed = threading.Condition()

    def start(self) -> None:
        threading.Thread(target=self._run, name="mas-outbox", daemon=True).start()

    def send(self, message: FromAgent) -> None:
        """Queue ``message``; drop and count it where the pipe is stuck.

        ``AttemptDone`` is never dropped. May be called from any thread.
        """
        data = frame(encode(message))
        with self._changed:
            if isinstance(message, AttemptDone):
                self._append(data)
            elif self._queued_bytes + len(data) <= MAX_QUEUED_BYTES:
                self._queued_bytes += len(data)
                self._append(data)
            else:
                self._dropped[type(message).__name__.lower()] += 1

    def close(self) -> None:
        """Send nothing more: what is said from now on is about the end itself."""
        with self._changed:
            self._closed = True
            self._queue.clear()

    def _append(self, data: bytes) -> None:
        if not self._closed:
            self._queue.append(data)
            self._changed.notify()

    def _take(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._queue)
            if self._dropped:
                self._append(frame(encode(self._drop_report())))
                self._dropped.clear()
            batch = b"".join(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            return batch

    def _drop_report(self) -> Log:
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(self._dropped.items()))
        message = f"the pipe to the supervisor was stuck; frames dropped: {counts}"
        return Log(level="warning", message=message, at=datetime.now(UTC))

    def _run(self) -> None:
        while True:
            batch = self._take()
            try:
                write_all(self._fd, batch)
            except OSError:
                self._on_broken()
                return


def read_messages(fd: int, deliver: Callable[[ToAgent], object]) -> str:
    """Deliver every message until the stream ends; return why it did, "" for EOF."""
    decoder = FrameDecoder()
    try:
        while data := os.read(fd, _READ_BYTES):
            for payload in decoder.feed(data):
                deliver(decode_to_agent(payload))
        decoder.close()
    except ProtocolError as error:
        return f"the supervisor broke the protocol: {error}"
    except msgspec.MsgspecError as error:
        return f"the supervisor sent a message that cannot be read: {error}"
    except OSError as error:
        return f"the pipe from the supervisor cannot be read: {error}"
    return ""
