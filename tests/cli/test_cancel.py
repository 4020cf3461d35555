"""``mas cancel`` from another shell: a task ends, whoever runs it, or nobody."""

import signal
from collections.abc import Iterator

import pytest

from mas.testing import ScriptedClaude
from tests.cli.command import Done, Mas, read_until
from tests.cli.test_bad_input import told
from tests.cli.test_resume import CHAIN, works_on
from tests.scripts import diligent, scripted


@pytest.fixture
def claude(mas: Mas) -> Iterator[ScriptedClaude]:
    """Plays a chain whose second subtask takes minutes."""
    second = diligent("second", command="sleep 300")
    with ScriptedClaude(scripted(CHAIN, {"second": second})) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        yield claude


def statuses(mas: Mas, task_id: str) -> list[str]:
    task = mas.run("show", task_id, "--json").document["task"]
    return [task["status"], *(subtask["status"] for subtask in task["subtasks"])]


CANCELLED = ["cancelled", "completed", "cancelled", "cancelled"]


def test_a_task_that_another_process_runs(mas: Mas, claude: ScriptedClaude) -> None:
    with mas.start("run", "x", "--json") as process:
        read_until(process, works_on("second"))
        done = mas.run("cancel", "-")
        out, err = process.communicate(timeout=60)
    assert (done.code, done.out, done.err) == (0, "cancelled\n", "")
    run = Done(process.returncode, out.decode(), err.decode())
    assert run.code == 1
    last = run.events[-1]
    assert (last["type"], last["status"]) == ("task_finished", "cancelled")
    assert "mas cancel" in last["error"]
    assert statuses(mas, last["task_id"]) == CANCELLED
    told(mas.run("cancel", "-"), 2, "is cancelled already", "mas show")


def test_a_task_whose_owner_is_gone(mas: Mas, claude: ScriptedClaude) -> None:
    cut = mas.stopped(signal.SIGKILL, "run", "x", when=works_on("second"))
    task_id = cut.events[0]["task_id"]
    done = mas.run("cancel", task_id[:13], "--json")
    assert done.code == 0, done.err
    assert done.document == {"task_id": task_id, "status": "cancelled"}
    assert statuses(mas, task_id) == CANCELLED
    told(mas.run("resume", task_id), 2, "is finished: cancelled")
    asked = [request for request in claude.requests if "(third)" in request.prompt]
    assert asked == []


def test_an_owner_that_hangs_is_named_and_the_request_is_kept(
    mas: Mas, claude: ScriptedClaude
) -> None:
    with mas.start("run", "x", "--json") as process:
        read_until(process, works_on("second"))
        process.send_signal(signal.SIGSTOP)
        done = mas.run("cancel", "-", "--wait", "1")
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    told(done, 1, "has not in 1 s", f"process {process.pid}", "mas cancel")
    run = Done(process.returncode, out.decode(), err.decode())
    assert run.events[-1]["status"] == "cancelled"


def test_a_task_that_there_is_not(mas: Mas) -> None:
    told(mas.run("cancel", "no-such-task"), 2, "no-such-task")
