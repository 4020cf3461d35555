"""result.json counts only as it should be; the task's result is the sum of them."""

import json
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas.core.result import MAX_RESULT_BYTES, aggregate, check_result, inside_output
from mas.model import Plan, Status, Subtask

OUTPUT = PurePosixPath("/shared/task/load/output")
GOOD: dict[str, Any] = {
    "success": True,
    "data": {"rows": 3},
    "summary": "three rows",
    "files_created": ["a.csv"],
}


def faults_of(value: object) -> list[str]:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    output, faults = check_result(raw, OUTPUT)
    assert (output is None) == bool(faults)
    return faults


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=6,
)


def test_a_good_result_is_returned_as_it_is() -> None:
    assert check_result(json.dumps(GOOD).encode(), OUTPUT) == (GOOD, [])


@pytest.mark.parametrize("field", ["success", "data", "summary", "files_created"])
def test_each_field_is_needed_and_typed(field: str) -> None:
    missing = {name: value for name, value in GOOD.items() if name != field}
    assert f"the field '{field}' is missing" in faults_of(missing)[0]
    assert f"the field '{field}' must be" in faults_of(GOOD | {field: 3.5})[0]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is not valid JSON"),
        (b'{"a": -Infinity}', "Infinity is not valid JSON"),
        (b'{"a": 1e400000}', "too large"),
        (b'{"a": 18446744073709551616}', "more than 64 bits"),
        (b'{"a": -9223372036854775809}', "more than 64 bits"),
        (b'{"a": %s}' % (b"9" * 5000), "more than 64 bits"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        *(
            (b'{"a": %s1%s}' % (b"[" * depth, b"]" * depth), "levels deep")
            for depth in (64, 500)
        ),
        (b" " * (MAX_RESULT_BYTES + 1), "the limit is"),
    ],
)
def test_what_is_no_usable_json_is_told(raw: bytes, told: str) -> None:
    assert told in faults_of(raw)[0]


@pytest.mark.parametrize("depth", range(900, 1000))
def test_no_depth_makes_the_check_fail(depth: int) -> None:
    assert faults_of(b'{"a": %s1%s}' % (b"[" * depth, b"]" * depth))


def test_a_result_may_be_nested() -> None:
    nested: object = 1
    for _ in range(60):
        nested = [nested]
    assert faults_of(GOOD | {"data": {"nested": nested}}) == []


def test_what_jsonb_refuses_is_a_fault() -> None:
    assert "NUL" in faults_of(GOOD | {"summary": "a\0b"})[0]
    assert "surrogate" in faults_of(GOOD | {"data": {"k": "\ud800"}})[0]
    assert faults_of(GOOD | {"summary": "a backslash, u0000: \\u0000"}) == []


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", "", 3, "a\0b", "output", "."]
)
def test_paths_that_lead_outside_output_are_faults(path: object) -> None:
    assert "files_created holds" in faults_of(GOOD | {"files_created": [path]})[0]


@pytest.mark.parametrize("path", ["a/b.md", "output/a/b.md", f"{OUTPUT}/a/b.md"])
def test_three_ways_to_name_a_file_mean_the_same(path: str) -> None:
    assert inside_output(path, OUTPUT) == PurePosixPath("a/b.md")


@given(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
def test_nothing_makes_the_check_fail_and_what_passes_is_whole(raw: bytes) -> None:
    output, faults = check_result(raw, OUTPUT)
    assert (output is None) == bool(faults)
    if output is not None:
        assert json.loads(raw) == output


def test_the_tasks_result_holds_each_subtask_and_every_file() -> None:
    plan = Plan((Subtask(id="a", description="A"), Subtask(id="b", description="B")))
    result = aggregate(
        plan,
        {"a": GOOD},
        {"a": Status.COMPLETED, "b": Status.FAILED},
        {"a": ["/x/a.csv"]},
    )
    assert result["summary"].splitlines() == [
        "1 of 2 subtasks completed.",
        "a: three rows",
    ]
    assert result["subtasks"]["a"]["result"] == GOOD
    assert result["subtasks"]["b"]["status"] == "failed"
    assert result["files"] == ["/x/a.csv"]
