"""An attempt that was cut off goes on in its session: nothing is done or paid twice.

The real CLI against scripted Claude. What Claude has done is seen in ``log``: each
command of the script writes a line there.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import psutil
import pytest
from msgspec import structs

from mas.model import FailureKind
from mas.testing import (
    Conversation,
    Fault,
    Request,
    ScriptedClaude,
    Turn,
    TurnLike,
    text,
    tool_use,
)
from mas.wire.messages import AttemptDone, Configure, PreviousAttempt, RunAttempt
from tests.agent.harness import IMPATIENT, Agent, agent
from tests.agent.orders import a_configuration, an_order, result_json
from tests.support import until

pytestmark = pytest.mark.usefixtures("leaves_no_process")

Step: TypeAlias = TurnLike | Fault

KEY = "# Your subtask (count)"


def bash(command: str, **more: Any) -> list[dict[str, Any]]:
    return [tool_use("Bash", command=command, **more)]


FIRST = bash("echo first | tee -a log")
LAST = bash(f"echo last >> log; cat > output/result.json <<'END'\n{result_json()}\nEND")


def interrupted(request: Request) -> list[dict[str, Any]]:
    """The turn that ends the work, for a Claude that was told to go on."""
    assert "You were interrupted" in request.last_user_text
    assert request.tool_results[0] == "first"
    return LAST


def configured(claude: ScriptedClaude, folder: Path, **changes: Any) -> Configure:
    return a_configuration(folder / "config", base_url=claude.url, **changes)


def following(order: RunAttempt, error: str) -> RunAttempt:
    """The order after one that ended with ``error``: one attempt on, same session."""
    earlier = PreviousAttempt(attempt=order.attempt, agent_id="agent_1", error=error)
    return structs.replace(
        order,
        attempt=order.attempt + 1,
        previous_attempts=(*order.previous_attempts, earlier),
        resumes=True,
    )


async def attempted(
    it: Agent, order: RunAttempt, turns: list[Step], **changes: Any
) -> tuple[AttemptDone, ScriptedClaude]:
    """How the order ends where Claude takes these turns, all of them foreseen."""
    folder = Path(order.workspace).parent
    with ScriptedClaude([Conversation(KEY, turns)]) as claude:
        await it.send(configured(claude, folder, **changes))
        done = await it.run(order)
    assert claude.errors == []
    assert it.children() == []
    return done, claude


async def completed(it: Agent, order: RunAttempt) -> AttemptDone:
    """Finish what the order goes on with; the first command must not run again."""
    done, claude = await attempted(it, order, [FIRST, interrupted, "Done."])
    assert (done.failure, done.error) == (None, None)
    assert log_of(order) == ["first", "last"]
    assert {request.session_id for request in claude.requests} == {order.session_id}
    return done


def log_of(order: RunAttempt) -> list[str]:
    return (Path(order.workspace) / "log").read_text().split()


def transcript(order: RunAttempt) -> Path:
    config = Path(order.workspace).parent / "config"
    (path,) = config.glob(f"projects/*/{order.session_id}.jsonl")
    return path


def is_kept(order: RunAttempt, words: str) -> Callable[[], Awaitable[bool]]:
    """Whether these words are in the session's transcript."""

    async def look() -> bool:
        return words in transcript(order).read_text()

    return look


async def test_a_passing_fault_is_borne_within_the_attempt(tmp_path: Path) -> None:
    faults = {
        "429": Fault.status(429),
        "429-after-a-second": Fault.status(429, retry_after_s=1),
        "529": Fault.status(529),
        "500": Fault.status(500),
        "cut": Fault.cut(),
        "cut-later": Fault.cut(after_events=4),
    }
    async with agent(environment=IMPATIENT) as it:
        for name, fault in faults.items():
            order = an_order(tmp_path / name)
            done, _ = await attempted(it, order, [FIRST, fault, LAST, "Done."])
            assert (done.failure, done.error) == (None, None), name
            assert log_of(order) == ["first", "last"], name


