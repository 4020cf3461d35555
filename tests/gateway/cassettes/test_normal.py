"""What is taken out of a recording: for good, to be put in again, to be compared."""

import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.gateway.cassettes.normal import (
    SECRET,
    Names,
    Placeholders,
    Secrets,
    mapped,
    spilled,
    without_noise,
)

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
NAMES = Names(
    workspace=f"/shared/{TASK}/load",
    real_workspace=f"/private/shared/{TASK}/load",
    task=TASK,
    session="16fd2706-8baf-433b-82eb-8c7fada847da",
    spilled=("/config/16fd2706-8baf-433b-82eb-8c7fada847da/tool-results/b1.txt",),
)
OTHER = Names(
    workspace="/home/x/new/load",
    task="7c9e6679-7425-40de-944b-e07fc1f90ae7",
    session="886313e1-3b8a-5372-9b90-0c9aee199e5d",
    spilled=("/c/tool-results/z9.txt",),
)

pieces = st.sampled_from(
    [
        *NAMES.values().values(),
        NAMES.real_workspace,
        "{workspace}",
        "{=workspace}",
        "{==task}",
        "{spilled 1}",
        "{spilled 2}",
        "{secret}",
        "{",
        "}",
        "=",
        "/",
        "/x",
        "_more",
        ".txt",
        " ",
    ]
)


def put(text: str) -> str:
    return Placeholders(NAMES).put(text)


@settings(max_examples=300)
@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_putting_placeholders_is_undone_exactly(text: str) -> None:
    names = Names(workspace=NAMES.workspace, task=NAMES.task, session=NAMES.session)
    placeholders = Placeholders(names)

    assert placeholders.resolve(placeholders.put(text)) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"cd /shared/{TASK}/load", "cd {workspace}"),
        (f"/shared/{TASK}/load/output/a.csv", "{workspace}/output/a.csv"),
        (f"/private/shared/{TASK}/load/a", "{workspace}/a"),
        (f"file:///shared/{TASK}/load.", "file://{workspace}."),
        (f"/shared/{TASK}/clean/output", "{folder}/clean/output"),
        (f"/shared/{TASK}/load_more/x", "{folder}/load_more/x"),
        (f"/shared/{TASK}", "{folder}"),
        (f"/backup/shared/{TASK}/load", "/backup/shared/{task}/load"),
        (f"task_{TASK.replace('-', '')}.rows", "task_{task_hex}.rows"),
        (f"cat {NAMES.spilled[0]}", "cat {spilled 1}"),
        (f"session {NAMES.session}", "session {session}"),
        ('f"{workspace}/{name}"', 'f"{=workspace}/{name}"'),
    ],
)
def test_names_of_the_run_become_placeholders(text: str, kept: str) -> None:
    assert put(text) == kept


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        ("cd {workspace}", "cd /home/x/new/load"),
        ("{folder}/clean", "/home/x/new/clean"),
        ("{task} {task_hex}", f"{OTHER.task} {OTHER.task.replace('-', '')}"),
        ("{session} {spilled 1}", f"{OTHER.session} /c/tool-results/z9.txt"),
        ("{spilled 2} {unknown}", "{spilled 2} {unknown}"),  # not of this run
        ("{=workspace} {==task}", "{workspace} {=task}"),
    ],
)
def test_placeholders_become_names_of_the_run(kept: str, text: str) -> None:
    assert Placeholders(OTHER).resolve(kept) == text


def test_a_run_without_names_changes_nothing_but_the_marks() -> None:
    nobody = Placeholders(Names(workspace="/", task="t1", session="s"))

    assert nobody.put("/ t1 s {task}") == "/ t1 s {=task}"
    assert nobody.resolve("/ t1 s {=task}") == "/ t1 s {task}"


