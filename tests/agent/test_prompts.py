"""The prompts say all that Claude needs, and the shared one nothing that varies."""

from pathlib import Path

import pytest
from msgspec import structs

from mas.agent.prompts import (
    MAX_FILES_LISTED,
    SYSTEM_PROMPT,
    attempt_prompt,
    resumed_prompt,
)
from mas.agent.workspace import ContextFile, Workspace
from mas.model import Subtask
from mas.wire.messages import PreviousAttempt, RunAttempt
from tests.agent.orders import a_dependency, an_order

ROOT = Path("/shared/7f0c/count")


@pytest.fixture
def order() -> RunAttempt:
    return an_order(ROOT)


def prompt(order: RunAttempt, *files: ContextFile) -> str:
    return attempt_prompt(order, Workspace(ROOT, files, ()))


def test_the_system_prompt_names_no_absolute_path() -> None:
    assert not [word for word in SYSTEM_PROMPT.split() if word.startswith("/")]


def test_the_subtask_is_given_word_for_word() -> None:
    description = "Zähle  {alle} /help @/etc/passwd\n\n- auch %s"
    order = an_order(ROOT, subtask=Subtask(id="count", description=description))
    assert description in prompt(order)


def test_the_places_are_given_as_absolute_paths(order: RunAttempt) -> None:
    text = prompt(order)
    assert f"\n{ROOT}\n" in text
    assert f"Write {ROOT}/output/result.json" in text
    assert order.task_description in text


def test_a_subtask_without_past_is_told_of_none(order: RunAttempt) -> None:
    text = prompt(order)
    assert "came before" not in text
    assert "context/" not in text
    assert "attempt" not in text.lower()


def test_dependencies_are_summed_up(order: RunAttempt) -> None:
    dependency = a_dependency("load", ROOT, summary="loaded 3 rows")
    text = prompt(structs.replace(order, dependencies=(dependency,)))
    assert "- load: loaded 3 rows" in text
    assert "previous_results.json" in text


def test_a_long_summary_is_cut(order: RunAttempt) -> None:
    dependency = a_dependency("load", ROOT, summary="x" * 100_000)
    text = prompt(structs.replace(order, dependencies=(dependency,)))
    assert len(text) < 10_000
    assert "characters…" in text


def test_files_are_listed_with_their_sizes_up_to_a_number(order: RunAttempt) -> None:
    names = [f"context/files/load/{n:04}.csv" for n in range(MAX_FILES_LISTED + 7)]
    text = prompt(order, *(ContextFile(name, 1234) for name in names))
    assert f"- {names[0]} (1,234 bytes)" in text
    assert names[-1] not in text
    assert "and 7 more" in text


def test_a_retry_is_told_why_the_others_failed(order: RunAttempt) -> None:
    earlier = PreviousAttempt(attempt=1, agent_id="agent_2", error="no such table: t")
    text = prompt(structs.replace(order, attempt=2, previous_attempts=(earlier,)))
    assert "This is attempt 2" in text
    assert "attempt 1: no such table: t" in text


def test_input_data_is_shown(order: RunAttempt) -> None:
    subtask = Subtask(id="count", description="Count", input_data={"größe": [1, 2]})
    assert '"größe": [' in prompt(structs.replace(order, subtask=subtask))


LOST = PreviousAttempt(attempt=2, agent_id="agent_2", error="agent_2 was {lost}: hung")
FAILED = PreviousAttempt(attempt=1, agent_id="agent_1", error="no such table: t")


def test_who_goes_on_is_told_why_and_how_to_end(order: RunAttempt) -> None:
    order = structs.replace(
        order, attempt=3, resumes=True, previous_attempts=(FAILED, LOST)
    )
    text = resumed_prompt(order, Workspace(ROOT, (), ()))
    assert text.startswith("# Your subtask (count)\n\nCount the things\n")
    assert "this is attempt 3" in text
    assert "agent_2 was {lost}: hung" in text
    assert "no such table" not in text
    assert "Do not do again what is done" in text
    assert f"Write {ROOT}/output/result.json" in text


def test_who_goes_on_for_no_known_reason_is_told_of_none(order: RunAttempt) -> None:
    text = resumed_prompt(structs.replace(order, attempt=2), Workspace(ROOT, (), ()))
    assert "was cut off. Whatever" in text


def test_who_begins_where_another_was_cut_off_is_told_where_its_work_is(
    order: RunAttempt,
) -> None:
    order = structs.replace(order, attempt=3, resumes=True, previous_attempts=(LOST,))
    text = prompt(order)
    assert order.task_description in text
    assert "This is attempt 3" in text
    assert "attempt 2: agent_2 was {lost}: hung" in text
    assert "still in output/ and temp/" in text
    assert "attempts/" not in text
