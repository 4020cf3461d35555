"""The agent as a process: its pipe, its end, and what it leaves behind: nothing."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import msgspec
import psutil
import pytest
from msgspec import structs

from mas.model import FailureKind
from mas.testing import Conversation, ScriptedClaude, TurnLike, tool_use
from mas.wire.framing import frame
from mas.wire.messages import (
    AttemptDone,
    Heartbeat,
    Shutdown,
    StopAttempt,
    encode,
)
from tests.agent.harness import COMMAND, Agent, agent
from tests.agent.orders import a_configuration, an_order, result_json

pytestmark = pytest.mark.usefixtures("leaves_no_process")


@asynccontextmanager
async def busy_agent(
    folder: Path, heartbeat_s: float = 10, inactivity_timeout_s: float = 30
) -> AsyncIterator[Agent]:
    """An agent in the middle of a Bash command, with a child that called setsid.

    The command makes the file ``trapped`` when it is asked to end, before it is killed.
    """
    started = folder / "started"
    command = (
        "setsid nohup sleep 301 >/dev/null 2>&1 & "
        f"trap 'echo > {folder / 'trapped'}; exit' TERM; echo > {started}; "
        "sleep 300 & wait"
    )
    turns: list[TurnLike] = [
        [tool_use("Bash", command=command, timeout=200_000)],
        "No.",
    ]
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        configuration = a_configuration(
            folder / "config",
            base_url=claude.url,
            inactivity_timeout_s=inactivity_timeout_s,
        )
        async with agent(structs.replace(configuration, heartbeat_s=heartbeat_s)) as it:
            await it.send(an_order(folder / "count"))
            await it.activity("setsid nohup sleep 301")
            await eventually(started.exists)
            yield it


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what other processes do and announce to nobody."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.02)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within five seconds."""
    return not psutil.wait_procs(processes, timeout=5)[1]


async def test_a_stopped_attempt_leaves_no_process(tmp_path: Path) -> None:
    async with busy_agent(tmp_path) as it:
        children = it.children()
        assert len(children) >= 3
        await _misdirected_orders_change_nothing(it, tmp_path)
        stop = StopAttempt(
            subtask_id="count", attempt=1, reason="the task was cancelled"
        )
        await it.send(stop)
        done = await it.next(AttemptDone, deadline_s=5)
        assert it.children() == []
        assert not any(child.is_running() for child in children)
    assert done.failure is FailureKind.CANCELLED
    assert done.error == "the task was cancelled"
    assert done.usage.tokens > 0


async def _misdirected_orders_change_nothing(it: Agent, folder: Path) -> None:
    await it.send(StopAttempt(subtask_id="count", attempt=2, reason="late"))
    await it.send(StopAttempt(subtask_id="other", attempt=1, reason="late"))
    done = await it.run(an_order(folder / "sum", attempt=7))
    assert (done.attempt, done.failure) == (7, FailureKind.INTERNAL)
    assert "still busy with count" in (done.error or "")


async def test_a_cli_that_hangs_is_killed_after_its_silence(tmp_path: Path) -> None:
    async with busy_agent(tmp_path, inactivity_timeout_s=3) as it:
        for child in psutil.Process(it.pid).children():
            child.suspend()
        # The SDK would give it 10 s more before it kills.
        done = await it.next(AttemptDone, deadline_s=12)
        assert it.children() == []
    assert done.failure is FailureKind.INACTIVITY


async def test_a_cli_that_hangs_can_be_stopped(tmp_path: Path) -> None:
    async with busy_agent(tmp_path) as it:
        for child in psutil.Process(it.pid).children():
            child.suspend()
        await it.send(StopAttempt(subtask_id="count", attempt=1, reason="enough"))
        done = await it.next(AttemptDone, deadline_s=9)
        assert it.children() == []
    assert (done.failure, done.error) == (FailureKind.CANCELLED, "enough")


async def test_an_attempt_can_be_stopped_before_it_has_really_begun(
    tmp_path: Path,
) -> None:
    async with agent(a_configuration(tmp_path / "config")) as it:
        for attempt in (1, 2):  # before the SDK is loaded, and while the CLI starts
            await it.send(an_order(tmp_path / "count", attempt=attempt))
            if attempt == 2:
                await eventually(it.children)
            await it.send(StopAttempt(subtask_id="count", attempt=attempt, reason="no"))
            done = await it.next(AttemptDone, deadline_s=6)
            assert (done.attempt, done.failure) == (attempt, FailureKind.CANCELLED)
            assert it.children() == []


