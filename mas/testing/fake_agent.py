"""A fake agent: a real process that speaks the frames and does what its subtask says.

It stands where an agent's process, pipes and failures matter and Claude does not. A
subtask's ``input_data["acts"]`` lists what the attempts do, the last one for all later:

``ok`` (the default)       a result.json's bytes: ``input_data["data"]`` as its data, or
                           as many characters as ``input_data["size"]``
``slow:MS``                ``ok`` after so many milliseconds, unless it is told to stop
``fail``                   success false
``no_result``, ``auth``    that failure
``crash``                  exit code 3, in mid-attempt
``leave``                  the same, but its result.json is written
``stop``                   stops itself, as SIGSTOP does: it is there and says nothing
``garbage``                bytes that are no frame
``bad_text``               a frame whose text is no UTF-8
``huge``                   the header of a frame over the limit
``bad_result``             bytes that are no result.json
``hang``                   nothing until it is told to stop
``deaf``                   nothing, not even then
``late``                   a result for an attempt that it was not given, then ``ok``
``twice``                  a failure, and then a result for the same attempt after all
``gate:PATH``              waits until PATH, a named pipe, is written to, then ``ok``

With ``input_data["ledger"]``, a path, it works with files as the real agent does. Each
attempt first prepares the workspace and appends a line of JSON to the ledger, which so
tells what was executed, whoever died when. Its result names a file, and both hold a
digest of the files of its dependencies: see ``digest``.

That an attempt is held, or is not any more, it shows as its activity.

``FAKE_AGENT_START`` in the environment, as ``agent_1=silent,agent_2=exit``, says how
agents start: ``silent`` (no hello), ``exit`` (dies), ``version`` (of another protocol),
``print`` (talks before the hello), ``babble`` (no frames).
"""

import ctypes
import hashlib
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from mas.model import FailureKind, Usage
from mas.wire.framing import MARKER, MAX_FRAME_BYTES, FrameDecoder, frame
from mas.wire.messages import (
    PROTOCOL_VERSION,
    AttemptDone,
    Configure,
    DependencyResult,
    FromAgent,
    Heartbeat,
    Hello,
    HoldAttempt,
    Progress,
    RunAttempt,
    Shutdown,
    StopAttempt,
    decode_to_agent,
    encode,
)

_READ_BYTES = 65536
_PR_SET_PDEATHSIG = 1
_USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.001)


class FakeAgent:
    """One agent on a pair of binary streams, until Shutdown or the end of input."""

    def __init__(self, agent_id: str, source: BinaryIO, sink: BinaryIO) -> None:
        self._id = agent_id
        self._source = source
        self._sink = sink
        self._turn = threading.Lock()
        self._current: RunAttempt | None = None
        self._due_at = 0.0
        self._deaf = False

    def run(self, start: str) -> None:
        """Say hello, as ``start`` wants it, and obey."""
        if start == "exit":
            sys.exit("fake agent: told to die at its start")
        if start == "print":
            self._sink.write(b"Welcome to this machine!\n")
        if start == "babble":
            self._sink.write(b"x" * 100_000)
        if start == "silent":
            self._sink.flush()
            threading.Event().wait()
        version = PROTOCOL_VERSION + (start == "version")
        self._sink.write(MARKER)
        self._say(Hello(protocol=version, agent_id=self._id, pid=os.getpid()))
        decoder = FrameDecoder()
        for data in self._heard():
            for payload in decoder.feed(data):
                message = decode_to_agent(payload)
                if isinstance(message, Shutdown):
                    return
                self._obey(message)

    def _heard(self) -> Iterator[bytes]:
        """What comes down the pipe until its end; what is due meanwhile is done."""
        while True:
            while self._due_at:
                left_s = max(0.0, self._due_at - time.monotonic())
                if any(select.select([self._source], [], [], left_s)):
                    break
                self._due_at = 0.0
                self._complete()
            data = os.read(self._source.fileno(), _READ_BYTES)
            if not data:
                return
            yield data

    def _obey(
        self, message: Configure | RunAttempt | StopAttempt | HoldAttempt
    ) -> None:
        if isinstance(message, Configure):
            beat = threading.Thread(
                target=self._beat, args=[message.heartbeat_s], daemon=True
            )
            beat.start()
        elif isinstance(message, RunAttempt):
            self._current = message
            acts = message.subtask.input_data.get("acts") or ["ok"]
            if _ledger(message):
                _prepare(self._id, message)
            self._act(acts[min(message.attempt, len(acts)) - 1], message)
        elif isinstance(message, HoldAttempt):
            self._say(
                Progress(
                    subtask_id=message.subtask_id,
                    attempt=message.attempt,
                    activity="held" if message.is_held else "not held any more",
                )
            )
        elif not self._deaf:
            self._due_at = 0.0
            self._done(failure=FailureKind.CANCELLED, error=message.reason)

    def _beat(self, heartbeat_s: float) -> None:
        beat = Heartbeat(
            cpu_percent=1.0, memory_mib=2.0, subtask_id=None, tasks_completed=0
        )
        with suppress(BrokenPipeError):  # the supervisor is gone; so shall we be
            while True:
                self._say(beat)
                threading.Event().wait(heartbeat_s)

    def _act(self, act: str, attempt: RunAttempt) -> None:
        if act.startswith("gate:"):
            with open(act.removeprefix("gate:"), "rb") as pipe:  # noqa: PTH123 - a pipe
                pipe.read(1)
            act = "ok"
        if act.startswith("slow:"):
            self._due_at = time.monotonic() + int(act.removeprefix("slow:")) / 1000
            return
        match act:
            case "ok":
                self._complete()
            case "late":
                self._say(
                    AttemptDone(
                        subtask_id=attempt.subtask.id,
                        attempt=attempt.attempt + 7,
                        result=_result(attempt, success=True),
                    )
                )
                self._complete()
            case "twice":
                self._done(failure=FailureKind.NO_RESULT, error="no result.json")
                self._say(
                    AttemptDone(
                        subtask_id=attempt.subtask.id,
                        attempt=attempt.attempt,
                        result=_result(attempt, success=True),
                    )
                )
            case "fail":
                self._done(result=_result(attempt, success=False))
            case "bad_result":
                self._done(result=b"{}")
            case "no_result":
                self._done(failure=FailureKind.NO_RESULT, error="no result.json")
            case "auth":
                self._done(failure=FailureKind.AUTHENTICATION, error="401")
            case "crash":
                sys.stderr.write("fake agent: crashing\n")
                sys.stderr.flush()
                os._exit(3)
            case "leave":
                _result(attempt, success=True)
                os._exit(3)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "garbage":
                self._write(b"\0\0\0\4oops")
            case "bad_text":
                said = Progress(
                    subtask_id=attempt.subtask.id,
                    attempt=attempt.attempt,
                    activity="text",
                )
                self._write(frame(encode(said).replace(b"text", b"\xff\xff\xff\xff")))
            case "huge":
                self._write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
            case "hang" | "deaf":
                self._deaf = act == "deaf"
                self._say(
                    Progress(
                        subtask_id=attempt.subtask.id,
                        attempt=attempt.attempt,
                        activity=f"{act}ing",
                    )
                )
            case _:
                sys.exit(f"fake agent: no such act: {act}")

    def _complete(self) -> None:
        if self._current is not None:
            self._done(result=_result(self._current, success=True))

    def _done(self, **outcome: Any) -> None:
        attempt = self._current
        if attempt is None:
            return
        self._current = None
        self._say(
            AttemptDone(
                subtask_id=attempt.subtask.id,
                attempt=attempt.attempt,
                usage=_USAGE,
                **outcome,
            )
        )

    def _say(self, message: FromAgent) -> None:
        self._write(frame(encode(message)))

    def _write(self, data: bytes) -> None:
        with self._turn:  # a heartbeat never comes in the midst of a frame
            self._sink.write(data)
            self._sink.flush()


