"""The gate takes what is right and says what is wrong with the rest."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mas.agent.workspace import prepare
from mas.core.result import MAX_RESULT_BYTES
from mas.gates import MAX_TASK_BYTES, check_output, left_result
from tests.agent.orders import an_order, result_json


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "count" / "output"
    path.mkdir(parents=True)
    return path


def test_a_right_result_is_returned_byte_for_byte(output: Path) -> None:
    text = result_json(data={"large": 2**63, "π": 1.10})
    (output / "result.json").write_text(text)
    verdict = check_output(output)
    assert verdict.raw == text.encode()
    assert verdict.result is not None
    assert verdict.result["data"] == {"large": 2**63, "π": 1.1}
    assert verdict.faults == ()


@pytest.mark.parametrize(
    "name", ["a.csv", "deep/b.csv", "output/a.csv", "{output}/deep/b.csv", "deep"]
)
def test_files_may_be_named_in_every_usual_way(output: Path, name: str) -> None:
    (output / "deep").mkdir()
    (output / "a.csv").touch()
    (output / "deep" / "b.csv").touch()
    text = result_json(files_created=[name.format(output=output)])
    (output / "result.json").write_text(text)
    assert check_output(output).faults == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        (result_json(success="yes"), "'success' must be true or false"),
        (result_json(summary=None), "'summary' is missing"),
        (result_json(data={"x": "\0"}), "NUL"),
        (result_json(files_created=["gone.csv"]), "'gone.csv', which does not exist"),
        (result_json(files_created=["../x"]), "give paths relative to output/"),
        (result_json(files_created=["a" * 300]), "cannot be read"),
        ("\ufeff" + result_json(), "byte order mark"),
    ],
)
def test_a_fault_says_what_to_change(output: Path, text: str, fault: str) -> None:
    (output / "result.json").write_text(text, encoding="utf-8")
    verdict = check_output(output)
    assert fault in "\n".join(verdict.faults)
    assert verdict.raw is None


def test_utf_16_is_refused_though_json_reads_it(output: Path) -> None:
    (output / "result.json").write_text(result_json(), encoding="utf-16")
    assert "plain UTF-8" in check_output(output).faults[0]


def test_every_missing_file_is_named_at_once(output: Path) -> None:
    (output / "result.json").write_text(result_json(files_created=["a", "b"]))
    assert len(check_output(output).faults) == 2


def test_no_result_is_a_fault(output: Path) -> None:
    assert check_output(output).faults == ("output/result.json does not exist",)


def test_an_output_folder_that_is_gone_is_a_fault(tmp_path: Path) -> None:
    assert "does not exist" in check_output(tmp_path / "output").faults[0]


def test_a_huge_result_is_refused_without_being_read(output: Path) -> None:
    with (output / "result.json").open("wb") as file:
        file.truncate(10 * 2**40)
    fault = check_output(output).faults[0]
    assert str(10 * 2**40) in fault
    assert str(MAX_RESULT_BYTES) in fault


def test_a_fifo_does_not_make_the_gate_wait(output: Path) -> None:
    os.mkfifo(output / "result.json")
    assert "regular file" in check_output(output).faults[0]


def test_a_folder_in_its_place_is_a_fault(output: Path) -> None:
    (output / "result.json").mkdir()
    assert check_output(output).faults


def test_a_link_to_a_file_outside_is_a_fault(output: Path) -> None:
    (output.parent / "elsewhere.json").write_text(result_json())
    (output / "result.json").symlink_to("../elsewhere.json")
    assert "leads outside" in check_output(output).faults[0]


def test_a_link_that_stays_inside_is_followed(output: Path) -> None:
    (output / "final.json").write_text(result_json())
    (output / "result.json").symlink_to("final.json")
    assert check_output(output).faults == ()


def test_a_loop_of_links_is_a_fault(output: Path) -> None:
    (output / "result.json").symlink_to("result.json")
    assert check_output(output).faults


def test_an_output_that_is_a_link_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "result.json").write_text(result_json())
    (tmp_path / "output").symlink_to("elsewhere")
    assert "not a link" in check_output(tmp_path / "output").faults[0]


def test_a_created_file_may_not_lead_outside(output: Path) -> None:
    (output / "passwd").symlink_to("/etc/passwd")
    (output / "result.json").write_text(result_json(files_created=["passwd"]))
    assert "leads outside" in check_output(output).faults[0]


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A workspace prepared for attempt 2, with the result of an attempt."""
    workspace = prepare(an_order(tmp_path / "count", attempt=2)).root
    (workspace / "output" / "result.json").write_text(result_json())
    return workspace