async def test_heartbeats_go_on_and_measure_the_whole_tree(tmp_path: Path) -> None:
    async with busy_agent(tmp_path, heartbeat_s=0.2) as it:
        beat = await it.next(Heartbeat)
        while beat.subtask_id != "count":
            beat = await it.next(Heartbeat)
        # The CLI alone takes 200 MiB.
        assert beat.memory_mib > 200
        assert beat.cpu_percent >= 0
        assert beat.tasks_completed == 0


async def say_shutdown(it: Agent) -> None:
    await it.send(Shutdown())


async def close_pipe(it: Agent) -> None:
    await it.close_stdin()


async def send_sigterm(it: Agent) -> None:
    it.process.send_signal(signal.SIGINT)  # Ctrl-C is the supervisor's
    it.process.send_signal(signal.SIGTERM)


ENDS = [(say_shutdown, 0), (close_pipe, 0), (send_sigterm, 143)]


@pytest.mark.parametrize(("end", "code"), ENDS)
async def test_an_end_interrupts_the_session_and_leaves_nothing(
    tmp_path: Path, end: Callable[[Agent], Awaitable[None]], code: int
) -> None:
    async with busy_agent(tmp_path) as it:
        children = it.children()
        await end(it)
        assert await it.ended() == code
        assert gone(children)
        assert it.said(AttemptDone) == []
    assert (tmp_path / "trapped").exists()
    assert it.stderr == b""


@pytest.mark.parametrize(("end", "code"), ENDS)
async def test_a_cli_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, end: Callable[[Agent], Awaitable[None]], code: int
) -> None:
    async with busy_agent(tmp_path) as it:
        children = it.children()
        for child in psutil.Process(it.pid).children():
            child.suspend()
        await end(it)
        assert await it.ended() == code
        assert gone(children)


async def test_shutdown_ends_it() -> None:
    async with agent() as it:
        await it.send(Shutdown())
        assert await it.ended() == 0
    assert it.stderr == b""


async def test_a_hangup_ends_it() -> None:
    async with agent(a_configuration(Path("/nowhere"))) as it:
        await it.next(Heartbeat)
        it.process.send_signal(signal.SIGHUP)
        assert await it.ended() == 128 + signal.SIGHUP


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xff\xff\xff", "a frame announces 4294967295 bytes"),
        (frame(b"not msgpack"), "a message that cannot be read"),
        (
            frame(msgspec.msgpack.encode({"t": "dance"})),
            "a message that cannot be read",
        ),
    ],
)
async def test_a_broken_frame_ends_it_with_a_line_on_stderr(
    data: bytes, words: str
) -> None:
    async with agent() as it:
        await it.send_bytes(data)
        assert await it.ended() == 1
    lines = it.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("agent_1: the supervisor ")
    assert words in lines[0]


async def test_a_pipe_that_ends_inside_a_frame_is_told() -> None:
    async with agent() as it:
        await it.send_bytes(b"\0\0")
        await it.close_stdin()
        assert await it.ended() == 1
    assert b"ended 2 bytes into a frame" in it.stderr


async def test_an_order_before_the_configuration_is_answered(tmp_path: Path) -> None:
    async with agent() as it:
        done = await it.run(an_order(tmp_path / "count"))
    assert done.failure is FailureKind.INTERNAL
    assert "before its configuration" in (done.error or "")


STRAY = """
import atexit, os, sys, threading
print("a banner", flush=True)
os.write(1, b"and bytes\\n")

def stray(event, arguments):
    if event == "subprocess.Popen":
        print("a stray print", flush=True)
        os.write(1, b"stray bytes\\n")
        threading.stack_size()
sys.addaudithook(stray)
"""


async def test_stray_prints_never_break_frames(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STRAY)
    write = f"cat > output/result.json <<'END'\n{result_json()}\nEND"
    turns: list[TurnLike] = [[tool_use("Bash", command=write)], "Done."]
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        configuration = a_configuration(tmp_path / "config", base_url=claude.url)
        path = str(tmp_path / "site")
        async with agent(configuration, {"PYTHONPATH": f"{path}:{Path.cwd()}"}) as it:
            done = await it.run(an_order(tmp_path / "count"))
    assert (done.failure, done.error) == (None, None)
    assert it.preamble == b"a banner\nand bytes\n"
    assert b"stray bytes" in it.stderr


