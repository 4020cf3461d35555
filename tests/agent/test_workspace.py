"""A workspace holds what an attempt needs, and nothing of what it must not see."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mas.agent.workspace import Workspace, WorkspaceError, prepare
from mas.gates import left_result
from mas.wire.messages import PreviousAttempt, RunAttempt
from tests.agent.orders import a_dependency, an_order, result_json


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The output folder of a dependency."""
    path = tmp_path / "load" / "output"
    path.mkdir(parents=True)
    (path / "result.json").write_text("{}")
    return path


def read(workspace: Workspace, name: str) -> Any:
    return json.loads((workspace.root / "context" / name).read_text(encoding="utf-8"))


def copied(workspace: Workspace) -> set[str]:
    files = workspace.root / "context" / "files"
    return {str(path.relative_to(files)) for path in files.rglob("*")}


def test_the_task_is_written_down(tmp_path: Path) -> None:
    order = an_order(tmp_path / "a" / "count")
    workspace = prepare(order)
    document = read(workspace, "task.json")
    assert document["task"] == {"id": "7f0c", "description": order.task_description}
    assert document["subtask"]["description"] == "Count the things"
    assert document["attempt"] == 1
    assert (workspace.root / "temp").is_dir()
    assert list(workspace.output.iterdir()) == []
    assert not (workspace.root / "context" / "previous_attempts.json").exists()


def test_what_dependencies_made_is_copied_without_result_json(
    tmp_path: Path, made: Path
) -> None:
    (made / "deep").mkdir()
    (made / "deep" / "table.csv").write_text("1,2")
    order = an_order(
        tmp_path / "count", dependencies=(a_dependency("load", made, data={"n": 2}),)
    )
    workspace = prepare(order)
    assert copied(workspace) == {"load", "load/deep", "load/deep/table.csv"}
    assert [(file.path, file.size) for file in workspace.files] == [
        ("context/files/load/deep/table.csv", 3)
    ]
    result = read(workspace, "previous_results.json")["load"]
    assert result["description"] == "what load was to do"
    assert result["result"]["data"] == {"n": 2}


def test_a_copy_does_not_share_its_bytes_with_the_original(
    tmp_path: Path, made: Path
) -> None:
    (made / "table.csv").write_text("1,2")
    order = an_order(tmp_path / "count", dependencies=(a_dependency("load", made),))
    workspace = prepare(order)
    (workspace.root / "context" / "files" / "load" / "table.csv").write_text("changed")
    assert (made / "table.csv").read_text() == "1,2"