def test_what_an_attempt_left_is_judged_as_by_itself(left: Path) -> None:
    verdict = left_result(left, 2)
    assert verdict == check_output(left / "output")
    assert verdict.raw == result_json().encode()


def test_a_failure_that_an_attempt_left_is_returned_as_it_is(left: Path) -> None:
    (left / "output" / "result.json").write_text(result_json(success=False))
    verdict = left_result(left, 2)
    assert verdict.faults == ()
    assert verdict.result is not None
    assert verdict.result["success"] is False


def test_what_an_attempt_left_unfinished_has_faults(left: Path) -> None:
    (left / "output" / "result.json").write_text(result_json()[:-1])
    assert "not valid JSON" in left_result(left, 2).faults[0]
    (left / "output" / "result.json").unlink()
    assert "does not exist" in left_result(left, 2).faults[0]


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_result_never_counts_for_another_attempt(left: Path, attempt: int) -> None:
    verdict = left_result(left, attempt)
    assert verdict.faults == (
        f"the workspace was prepared for attempt 2, not for attempt {attempt}",
    )
    assert verdict.result is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "2", "{}", '{"attempt": "2"}', '{"attempt": true}'),
        '{"attempt": 2, "deep": ' + "[" * 100_000,
        '{"attempt": 2' + "0" * 5_000 + "}",
        "\ufeff" + '{"attempt": 2}',
    ],
)
def test_nothing_counts_where_the_attempt_is_not_told(left: Path, text: str) -> None:
    (left / "context" / "task.json").write_text(text, encoding="utf-8")
    (fault,) = left_result(left, 2).faults
    assert fault.startswith("context/task.json does not say which attempt it is for")


def no_workspace(left: Path) -> None:
    shutil.rmtree(left)


def no_task(left: Path) -> None:
    (left / "context" / "task.json").unlink()


def a_fifo(left: Path) -> None:
    no_task(left)
    os.mkfifo(left / "context" / "task.json")


def a_folder(left: Path) -> None:
    no_task(left)
    (left / "context" / "task.json").mkdir()


def a_huge_file(left: Path) -> None:
    with (left / "context" / "task.json").open("wb") as file:
        file.truncate(10 * 2**40)


def a_link(left: Path) -> None:
    (left / "context" / "task.json").rename(left / "task.json")
    (left / "context" / "task.json").symlink_to("../task.json")


def a_linked_folder(left: Path) -> None:
    (left / "context").rename(left / "elsewhere")
    (left / "context").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (no_workspace, "context/task.json does not exist"),
        (no_task, "context/task.json does not exist"),
        (a_fifo, "context/task.json must be a regular file"),
        (a_folder, "context/task.json must be a regular file"),
        (
            a_huge_file,
            f"context/task.json has {10 * 2**40} bytes, the limit is {MAX_TASK_BYTES}",
        ),
        (a_link, "context/task.json is a link that leads outside context/"),
        (a_linked_folder, "context/ must be a folder, not a link"),
    ],
)
def test_a_task_file_that_is_none_is_a_fault(
    left: Path, spoil: Callable[[Path], None], fault: str
) -> None:
    spoil(left)
    assert left_result(left, 2).faults == (fault,)
