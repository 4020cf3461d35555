"""The pipe's ends: nothing blocks the sender, and what must arrive arrives."""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from mas.agent.pipe import MAX_QUEUED_BYTES, Outbox, read_messages
from mas.model import FailureKind
from mas.wire.framing import FrameDecoder, frame
from mas.wire.messages import (
    AttemptDone,
    FromAgent,
    Log,
    Progress,
    Shutdown,
    ToAgent,
    decode_from_agent,
    encode,
)

DEADLINE_S = 10
PROGRESS = Progress(subtask_id="count", attempt=1, activity="x" * 10_000)
DONE = AttemptDone(subtask_id="count", attempt=1, result=b"r" * 3 * 2**20)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pipe's read and write end."""
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with suppress(OSError):  # the test may have closed it
            os.close(descriptor)


def messages(fd: int, *kinds: type[FromAgent]) -> list[FromAgent]:
    """Read until a message of each kind has come."""
    decoder, found = FrameDecoder(), list[FromAgent]()
    os.set_blocking(fd, False)
    while not all(any(isinstance(it, kind) for it in found) for kind in kinds):
        assert select.select([fd], [], [], DEADLINE_S)[0], "nothing more came"
        found += [decode_from_agent(it) for it in decoder.feed(os.read(fd, 65_536))]
    return found


def test_messages_arrive_in_their_order(ends: tuple[int, int]) -> None:
    read, write = ends
    outbox = Outbox(write, on_broken=lambda: None)
    outbox.start()
    sent = [
        Log(level="info", message=f"{n} \0\x1b[31m", at=datetime.now(UTC))
        for n in range(100)
    ]
    for message in sent:
        outbox.send(message)
    outbox.send(DONE)
    assert messages(read, AttemptDone) == [*sent, DONE]


def test_a_stuck_pipe_drops_what_may_be_lost_and_says_how_much(
    ends: tuple[int, int],
) -> None:
    read, write = ends
    outbox = Outbox(write, on_broken=lambda: None)
    outbox.start()
    for _ in range(500):
        outbox.send(PROGRESS)
    outbox.send(DONE)
    arrived = messages(read, AttemptDone, Log)
    assert arrived.count(DONE) == 1
    lost = 500 - arrived.count(PROGRESS)
    assert lost * 10_000 > 500 * 10_000 - 2 * MAX_QUEUED_BYTES
    (report,) = [it for it in arrived if isinstance(it, Log)]
    assert f"frames dropped: {lost} progress" in report.message


def test_room_in_the_pipe_is_used_again(ends: tuple[int, int]) -> None:
    read, write = ends
    outbox = Outbox(write, on_broken=lambda: None)
    outbox.start()
    for _ in range(5):
        for _ in range(MAX_QUEUED_BYTES // 11_000):
            outbox.send(PROGRESS)
        outbox.send(DONE)
        assert len(messages(read, AttemptDone)) == MAX_QUEUED_BYTES // 11_000 + 1


def test_a_supervisor_that_is_gone_is_noticed_by_writing(
    ends: tuple[int, int],
) -> None:
    read, write = ends
    broken = threading.Event()
    outbox = Outbox(write, on_broken=broken.set)
    outbox.start()
    os.close(read)
    outbox.send(DONE)
    assert broken.wait(DEADLINE_S)


def test_nothing_is_said_after_the_end(ends: tuple[int, int]) -> None:
    read, write = ends
    outbox = Outbox(write, on_broken=lambda: None)
    outbox.close()
    outbox.send(DONE)
    outbox.start()
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)


def read_all(data: bytes) -> tuple[list[ToAgent], str]:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    found = list[ToAgent]()
    reason = read_messages(read, found.append)
    os.close(read)
    return found, reason


def test_reading_ends_with_the_stream() -> None:
    assert read_all(frame(encode(Shutdown())) * 2) == ([Shutdown()] * 2, "")


def test_reading_ends_at_what_is_no_message() -> None:
    done = AttemptDone(subtask_id="a", attempt=1, failure=FailureKind.INTERNAL)
    found, reason = read_all(frame(encode(Shutdown())) + frame(encode(done)))
    assert found == [Shutdown()]
    assert "cannot be read" in reason


def test_a_pipe_that_cannot_be_read_says_so() -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    assert "Bad file descriptor" in read_messages(read, lambda _: None)
