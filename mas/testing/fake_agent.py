"""A fake agent: a real process that speaks the frames and does what its subtask says.

It stands where an agent's process, pipes and failures matter and Claude does not. A
subtask's ``input_data["acts"]`` lists what the attempts do, the last one for all later:

``ok`` (the default)       a result.json's bytes: ``input_data["data"]`` as its data, or
                           as many characters as ``input_data["size"]``
``fail``                   success false
``no_result``, ``auth``    that failure
``crash``                  exit code 3, in mid-attempt
``garbage``                bytes that are no frame
``bad_text``               a frame whose text is no UTF-8
``huge``                   the header of a frame over the limit
``bad_result``             bytes that are no result.json
``hang``                   nothing until it is told to stop
``deaf``                   nothing, not even then
``late``                   a result for an attempt that it was not given, then ``ok``
``gate:PATH``              waits until PATH, a named pipe, is written to, then ``ok``

``FAKE_AGENT_START`` in the environment, as ``agent_1=silent,agent_2=exit``, says how
agents start: ``silent`` (no hello), ``exit`` (dies), ``version`` (of another protocol),
``print`` (talks before the hello), ``babble`` (no frames).
"""

import os
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from mas.model import FailureKind, Usage
from mas.wire.framing import MARKER, MAX_FRAME_BYTES, FrameDecoder, frame
from mas.wire.messages import (
    PROTOCOL_VERSION,
    AttemptDone,
    Configure,
    FromAgent,
    Heartbeat,
    Hello,
    Progress,
    RunAttempt,
    Shutdown,
    StopAttempt,
    decode_to_agent,
    encode,
)

_READ_BYTES = 65536
_USAGE = Usage(input_tokens=100, output_tokens=20, cost_usd=0.001)


class FakeAgent:
    """One agent on a pair of binary streams, until Shutdown or the end of input."""

    def __init__(self, agent_id: str, source: BinaryIO, sink: BinaryIO) -> None:
        self._id = agent_id
        self._source = source
        self._sink = sink
        self._current: RunAttempt | None = None
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
        while data := os.read(self._source.fileno(), _READ_BYTES):
            for payload in decoder.feed(data):
                message = decode_to_agent(payload)
                if isinstance(message, Shutdown):
                    return
                self._obey(message)

    def _obey(self, message: Configure | RunAttempt | StopAttempt) -> None:
        if isinstance(message, Configure):
            self._say(
                Heartbeat(
                    cpu_percent=1.0, memory_mib=2.0, subtask_id=None, tasks_completed=0
                )
            )
        elif isinstance(message, RunAttempt):
            self._current = message
            acts = message.subtask.input_data.get("acts") or ["ok"]
            self._act(acts[min(message.attempt, len(acts)) - 1], message)
        elif not self._deaf:
            self._done(failure=FailureKind.CANCELLED, error=message.reason)

    def _act(self, act: str, attempt: RunAttempt) -> None:
        if act.startswith("gate:"):
            with open(act.removeprefix("gate:"), "rb") as pipe:  # noqa: PTH123 - a pipe
                pipe.read(1)
            act = "ok"
        match act:
            case "ok":
                self._done(result=_result(attempt, success=True))
            case "late":
                self._say(
                    AttemptDone(
                        subtask_id=attempt.subtask.id,
                        attempt=attempt.attempt + 7,
                        result=_result(attempt, success=True),
                    )
                )
                self._done(result=_result(attempt, success=True))
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
            case "garbage":
                self._sink.write(b"\0\0\0\4oops")
                self._sink.flush()
            case "bad_text":
                said = Progress(
                    subtask_id=attempt.subtask.id,
                    attempt=attempt.attempt,
                    activity="text",
                )
                self._sink.write(
                    frame(encode(said).replace(b"text", b"\xff\xff\xff\xff"))
                )
                self._sink.flush()
            case "huge":
                self._sink.write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
                self._sink.flush()
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
        self._sink.write(frame(encode(message)))
        self._sink.flush()


def _result(attempt: RunAttempt, *, success: bool) -> bytes:
    return msgspec.json.encode(
        {
            "success": success,
            "data": _data(attempt.subtask.input_data),
            "summary": f"{attempt.subtask.id} by attempt {attempt.attempt}",
            "files_created": [],
        }
    )


def _data(given: dict[str, Any]) -> dict[str, Any]:
    if "size" in given:
        return {"filler": "x" * int(given["size"])}
    data: dict[str, Any] = given.get("data", {})
    return data


def main() -> None:
    """``python -m mas.testing.fake_agent --id agent_1``."""
    agent_id = sys.argv[sys.argv.index("--id") + 1]
    starts = os.environ.get("FAKE_AGENT_START", "")
    by_agent = dict(pair.split("=") for pair in starts.split(",") if pair)
    start = by_agent.get(agent_id, by_agent.get("all", ""))
    FakeAgent(agent_id, sys.stdin.buffer, sys.stdout.buffer).run(start)


if __name__ == "__main__":
    main()