async def test_nothing_secret_of_its_environment_reaches_a_command(
    tmp_path: Path,
) -> None:
    secrets = {
        "ANTHROPIC_AUTH_TOKEN": "s3cret",
        "DATABASE_URL": "postgresql://u:s3cret@h/d",
        "POSTGRES_PASSWORD": "s3cret",
        "REDIS_URL": "redis://:s3cret@h",
        "PGPASSWORD": "s3cret",
    }
    show = "env > output/env.txt; command -v python3 > output/python.txt"
    write = f"cat > output/result.json <<'END'\n{result_json()}\nEND"
    turns: list[TurnLike] = [[tool_use("Bash", command=f"{show}\n{write}")], "Done."]
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:
        configuration = a_configuration(tmp_path / "config", base_url=claude.url)
        async with agent(configuration, secrets) as it:
            await it.run(an_order(tmp_path / "count"))
    output = tmp_path / "count" / "output"
    assert "s3cret" not in (output / "env.txt").read_text()
    assert Path((output / "python.txt").read_text().strip()).parent == (
        Path(COMMAND[0]).parent
    )


async def test_a_full_pipe_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    process = await anyio.open_process(
        COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=os.environ
    )
    async with process:
        assert process.stdin is not None
        # Each is answered, not configured as it is; nobody reads the answers.
        await process.stdin.send(frame(encode(an_order(tmp_path / "count"))) * 5_000)
        await process.stdin.aclose()
        with anyio.fail_after(10):
            assert await process.wait() == 0


STUCK = """
import sys, time
from mas.agent import worker

async def run(self, inbox):
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(60)

worker.Worker.run = run
worker.serve("agent_1", 0, 1)
"""


@pytest.mark.parametrize("says_shutdown", [True, False])
async def test_an_end_is_noticed_while_the_loop_is_stuck(
    *, says_shutdown: bool
) -> None:
    process = await anyio.open_process([sys.executable, "-c", STUCK])
    async with process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert await process.stderr.receive(5) == b"stuck"
        if says_shutdown:
            await process.stdin.send(frame(encode(Shutdown())))
        else:
            await process.stdin.aclose()
        with anyio.fail_after(10):
            assert await process.wait() == 0


CRASHING = """
import subprocess
from mas.agent import worker

async def run(self, inbox):
    subprocess.Popen(["sleep", "302"])
    raise ValueError("a bug")

worker.Worker.run = run
worker.serve("agent_1", 0, 1)
"""


async def test_a_bug_of_its_own_ends_it_with_a_line_and_without_a_child() -> None:
    process = await anyio.open_process([sys.executable, "-c", CRASHING])
    async with process:
        with anyio.fail_after(10):
            assert await process.wait() == 1
        assert process.stderr is not None
        assert await process.stderr.receive() == b"agent_1 failed: ValueError: a bug\n"


WITHOUT_SDK = """
import sys
sys.modules["claude_agent_sdk"] = None
"""


async def test_an_sdk_that_cannot_be_loaded_is_told_with_every_attempt(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SDK)
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    async with agent(a_configuration(tmp_path / "config"), path) as it:
        for attempt in (1, 2):
            done = await it.run(an_order(tmp_path / "count", attempt=attempt))
            assert (done.attempt, done.failure) == (attempt, FailureKind.INTERNAL)
            assert "the Claude Agent SDK cannot be loaded" in (done.error or "")


async def test_by_hand_it_says_what_it_is() -> None:
    result = await anyio.run_process([*COMMAND, "--help"])
    assert b"started by mas" in result.stdout


_PARENT = """
import subprocess, sys
configuration, *command = sys.argv[1:]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write(bytes.fromhex(configuration))
child.stdin.flush()
said = b""
while b"heartbeat" not in said:
    said += child.stdout.read(1)
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a stopped child")
async def test_a_stopped_agent_ends_with_its_supervisor(tmp_path: Path) -> None:
    configuration = frame(encode(a_configuration(tmp_path / "config"))).hex()
    command = [sys.executable, "-c", _PARENT, configuration, *COMMAND]
    async with await anyio.open_process(command, stdout=PIPE, stdin=DEVNULL) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(30):
            stopped = psutil.Process(int(await parent.stdout.receive()))
        stopped.suspend()
        await eventually(lambda: stopped.status() == psutil.STATUS_STOPPED)
        parent.kill()
        assert gone([stopped])
