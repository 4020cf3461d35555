"""``--budget``: spent to the end, suspended, and gone on with when there is more."""

from collections.abc import Iterator
from typing import Any

import pytest

from mas.testing import Conversation, Script, ScriptedClaude, Turn, plan, planner
from tests.cli.command import Done, Mas
from tests.scripts import diligent

CHAIN: tuple[dict[str, Any], ...] = (
    {"key": "first"},
    {"key": "second", "dependencies": ["first"]},
    {"key": "third", "dependencies": ["second"]},
)
A_CALL = {"input_tokens": 10_000, "output_tokens": 1_000}
A_CALL_USD = 0.03  # of claude-sonnet-5-5, the default: 2 and 10 dollars a million
CALLS = 10  # the plan, and three a subtask


def priced(conversation: Conversation) -> Conversation:
    """The same conversation; each of its turns uses as much as ``A_CALL``."""

    def counted(turn: Any) -> Any:
        def play(request: Any) -> Turn:
            made = turn(request) if callable(turn) else turn
            blocks = made.blocks if isinstance(made, Turn) else made
            return Turn(blocks, usage=A_CALL)

        return play

    turns = [counted(step.turn) for step in conversation.steps]
    return Conversation(conversation.match, turns, name=conversation.name)


@pytest.fixture
def claude(mas: Mas) -> Iterator[ScriptedClaude]:
    planned = [{"description": f"do {task['key']}"} | task for task in CHAIN]
    subtasks = [priced(diligent(task["key"], command="true")) for task in CHAIN]
    planning = Conversation(planner, [Turn([plan(planned)], usage=A_CALL)])
    with ScriptedClaude(Script([planning, *subtasks])) as claude:
        mas.environment["ANTHROPIC_BASE_URL"] = claude.url
        yield claude
        assert claude.errors == []


def refused(done: Done, code: int, *words: str) -> None:
    """The last two lines say what is wrong and what to do."""
    wrong, hint = done.err.splitlines()[-2:]
    assert done.code == code, done.err
    assert wrong.startswith("mas: ") and hint.startswith("hint: ")
    for word in words:
        assert word in f"{wrong}\n{hint}"


def sessions(done: Done) -> dict[str, str]:
    return {
        event["subtask_id"]: event["session_id"]
        for event in done.events
        if event["type"] == "attempt_started"
    }


def test_a_budget_is_kept_and_the_task_goes_on_with_a_larger_one(
    mas: Mas, claude: ScriptedClaude
) -> None:
    cut = mas.run("run", "x", "--budget", "0.14", "--json")
    assert cut.code == 4, cut.err
    assert len(claude.requests) == 5  # the fifth was let go at $0.12
    *_, last = cut.events
    task_id = last["task_id"]
    assert last["type"] == "task_suspended"
    assert last["reason"] == "the budget of $0.14 is spent: $0.15 used"
    assert last["hint"] == f"go on with mas resume {task_id} --budget MORE"
    assert not last["interrupted"]
    failures = [
        event
        for event in cut.events
        if event["type"] == "attempt_finished" and event["status"] == "failed"
    ]
    assert failures == []
    [notice] = [event for event in cut.events if event["type"] == "notice"]
    assert notice["text"] == "80 % of the budget of $0.14 is used: $0.12"
    shown = mas.run("show", "-")
    assert "suspended" in shown.out and "--budget MORE" not in shown.err
    [task, *_] = mas.run("tasks", "--json").document["tasks"]
    assert task["status"] == "suspended"

    # What was spent counts, and what was allowed holds, in the next run too.
    refused(
        mas.run("resume", task_id), 4, "the budget of $0.14 is spent", "--budget MORE"
    )
    refused(mas.run("resume", task_id, "--budget", "0.15"), 4, "$0.15 is spent")
    assert len(claude.requests) == 5

    done = mas.run("resume", task_id, "--budget", "1", "--json")
    assert done.code == 0, done.err
    cut_off = sessions(cut).keys() & sessions(done).keys()
    assert cut_off == {"second"}
    assert sessions(cut)["second"] == sessions(done)["second"]
    assert len(claude.requests) == CALLS
    result = done.events[-1]["result"]
    assert result["usage"]["cost_usd"] == pytest.approx(CALLS * A_CALL_USD)


def test_a_budget_in_tokens(mas: Mas, claude: ScriptedClaude) -> None:
    cut = mas.run("run", "x", "--budget-tokens", "20000", "--json")
    assert cut.code == 4, cut.err
    last = cut.events[-1]
    assert last["reason"] == "the budget of 20,000 tokens is spent: 22,000 used"
    assert last["hint"].endswith(" --budget-tokens MORE")


def test_a_budget_for_the_day_counts_all_tasks(
    mas: Mas, claude: ScriptedClaude
) -> None:
    (mas.folder / "mas.toml").write_text("[limits]\nbudget_usd_per_day = 0.0001\n")
    mas.run("run", "x", "--json")
    asked = len(claude.requests)
    done = mas.run("run", "another one")
    refused(done, 4, "the budget of $0.000100 a day is spent", "tomorrow")
    assert len(claude.requests) == asked


@pytest.mark.parametrize("flag", ["--budget", "--budget-tokens"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_budget_of_nothing(mas: Mas, flag: str, value: str) -> None:
    refused(mas.run("run", "x", flag, value), 2, "it must be more than 0")


def test_a_budget_that_could_not_be_kept(mas: Mas, claude: ScriptedClaude) -> None:
    done = mas.run("run", "x", "--budget", "1", "--model", "some-model")
    refused(done, 3, "the price of some-model is not known", "--budget-tokens")
    assert claude.requests == []
