"""The file of a recording: written, read, and refused where it is not whole."""

import errno
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.errors import UsageError
from mas.gateway.cassettes.cassette import (
    VERSION,
    Answer,
    CassetteError,
    CassetteWriter,
    Exchange,
    part_of,
    read_cassette,
)
from mas.gateway.cassettes.inputs import (
    MAX_EMBEDDED_BYTES,
    Input,
    check_inputs,
    read_inputs,
)
from mas.gateway.cassettes.normal import Secrets
from tests.gateway.cassettes.taping import header, message
from tests.gateway.cassettes.taping import text as text_block

NO_SECRETS = Secrets([])


def exchange(ordinal: int = 1, **more: Any) -> Exchange:
    given = {"answer": Answer(status=200, message=message(text_block("é 1"))), **more}
    return Exchange(subtask="load", attempt=1, thread="main", ordinal=ordinal, **given)


def written(path: Path, *exchanges: Exchange, **more: Any) -> Path:
    writer = CassetteWriter(path, header(**more))
    for each in exchanges:
        writer.write(each)
    writer.close("completed")
    return path


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def rewritten(path: Path, *content: str) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in content).encode()))
    return path


def refusal(path: Path) -> CassetteError:
    with pytest.raises(CassetteError) as caught:
        read_cassette(path)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    exchanges = (exchange(1), exchange(2, answer=Answer(end="left")))
    path = written(tmp_path / "run", *exchanges, models=("claude-x",))

    cassette = read_cassette(path)

    assert cassette.header == header(models=("claude-x",))
    assert cassette.exchanges == exchanges
    assert cassette.status == "completed"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_json_lines_that_people_can_read(tmp_path: Path) -> None:
    first, middle, last = lines(written(tmp_path / "run", exchange()))

    assert json.loads(first) == {
        "format": "mas cassette",
        "version": 1,
        "recorded_at": "2026-11-25T00:00:00Z",
        "mas_version": "0.1.0",
        "task": "count",
        "inputs": [],
        "models": [],
    }
    assert "é 1" in middle
    assert json.loads(last) == {"end": True, "exchanges": 1, "status": "completed"}


@settings(max_examples=50, deadline=None)
@given(words=st.text(st.characters(exclude_categories=())))
def test_any_text_survives(
    tmp_path_factory: pytest.TempPathFactory, words: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "run"
    kept = exchange(answer=Answer(text=words))

    assert read_cassette(written(path, kept)).exchanges == (kept,)


def test_until_it_is_whole_it_is_a_part_and_the_older_one_stays(tmp_path: Path) -> None:
    path = written(tmp_path / "run", exchange())
    writer = CassetteWriter(path, header())
    writer.write(exchange(1))
    writer.write(exchange(2))

    assert len(read_cassette(path).exchanges) == 1  # the older one
    part = part_of(path)
    assert part.name == "run.part"
    unzip = zlib.decompressobj(wbits=31)
    assert unzip.decompress(part.read_bytes()).count(b"\n") == 3  # all, at any moment
    assert "cut off after 2 exchanges" in refusal(part).message

    writer.close("completed")
    assert len(read_cassette(path).exchanges) == 2
    assert not part.exists()


def test_a_recording_that_was_killed_is_told_from_none(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert "there is no recording" in refusal(path).message

    CassetteWriter(path, header()).abandon()
    error = refusal(path)
    assert "was not finished" in error.message
    assert str(part_of(path)) in error.message
    with pytest.raises(CassetteError, match="unfinished recording"):
        CassetteWriter(path, header())  # nothing of it is lost


def test_a_recording_of_nothing_leaves_no_file(tmp_path: Path) -> None:
    CassetteWriter(tmp_path / "run", header()).discard()

    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(CassetteError, match="cannot be written: No such file"):
        CassetteWriter(tmp_path / "nowhere" / "run", header())


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "run", exchange(1), exchange(2)).read_bytes()
    path = tmp_path / "cut"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])

        error = refusal(path)

        assert "cut off" in error.message or size < 2, size
        assert "again" in error.hint or size < 2, size


def test_lines_that_are_missing_are_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "run", exchange(1), exchange(2))
    head, first, second, footer = lines(path)

    assert "cut off after 2" in refusal(rewritten(path, head, first, second)).message
    missing = refusal(rewritten(path, head, first, footer)).message
    assert "has 1 exchanges and says 2" in missing
    late = refusal(rewritten(path, head, first, second, footer, first)).message
    assert "line 5" in late


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda line: line[:-9], "Unterminated"),
        (lambda line: line.replace('"ordinal":2', '"ordinal":"two"'), "ordinal"),
        (lambda line: line.replace('"thread"', '"tread"'), "thread"),
        (lambda line: "[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_line_is_named(
    tmp_path: Path, damage: Callable[[str], str], reason: str
) -> None:
    path = written(tmp_path / "run", exchange(1), exchange(2))
    head, first, second, footer = lines(path)

    error = refusal(rewritten(path, head, first, damage(second), footer))

    assert "line 3 of the recording" in error.message
    assert reason in error.message


def test_a_damaged_archive_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = written(tmp_path / "run", exchange(1), exchange(2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)

    assert "damaged" in refusal(path).message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f",
        b"a text",
        gzip.compress(b"a text\n"),
        gzip.compress(b""),
        gzip.compress(b'{"format": "another"}\n'),
        gzip.compress(b"[]\n"),
    ],
)
def test_another_file_is_no_recording(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)

    assert "is not a recording of mas" in refusal(path).message