def digest(subtask_id: str, needed: Iterable[str]) -> str:
    """What a subtask makes of what the subtasks that it needs have made."""
    parts = "\n".join([subtask_id, *sorted(needed)])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _ledger(attempt: RunAttempt) -> str | None:
    path: str | None = attempt.subtask.input_data.get("ledger")
    return path


def _prepare(agent_id: str, attempt: RunAttempt) -> None:
    """Make the workspace ready as the real agent does, and note the execution."""
    root = Path(attempt.workspace)
    task = root / "context" / "task.json"
    task.unlink(missing_ok=True)
    if not attempt.resumes:
        shutil.rmtree(root / "output", ignore_errors=True)
    for folder in ("context", "output"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    unfinished = task.with_name("task.json.new")
    unfinished.write_bytes(msgspec.json.encode({"attempt": attempt.attempt}))
    unfinished.rename(task)
    line = {
        "subtask_id": attempt.subtask.id,
        "attempt": attempt.attempt,
        "agent_id": agent_id,
        "pid": os.getpid(),
    }
    ledger = os.open(_ledger(attempt) or "", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, msgspec.json.encode(line) + b"\n")  # whole: one write, appended
    os.close(ledger)


def _result(attempt: RunAttempt, *, success: bool) -> bytes:
    """The attempt's result.json; with a ledger it is in the workspace, too."""
    name = attempt.subtask.id
    result = {
        "success": success,
        "data": _data(attempt.subtask.input_data),
        "summary": f"{name} by attempt {attempt.attempt}",
        "files_created": [],
    }
    if not _ledger(attempt):
        return msgspec.json.encode(result)
    made = digest(name, map(_made_by, attempt.dependencies))
    output = Path(attempt.workspace) / "output"
    (output / f"{name}.txt").write_text(made)
    result["data"] = {**_data(attempt.subtask.input_data), "digest": made}
    result["files_created"] = [f"{name}.txt"]
    encoded = msgspec.json.encode(result)
    unfinished = output / "result.json.new"
    unfinished.write_bytes(encoded)
    unfinished.rename(output / "result.json")
    return encoded


def _made_by(dependency: DependencyResult) -> str:
    path = Path(dependency.output_dir, f"{dependency.subtask_id}.txt")
    return path.read_text()


def _data(given: dict[str, Any]) -> dict[str, Any]:
    if "size" in given:
        return {"filler": "x" * int(given["size"])}
    data: dict[str, Any] = given.get("data", {})
    return data


def _wake_when_orphaned() -> None:
    """Go on when the supervisor is gone: stopped, it would not see the pipe's end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


def main() -> None:
    """``python -m mas.testing.fake_agent --id agent_1``."""
    _wake_when_orphaned()
    agent_id = sys.argv[sys.argv.index("--id") + 1]
    starts = os.environ.get("FAKE_AGENT_START", "")
    by_agent = dict(pair.split("=") for pair in starts.split(",") if pair)
    start = by_agent.get(agent_id, by_agent.get("all", ""))
    FakeAgent(agent_id, sys.stdin.buffer, sys.stdout.buffer).run(start)


if __name__ == "__main__":
    main()
