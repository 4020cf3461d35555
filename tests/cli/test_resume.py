"""``mas resume`` from end to end: what was finished stays, what was cut off goes on."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mas.testing import Conversation, Request, ScriptedClaude, tool_use
from tests.cli.command import Mas, read_until
from tests.cli.test_bad_input import told
from tests.scripts import describes, diligent, scripted

CHAIN: tuple[dict[str, Any], ...] = (
    {"key": "first"},
    {"key": "second", "dependencies": ["first"]},
    {"key": "third", "dependencies": ["second"]},
)


def slow_at_first(key: str) -> Conversation:
    """A subtask whose command takes minutes, but when asked again no time."""
    commands = iter([f"sleep 300; touch output/{key}.txt"])

    def work(request: Request) -> list[dict[str, Any]]:
        command = next(commands, f"echo {key} > output/{key}.txt")
        return [tool_use("Bash", command=command)]

    rest = [step.turn for step in diligent(key).steps[1:] if step.turn is not None]
    return Conversation(describes(key), [work, *rest], name=key)


@pytest.fixture
def claude(mas: Mas) -> Iterator[ScriptedClaude]:
    """Plays the chain; its second subtask is cut off, and goes through when resumed."""
    script = scripted(CHAIN, {"second": slow_at_first("second")})
    with ScriptedClaude(script) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        yield claude
        assert claude.errors == []


def works_on(key: str, activity: str = "Bash") -> Callable[[dict[str, Any]], bool]:
    """Whether an event says that this subtask's agent uses this tool."""
    return lambda event: (
        event["type"] == "attempt_progress"
        and event["subtask_id"] == key
        and activity in event["activity"]
    )


def started(events: list[dict[str, Any]]) -> list[tuple[str, int, bool]]:
    return [
        (event["subtask_id"], event["attempt"], event["resumes"])
        for event in events
        if event["type"] == "attempt_started"
    ]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_that_was_stopped_goes_on_and_repeats_nothing(
    mas: Mas, claude: ScriptedClaude, number: signal.Signals, code: int
) -> None:
    cut = mas.stopped(number, "run", "x", when=works_on("second"))
    assert cut.code == code
    assert started(cut.events) == [("first", 1, False), ("second", 1, False)]
    task_id = cut.events[0]["task_id"]
    if number is signal.SIGINT:
        assert cut.events[-1]["type"] == "task_suspended"
        assert f"mas resume {task_id}" in cut.events[-1]["hint"]
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert (task["id"], task["status"]) == (task_id, "interrupted")
    assert "interrupted" in mas.run("tasks").out
    shown = mas.run("show", task_id, SHARED_FILES_PATH="elsewhere")
    assert f"Go on with mas resume {task_id}" in shown.out
    [created] = [each for each in cut.events if each["type"] == "task_created"]
    assert created["folder"] in shown.out

    done = mas.run("resume", task_id[:13], "--json")
    assert done.code == 0, done.err
    facts = [event for event in done.events if "seq" in event]
    assert facts[0]["type"] == "task_resumed"
    assert {event["task_id"] for event in facts} == {task_id}
    assert done.events[-1]["status"] == "completed"
    assert started(done.events) == [("second", 2, True), ("third", 1, False)]
    first = facts[0]["seq"]
    assert [event["seq"] for event in facts] == list(range(first, first + len(facts)))
    assert first > max(event["seq"] for event in cut.events if "seq" in event)
    document = mas.run("show", "-", "--json").document
    ended = [
        (row["subtask_id"], row["status"])
        for row in document["subtask_results"]
        if row["status"] == "completed"
    ]
    assert ended == [(task["key"], "completed") for task in CHAIN]
    assert document["task"]["status"] == "completed"

    told(mas.run("resume", "-"), 2, f"{task_id} is finished: completed", "mas show")
    told(mas.run("cancel", "-"), 2, f"{task_id} is finished: completed", "mas show")


def test_run_resume_is_the_same_and_shows_the_whole_task(
    mas: Mas, claude: ScriptedClaude
) -> None:
    cut = mas.stopped(signal.SIGKILL, "run", "x", when=works_on("second"))
    done = mas.run("run", "--resume", "-")
    assert done.code == 0, done.err
    assert f"{cut.events[0]['task_id'][:8]} goes on where it stopped" in done.err
    assert "first  started" not in done.err
    assert "second  continued on agent_" in done.err
    assert "3 of 3 subtasks done" in done.out


def test_a_task_that_is_worked_on_stays_with_its_owner(
    mas: Mas, claude: ScriptedClaude
) -> None:
    with mas.start("run", "x", "--json") as process:
        read_until(process, works_on("second"))
        refused = mas.run("resume", "-")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    told(refused, 2, "is being worked on by", f"process {process.pid}", "mas cancel")


def test_a_task_that_there_is_not(mas: Mas) -> None:
    told(mas.run("resume", "no-such-task"), 2, "no-such-task")
    told(mas.run("run", "--resume", "no-such-task"), 2, "no-such-task")


@pytest.mark.parametrize("more", [("a new task",), ("--input", "x.csv")])
def test_nothing_new_can_be_handed_to_a_task_that_goes_on(
    mas: Mas, more: tuple[str, ...]
) -> None:
    told(mas.run("run", "--resume", "-", *more), 2, "with --resume")


@pytest.mark.parametrize(
    "flag", [("--planner-model", "a-model"), ("--max-subtasks", "3")]
)
def test_a_task_that_goes_on_is_not_planned_again(
    mas: Mas, flag: tuple[str, str]
) -> None:
    told(mas.run("run", "--resume", "-", *flag), 2, "with --resume", flag[0])


def test_a_run_of_nothing(mas: Mas) -> None:
    told(mas.run("run"), 2, "there is no task", "mas run --resume TASK")