def test_a_folder_is_no_recording(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in refusal(tmp_path).message


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (VERSION + 1, "written by a newer mas, 0.1.0: version 2 of the format"),
        (0, "has version 0"),
        ("one", "has version 'one'"),
    ],
)
def test_another_version_is_refused(
    tmp_path: Path, version: object, words: str
) -> None:
    path = written(tmp_path / "run", exchange())
    head, *others = lines(path)
    changed = json.dumps(json.loads(head) | {"version": version})

    assert words in refusal(rewritten(path, changed, *others)).message


def test_only_the_recorded_task_can_be_replayed(tmp_path: Path) -> None:
    cassette = read_cassette(written(tmp_path / "run", task="count {secret} (all)"))

    cassette.check_task("count sk-1 and\nsk-2 (all)")
    with pytest.raises(CassetteError, match="recording of another task") as caught:
        cassette.check_task("count it (all)!")
    assert "'count it (all)!'" in caught.value.hint


def folder_of_inputs(root: Path) -> list[Path]:
    data = root / "data"
    (data / "deep" / "empty").mkdir(parents=True)
    (data / "a.csv").write_text("1,2\n")
    (data / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (data / "deep" / "run.sh").chmod(0o755)
    (data / "loop").symlink_to(data)
    (root / "names.txt").write_bytes(b"\0\xff")
    return [data, root / "names.txt"]


def test_inputs_are_kept_and_written_out_again(tmp_path: Path) -> None:
    given_inputs = folder_of_inputs(tmp_path / "old")
    path = written(tmp_path / "run", inputs=read_inputs(given_inputs, NO_SECRETS))
    target = tmp_path / "new"

    restored = read_cassette(path).restore_inputs(target)

    assert restored == [target / "data", target / "names.txt"]
    assert (target / "data" / "a.csv").read_text() == "1,2\n"
    assert (target / "data" / "deep" / "run.sh").stat().st_mode & 0o111
    assert not (target / "data" / "a.csv").stat().st_mode & 0o111
    assert (target / "data" / "deep" / "empty").is_dir()
    assert (target / "names.txt").read_bytes() == b"\0\xff"
    assert check_inputs(restored, read_cassette(path).header.inputs) == []


def test_inputs_that_differ_are_named(tmp_path: Path) -> None:
    given_inputs = folder_of_inputs(tmp_path)
    kept = read_inputs(given_inputs, NO_SECRETS)
    (tmp_path / "data" / "a.csv").write_text("1,3\n")
    (tmp_path / "data" / "b.csv").write_text("")
    (tmp_path / "data" / "deep" / "run.sh").unlink()

    assert check_inputs(given_inputs, kept) == [
        "the input data/a.csv is not the one of the recording",
        "the input data/b.csv was not there in the recording",
        "the input data/deep/run.sh of the recording is missing",
    ]
    assert check_inputs([given_inputs[1]], kept) == []


def test_a_large_input_is_kept_by_its_hash_and_asked_for(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(MAX_EMBEDDED_BYTES - 3))
    small = tmp_path / "small.txt"
    small.write_text("four")
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("abc")
    kept = read_inputs([large, small, tiny], NO_SECRETS)  # together at most so much
    assert [each.content is None for each in kept] == [False, True, False]
    cassette = read_cassette(written(tmp_path / "run", inputs=kept[1:]))

    with pytest.raises(UsageError, match=r"small.txt \(4 bytes\)") as caught:
        cassette.restore_inputs(tmp_path / "new")
    assert "--input small.txt" in caught.value.hint

    restored = cassette.restore_inputs(tmp_path / "new", given=(small,))
    assert restored == [tmp_path / "new" / "tiny.txt"]
    assert check_inputs([small], kept) == []


def test_an_input_that_holds_a_secret_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KEY=hush-hush")

    (kept,) = read_inputs([path], Secrets(["hush-hush"]))

    assert kept.content is None


@pytest.mark.parametrize(
    "name",
    ["../out", "/etc/out", "a/../../out", "..", ".", "", "/", "./out", "a\0b", "../"],
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    empty = read_inputs([], NO_SECRETS)
    bad = Input(path=name, sha256="", size=0, content="")
    path = written(tmp_path / "run", inputs=(*empty, bad))
    target = tmp_path / "deep" / "new"
    target.mkdir(parents=True)

    with pytest.raises(UsageError, match="bad name"):
        read_cassette(path).restore_inputs(target)

    assert sorted(each.name for each in tmp_path.iterdir()) == ["deep", "run"]
    assert list(target.iterdir()) == []


def test_an_input_that_was_changed_in_the_recording_is_refused(tmp_path: Path) -> None:
    bad = Input(path="a.csv", sha256="0" * 64, size=1, content="QQ==")
    path = written(tmp_path / "run", inputs=(bad,))

    with pytest.raises(UsageError, match=r"a\.csv is damaged"):
        read_cassette(path).restore_inputs(tmp_path / "new")


def test_a_full_disk_is_an_os_error_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    writer = CassetteWriter(path, header())
    writer.write(exchange())

    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "_put", full)
    with pytest.raises(OSError, match="No space left"):
        writer.write(exchange(2))
    writer.abandon()

    assert "not finished" in refusal(path).message
    assert "cut off after 1 exchanges" in refusal(part_of(path)).message