def test_files_with_long_results_are_found_in_order_and_once() -> None:
    cli = "/Application Support/c/projects/-x/s/tool-results"
    texts = [
        f"<persisted-output>\nOutput too large (1.2MB). Full output saved to: "
        f"{cli}/b2.txt\n\nPreview",
        f"Error: result exceeds the maximum. Output has been saved to {cli}/mcp-a.txt.",
        f"saved to: {cli}/b2.txt\n saved to: /elsewhere/x.txt",
    ]

    assert spilled(texts) == (f"{cli}/b2.txt", f"{cli}/mcp-a.txt")


secret_values = st.text(min_size=6, max_size=30)


@settings(max_examples=100)
@given(secret_values, st.text(max_size=10), st.text(max_size=10))
def test_a_secret_is_masked_in_every_form(secret: str, before: str, after: str) -> None:
    secrets = Secrets([secret])
    for form in (
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
    ):
        text = f"{before}{form}{after}"
        assert "{secret}" in secrets.mask(text)
        assert secrets.are_in(text.encode())
        assert secrets.mask(form) == SECRET


def test_a_key_of_anthropic_is_masked_though_nobody_named_it() -> None:
    assert Secrets([]).mask("is sk-ant-api03-Ab_c-9 it") == "is {secret} it"
    assert Secrets(["", "ab", "abc"]).mask("xabcx") == "x{secret}x"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("<system-reminder>\na\n</system-reminder>\ncount", "count"),
        (
            "a<system-reminder>b</system-reminder>c<system-reminder>",
            "ac<system-reminder>",
        ),
        ("on 2026-11-25T10:38:07.123Z", "on 2027-01-02"),
        ("-rw-r--r-- 1 root Nov 25 10:38 a", "-rw-r--r-- 1 root Dec 1 09:01 a"),
        ("Wed Nov 25 10:38:07", "Thu Nov 26 11:00:00"),
        ("tests passed in 1.23s", "tests passed in 0.9s"),
        ("agentId: a049da\nduration_ms: 143", "agentId: ae6c59\nduration_ms: 12"),
        ("at http://127.0.0.1:38249/x", "at http://127.0.0.1:41/x"),
        ("process 8508 ended", "process 12 ended"),
        ("toolu_01abc and msg_1", "toolu_9 and msg_2"),
        (TASK, OTHER.task),
        ("<Foo at 0x7f12ab34>", "<Foo at 0x55aa6677>"),
        ("/tmp/tmpab12cd34/x", "/tmp/tmpzz98yy76/x"),
        ("a\ngitStatus: M x\n b", "a"),
        ("cc_version=2.1.332.3eb;", "cc_version=2.2;"),
    ],
)
def test_noise_makes_no_difference(first: str, second: str) -> None:
    assert without_noise(first) == without_noise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("7 lines", "8 lines"), ("exit code 1", "exit code 2"), ("a.csv", "b.csv")],
)
def test_what_matters_makes_one(first: str, second: str) -> None:
    assert without_noise(first) != without_noise(second)


@given(st.text())
def test_taking_noise_out_ends(text: str) -> None:
    once = without_noise(text)
    assert len(once) <= len(text) * 3 + 20


@pytest.mark.parametrize(
    "hostile",
    [
        "<system-reminder>",
        "saved to /",
        "saved to /tool-results/x ",
        "/tool-results/x",
        "a/",
        "1",
        "{workspace",
        "Mon Jan ",
    ],
)
def test_a_hostile_text_takes_no_longer_than_another(hostile: str) -> None:
    text = hostile * (200_000 // len(hostile))
    started = time.process_time()

    spilled([text])
    without_noise(put(text))

    assert time.process_time() - started < 2.0


def test_every_string_of_a_value_is_changed() -> None:
    value = {"a": ["a", {"a": "a"}, 1, None, True], "b": ("a",)}

    assert mapped(value, lambda text: text.replace("a", "x")) == {
        "x": ["x", {"x": "x"}, 1, None, True],
        "b": ["x"],
    }
