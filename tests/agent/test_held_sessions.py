"""A session whose request waits for its turn at Claude is silent, and not given up."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from mas.model import FailureKind
from mas.testing import Conversation, Fault, ScriptedClaude, Turn, TurnLike, tool_use
from mas.wire.messages import AttemptDone, HoldAttempt, StopAttempt
from tests.agent.harness import IMPATIENT, Agent, agent
from tests.agent.orders import a_configuration, an_order, result_json

pytestmark = pytest.mark.usefixtures("leaves_no_process")

LIMIT_S = 3.0
LATE_S = 5.0
"""When the first byte comes: later than the limit of silence."""

Step: TypeAlias = TurnLike | Fault
Asked: TypeAlias = Callable[[int], Awaitable[None]]


def bash(command: str) -> list[dict[str, Any]]:
    return [tool_use("Bash", command=command)]


LAST = bash(f"cat > output/result.json <<'END'\n{result_json()}\nEND")


def hold(is_held: bool, attempt: int = 1) -> HoldAttempt:
    return HoldAttempt(subtask_id="count", attempt=attempt, is_held=is_held)


async def attempted(
    folder: Path, turns: list[Step], during: Callable[[Agent, Asked], Awaitable[None]]
) -> AttemptDone:
    """How the attempt ends while ``during`` goes on; the second argument of that waits
    until Claude has been asked so often."""
    with ScriptedClaude([Conversation("Count the things", turns)]) as claude:

        async def asked(times: int) -> None:
            def wait() -> None:
                enough = lambda: len(claude.requests) >= times  # noqa: E731
                claude.wait_until(enough, timeout_s=30)

            await anyio.to_thread.run_sync(wait)

        configuration = a_configuration(
            folder / "config", base_url=claude.url, inactivity_timeout_s=LIMIT_S
        )
        async with agent(configuration, IMPATIENT) as it:
            await it.send(an_order(folder / "count"))
            await during(it, asked)
            done = await it.next(AttemptDone)
            assert it.children() == []
    assert claude.errors == []
    return done


async def test_while_it_is_held_silence_means_nothing(tmp_path: Path) -> None:
    async def during(it: Agent, asked: Asked) -> None:
        await asked(1)
        await it.send(hold(True))
        await asked(2)
        await it.send(hold(False))

    turns: list[Step] = [Turn(LAST, delay_s=LATE_S), "Done."]
    done = await attempted(tmp_path, turns, during)
    assert (done.failure, done.error) == (None, None)


async def test_let_go_it_is_given_up_for_silence_again(tmp_path: Path) -> None:
    released_at: list[float] = []

    async def during(it: Agent, asked: Asked) -> None:
        await asked(1)
        await it.send(hold(True))
        await asked(2)
        await it.send(hold(False))
        released_at.append(anyio.current_time())

    turns: list[Step] = [
        Turn(bash("echo first > output/log"), delay_s=LATE_S),
        Fault.hang(),
    ]
    done = await attempted(tmp_path, turns, during)
    assert done.failure is FailureKind.INACTIVITY
    assert done.error == "nothing was heard from Claude for 3 s"
    assert anyio.current_time() - released_at[0] >= LIMIT_S, "the silence begins anew"
    assert (tmp_path / "count/output/log").read_text() == "first\n"


@pytest.mark.parametrize("message", [None, hold(True, attempt=2), hold(False)])
async def test_unless_it_is_held_itself_silence_ends_it(
    tmp_path: Path, message: HoldAttempt | None
) -> None:
    async def during(it: Agent, asked: Asked) -> None:
        await asked(1)
        if message is not None:
            await it.send(message)

    done = await attempted(tmp_path, [Turn(LAST, delay_s=60)], during)
    assert done.failure is FailureKind.INACTIVITY


async def test_a_held_attempt_can_be_stopped(tmp_path: Path) -> None:
    async def during(it: Agent, asked: Asked) -> None:
        await asked(1)
        await it.send(hold(True))
        await it.send(StopAttempt(subtask_id="count", attempt=1, reason="enough"))

    done = await attempted(tmp_path, [Fault.hang()], during)
    assert (done.failure, done.error) == (FailureKind.CANCELLED, "enough")
