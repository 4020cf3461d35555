"""The keeper's log: of bounded size, and no reason to stop."""

import os
import sys
from pathlib import Path

import pytest

from mas.keeper.log import Log, tail


def test_lines_carry_when_and_who(tmp_path: Path) -> None:
    Log(tmp_path / "keeper.log").write("postgres", "ready")
    (line,) = (tmp_path / "keeper.log").read_text().splitlines()
    assert line.startswith("20")
    assert line.endswith(" postgres: ready")


def test_a_log_that_grew_large_starts_anew_and_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "keeper.log"
    log = Log(path)
    for number in range(3000):
        log.write("valkey", f"{number} " + "x" * 1000)
    kept = [path, path.with_name("keeper.log.old")]
    assert all(each.stat().st_size < 1.1 * 2**20 for each in kept)
    assert len(list(tmp_path.iterdir())) == 2
    assert " valkey: 2999 x" in tail(path)


def test_other_descriptors_end_up_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keeper.log"
    other = os.open(os.devnull, os.O_WRONLY)
    Log(path).take_over(other)
    os.write(other, b"a traceback\n")
    os.close(other)
    assert tail(path) == "a traceback"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_stops_nothing_and_leaves_the_evidence() -> None:
    log = Log(Path("/dev/full"))
    log.write("postgres", "no space")
    assert log.recent().endswith(" postgres: no space")


def test_evidence_is_the_last_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "keeper.log"
    assert tail(path) == ""
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    lines = tail(path).splitlines()
    assert len(lines) == 30
    assert lines[-1] == "line 4999"