async def test_a_lasting_fault_ends_the_attempt_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    lasting = {
        "429": Fault.status(429, times=None),
        "cut": Fault.cut(times=None),
        "401": Fault.status(401, times=None),
    }
    async with agent(environment=IMPATIENT) as it:
        for name, fault in lasting.items():
            order = an_order(tmp_path / name)
            done, _ = await attempted(it, order, [FIRST, fault])
            expected = (
                FailureKind.AUTHENTICATION if name == "401" else FailureKind.API_ERROR
            )
            assert done.failure is expected, (name, done.error)
            await completed(it, following(order, done.error or ""))


async def test_a_stream_that_hangs_ends_the_attempt_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    hanging: list[Step] = [FIRST, Fault.hang(after_events=3, times=None)]
    async with agent(environment=IMPATIENT) as it:
        done, _ = await attempted(it, order, hanging, inactivity_timeout_s=5.0)
        assert done.failure is FailureKind.INACTIVITY
        await completed(it, following(order, done.error or ""))


async def test_an_api_that_is_not_there_ends_the_attempt_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    async with agent(environment=IMPATIENT) as it:
        with ScriptedClaude([Conversation(KEY, [FIRST, Fault.hang()])]) as claude:
            await it.send(configured(claude, tmp_path))
            await it.send(order)
            await asked(claude, times=2)
        done = await it.next(AttemptDone)  # the server is gone: connection refused
        assert done.failure is FailureKind.API_ERROR, done.error
        await completed(it, following(order, done.error or ""))


async def asked(claude: ScriptedClaude, *, times: int) -> None:
    """Wait until Claude has been asked so often."""
    await anyio.to_thread.run_sync(
        lambda: claude.wait_until(lambda: len(claude.requests) >= times, timeout_s=30)
    )


async def test_a_cli_killed_in_the_middle_of_a_command_goes_on(tmp_path: Path) -> None:
    order = an_order(tmp_path / "count")
    # The CLI keeps what happens a tenth of a second later: the call itself, here.
    kept = 'grep -qs "until grep" "$CLAUDE_CONFIG_DIR"/projects/*/*.jsonl'
    kill = bash(f"until {kept}; do :; done; kill -9 $PPID")
    async with agent(environment=IMPATIENT) as it:
        done, _ = await attempted(it, order, [FIRST, kill])
        assert done.failure is FailureKind.INTERNAL
        assert "exit code -9" in (done.error or "")
        await completed(it, following(order, done.error or ""))