def test_links_that_lead_outside_are_left_out_and_named(
    tmp_path: Path, made: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("s3cret")
    (made / "table.csv").write_text("1")
    (made / "file").symlink_to(tmp_path / "secret" / "key")
    (made / "folder").symlink_to(tmp_path / "secret")
    (made / "up").symlink_to("../..")
    (made / "loop").symlink_to("loop")
    (made / "gone").symlink_to("nowhere")
    (made / "alias").symlink_to(made / "table.csv")
    order = an_order(tmp_path / "count", dependencies=(a_dependency("load", made),))
    workspace = prepare(order)
    assert copied(workspace) == {"load", "load/table.csv", "load/alias"}
    assert {Path(path).name for path in workspace.left_out} == {
        *("file", "folder", "up", "loop", "gone")
    }
    alias = workspace.root / "context" / "files" / "load" / "alias"
    assert alias.resolve() == alias.with_name("table.csv").resolve()


def test_what_is_no_file_is_left_out_without_waiting_for_it(
    tmp_path: Path, made: Path
) -> None:
    os.mkfifo(made / "pipe")
    order = an_order(tmp_path / "count", dependencies=(a_dependency("load", made),))
    assert [Path(path).name for path in prepare(order).left_out] == ["pipe"]


def test_the_users_files_are_copied(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "data.csv").write_text("1")
    order = an_order(tmp_path / "count", inputs_dir=str(tmp_path / "inputs"))
    workspace = prepare(order)
    assert [file.path for file in workspace.files] == ["context/inputs/data.csv"]


def test_a_retry_begins_with_an_empty_output_and_keeps_the_old_one(
    tmp_path: Path,
) -> None:
    order = an_order(tmp_path / "count")
    (prepare(order).output / "result.json").write_text("stale")
    error = PreviousAttempt(attempt=1, agent_id="agent_2", error="too slow")
    again = prepare(an_order(tmp_path / "count", attempt=2, previous_attempts=(error,)))
    assert list(again.output.iterdir()) == []
    assert (again.root / "attempts" / "1" / "result.json").read_text() == "stale"
    assert read(again, "previous_attempts.json") == [
        {"attempt": 1, "agent_id": "agent_2", "error": "too slow"}
    ]


def test_what_was_kept_before_is_never_overwritten(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (prepare(an_order(tmp_path / "count", attempt=2)).output / "x").write_text(text)
    kept = prepare(an_order(tmp_path / "count", attempt=2)).root / "attempts"
    assert (kept / "1" / "x").read_text() == "first"
    assert (kept / "1.2" / "x").read_text() == "second"


def test_a_stale_result_never_counts_for_a_first_attempt(tmp_path: Path) -> None:
    (tmp_path / "count" / "output").mkdir(parents=True)
    (tmp_path / "count" / "output" / "result.json").write_text("{}")
    assert list(prepare(an_order(tmp_path / "count")).output.iterdir()) == []


def test_context_is_filled_anew(tmp_path: Path) -> None:
    workspace = prepare(an_order(tmp_path / "count"))
    (workspace.root / "context" / "left").write_text("by the last attempt")
    (workspace.root / "temp" / "draft").write_text("kept")
    prepare(an_order(tmp_path / "count", attempt=2))
    assert not (workspace.root / "context" / "left").exists()
    assert (workspace.root / "temp" / "draft").read_text() == "kept"


def test_a_context_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (tmp_path / "count").mkdir()
    for name in ("context", "output"):
        (tmp_path / "count" / name).symlink_to(tmp_path / "elsewhere")
    workspace = prepare(an_order(tmp_path / "count"))
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["precious"]
    assert not workspace.output.is_symlink()


def in_the_way(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "count"


def no_space(tmp_path: Path) -> Path:
    return Path("/dev/full/count")


@pytest.mark.parametrize("place", [in_the_way, no_space])
def test_what_is_in_the_way_is_named(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    path = place(tmp_path)
    with pytest.raises(WorkspaceError) as caught:
        prepare(an_order(path))
    assert str(path) in caught.value.message
    assert "Not a directory" in caught.value.message


def test_a_dependency_whose_files_are_gone_is_named(tmp_path: Path) -> None:
    order = an_order(
        tmp_path / "count", dependencies=(a_dependency("load", tmp_path / "gone"),)
    )
    with pytest.raises(WorkspaceError, match=r"gone.*No such file"):
        prepare(order)


def test_copying_ends_where_it_is_told_to(tmp_path: Path, made: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    (made / "table.csv").touch()
    order = an_order(tmp_path / "count", dependencies=(a_dependency("load", made),))
    with pytest.raises(StoppedError):
        prepare(order, stop)


def resumed(folder: Path, attempt: int = 2, **changes: Any) -> RunAttempt:
    return an_order(folder, attempt=attempt, resumes=True, **changes)


def test_an_attempt_that_goes_on_finds_everything_but_context_as_it_was(
    tmp_path: Path,
) -> None:
    first = prepare(an_order(tmp_path / "count"))
    (first.output / "result.json").write_text("unfinished")
    (first.root / "temp" / "draft").write_text("kept")
    (first.root / "notes").write_text("kept")
    (first.root / "context" / "left").write_text("by the last attempt")
    error = PreviousAttempt(attempt=1, agent_id="agent_2", error="killed")
    again = prepare(resumed(tmp_path / "count", previous_attempts=(error,)))
    assert (again.output / "result.json").read_text() == "unfinished"
    assert (again.root / "temp" / "draft").read_text() == "kept"
    assert (again.root / "notes").read_text() == "kept"
    assert not (again.root / "attempts").exists()
    names = {path.name for path in (again.root / "context").iterdir()}
    assert names == {
        *("task.json", "files", "previous_results.json", "previous_attempts.json"),
    }
    assert read(again, "task.json")["attempt"] == 2
    assert read(again, "previous_attempts.json")[0]["error"] == "killed"


def test_an_attempt_that_goes_on_where_nothing_is_left_begins(tmp_path: Path) -> None:
    workspace = prepare(resumed(tmp_path / "count"))
    assert list(workspace.output.iterdir()) == []
    assert read(workspace, "task.json")["attempt"] == 2


@pytest.mark.parametrize("name", ["output", "temp"])
@pytest.mark.parametrize("resumes", [False, True])
def test_what_only_looks_like_a_folder_is_replaced(
    tmp_path: Path, name: str, *, resumes: bool
) -> None:
    root = prepare(an_order(tmp_path / "count")).root
    (tmp_path / "elsewhere").mkdir()
    (root / name).rmdir()
    (root / name).symlink_to(tmp_path / "elsewhere")
    prepare(an_order(tmp_path / "count", attempt=2, resumes=resumes))
    assert not (root / name).is_symlink()
    (root / name).rmdir()
    (root / name).write_text("a file")
    prepare(an_order(tmp_path / "count", attempt=3, resumes=resumes))
    assert (root / name).is_dir()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("resumes", [False, True])
def test_a_workspace_that_was_not_quite_prepared_is_nobodys(
    tmp_path: Path, made: Path, *, resumes: bool
) -> None:
    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    first = prepare(an_order(tmp_path / "count"))
    (first.output / "result.json").write_text(result_json())
    assert left_result(first.root, 1).faults == ()
    (made / "table.csv").touch()
    order = an_order(
        tmp_path / "count",
        attempt=2,
        resumes=resumes,
        dependencies=(a_dependency("load", made),),
    )
    with pytest.raises(StoppedError):
        prepare(order, stop)
    for attempt in (1, 2):
        assert "does not exist" in left_result(first.root, attempt).faults[0]
    prepare(order)
    assert (left_result(first.root, 2).faults == ()) is resumes
