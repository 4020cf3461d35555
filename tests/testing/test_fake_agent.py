"""The fake agent speaks the protocol that the real one speaks."""

import sys
from pathlib import Path

import pytest

from mas.model import FailureKind, Subtask
from mas.wire.messages import AttemptDone, HoldAttempt, Progress, StopAttempt
from tests.agent import harness
from tests.agent.orders import a_configuration, an_order

pytestmark = pytest.mark.usefixtures("leaves_no_process")


async def test_it_shows_that_it_is_held_and_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "mas.testing.fake_agent"
    command = [sys.executable, "-m", module, "--id", "agent_1"]
    monkeypatch.setattr(harness, "COMMAND", command)
    hang = Subtask(id="count", description="hang", input_data={"acts": ["hang"]})
    order = an_order(tmp_path / "count", subtask=hang)
    async with harness.agent(a_configuration(tmp_path)) as it:
        await it.send(order)
        await it.next(Progress)
        shown = []
        for is_held in (True, False):
            hold = HoldAttempt(subtask_id="count", attempt=1, is_held=is_held)
            await it.send(hold)
            shown.append((await it.next(Progress)).activity)
        await it.send(StopAttempt(subtask_id="count", attempt=1, reason="enough"))
        done = await it.next(AttemptDone)
    assert shown == ["held", "not held any more"]
    assert (done.failure, done.error) == (FailureKind.CANCELLED, "enough")