async def test_an_agent_killed_with_all_its_processes_goes_on_in_another(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    with ScriptedClaude([Conversation(KEY, [FIRST, Fault.hang()])]) as claude:
        async with agent(configured(claude, tmp_path), IMPATIENT) as it:
            await it.send(order)
            await asked(claude, times=2)
            await until(is_kept(order, "tool_result"), "the command's result is kept")
            for process in [psutil.Process(it.pid), *it.children()]:
                process.kill()
            await it.ended()
    async with agent(environment=IMPATIENT) as it:
        await completed(it, following(order, "agent_1 was lost: killed by signal 9"))


async def test_a_session_that_heard_no_answer_goes_on_or_is_begun(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    with ScriptedClaude([Conversation(KEY, [Fault.hang()])]) as claude:
        async with agent(configured(claude, tmp_path), IMPATIENT) as it:
            await it.send(order)
            await asked(claude, times=1)
            for process in it.children():
                process.kill()
            done = await it.next(AttemptDone)
            assert done.failure is FailureKind.INTERNAL
            # Whether the prompt was kept is a matter of a tenth of a second.
            again = following(order, done.error or "")
            done, _ = await attempted(it, again, [FIRST, LAST, "Done."])
    assert (done.failure, done.error) == (None, None)
    assert log_of(order) == ["first", "last"]


async def test_a_session_that_never_began_is_begun(tmp_path: Path) -> None:
    order = following(an_order(tmp_path / "count"), "agent_1 was lost: killed")
    async with agent(environment=IMPATIENT) as it:
        done, claude = await attempted(it, order, [FIRST, LAST, "Done."])
    assert (done.failure, done.error) == (None, None)
    prompt = claude.requests[0].prompt
    assert order.task_description in prompt
    assert "agent_1 was lost: killed" in prompt


async def test_a_transcript_cut_in_its_last_line_is_gone_on_with(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    async with agent(environment=IMPATIENT) as it:
        done, _ = await attempted(it, order, [FIRST, Fault.status(500, times=None)])
        path = transcript(order)
        path.write_bytes(path.read_bytes()[:-20])
        await completed(it, following(order, done.error or ""))


async def test_a_transcript_that_is_damaged_is_set_aside_and_the_session_begun_anew(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    async with agent(environment=IMPATIENT) as it:
        done, _ = await attempted(it, order, [Fault.status(529, times=None)])
        for number, damage in enumerate((b"", b"\0" * 5_000 + b'\n{"half": '), 1):
            path = transcript(order)
            path.write_bytes(damage)
            order = following(order, done.error or "")
            done, claude = await attempted(it, order, [LAST, "Done."])
            assert (done.failure, done.error) == (None, None)
            prompt = claude.requests[0].prompt
            assert order.task_description in prompt
            assert "still in output/ and temp/" in prompt
            assert {it.session_id for it in claude.requests} == {order.session_id}
            aside = path.with_name(f"{path.name}.{number}.aside")
            assert aside.read_bytes() == damage
    assert it.log().count("No conversation found") >= 2


async def test_a_history_that_the_api_refuses_is_set_aside(tmp_path: Path) -> None:
    order = an_order(tmp_path / "count")
    message = "messages.0.content.0: unexpected `tool_use_id` in `tool_result` blocks"
    refused = Fault.status(400, message=message, times=None)
    script = [
        Conversation(lambda it: "You were interrupted" in it.last_user_text, [refused]),
        Conversation(KEY, [LAST, "Done."]),
    ]
    async with agent(environment=IMPATIENT) as it:
        done, _ = await attempted(it, order, [Fault.status(529, times=None)])
        with ScriptedClaude(script) as claude:
            await it.send(configured(claude, tmp_path))
            done = await it.run(following(order, done.error or ""))
    assert claude.errors == []
    assert (done.failure, done.error) == (None, None)
    assert "the session cannot go on" in it.log()


async def test_an_id_that_is_taken_does_not_keep_a_session_from_beginning(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    async with agent(environment=IMPATIENT) as it:
        for attempt in (1, 2):
            again = structs.replace(order, attempt=attempt)
            done, _ = await attempted(it, again, [LAST, "Done."])
            assert (done.failure, done.error) == (None, None)
    assert log_of(order) == ["last", "last"]


async def test_an_attempt_that_goes_on_counts_its_own_usage_alone(
    tmp_path: Path,
) -> None:
    def using(answer: list[dict[str, Any]], tokens: int) -> Turn:
        return Turn(answer, usage={"input_tokens": tokens, "output_tokens": tokens})

    order = an_order(tmp_path / "count")
    first = using(FIRST, 1_000)
    lasting = Fault.status(529, times=None)
    async with agent(environment=IMPATIENT) as it:
        before, _ = await attempted(it, order, [first, lasting])
        again = following(order, before.error or "")
        then, _ = await attempted(it, again, [first, using(LAST, 2_000), lasting])
        last = following(again, then.error or "")
        turns: list[Step] = [first, using(LAST, 2_000), using([text("Done.")], 4_000)]
        done, _ = await attempted(it, last, turns)
    assert done.failure is None
    usages = [before.usage, then.usage, done.usage]
    assert [usage.input_tokens for usage in usages] == [1_000, 2_000, 4_000]
    assert [usage.output_tokens for usage in usages] == [1_000, 2_000, 4_000]
    cost = before.usage.cost_usd
    assert [usage.cost_usd for usage in usages] == pytest.approx(
        [cost, 2 * cost, 4 * cost]
    )


async def test_a_key_that_is_refused_in_mid_run_is_told_at_once(
    tmp_path: Path,
) -> None:
    turns: list[Step] = [FIRST, Fault.status(401, times=None)]
    order = an_order(tmp_path / "count")
    with ScriptedClaude([Conversation(KEY, turns)]) as claude:
        configuration = a_configuration(tmp_path / "config", base_url=claude.url)
        async with agent(configuration) as it:
            done = await it.run(order)
    assert done.failure is FailureKind.AUTHENTICATION
    assert done.error == "Claude refused the credentials (HTTP 401)"
    assert done.usage.output_tokens > 0
    # The CLI by itself would ask eleven times more.
    assert len(claude.requests) <= 8
