"""The bundled table, and what is said about a file before anything starts."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from mas.demo.source import BUNDLED, check_table
from mas.errors import UsageError


def test_the_bundled_table_is_the_one_whose_source_is_named() -> None:
    check_table(BUNDLED)
    source = BUNDLED.with_name("SOURCE.md").read_text(encoding="utf-8")
    assert sha256(BUNDLED.read_bytes()).hexdigest() in source
    assert "10.1371/journal.pone.0090081" in source
    assert "CC0" in source


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as raised:
        check_table(path)
    assert "\n" not in raised.value.message
    assert raised.value.hint
    return raised.value


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "no.csv").message
    assert "is a folder" in refusal(tmp_path).message
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").message


def test_what_is_no_table_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.csv"
    path.write_bytes(b"\x89PNG\0")
    assert refusal(path).message == f"{path} is a binary file, not a CSV"


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.csv"))
    try:
        path.write_text("a,b\n1,2\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert "not UTF-8" in refusal(path).message
