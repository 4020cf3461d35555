"""parse_plan: the planner's answer, in every form, and nothing but PlanError else."""

import json
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas.core.plan import PLAN_SCHEMA, parse_plan, plan_from, single_subtask_plan
from mas.errors import PlanError
from mas.model import Plan, Subtask


def reasons_of(value: object) -> tuple[str, ...]:
    with pytest.raises(PlanError) as caught:
        parse_plan(value if isinstance(value, str) else json.dumps(value))
    assert caught.value.hint
    return caught.value.reasons


def one(**fields: object) -> dict[str, Any]:
    return {"subtasks": [{"key": "a", "description": "do it", **fields}]}


def test_reads_every_field() -> None:
    fields = {
        "required_capabilities": ["web_scraping"],
        "dependencies": [],
        "priority": 9,
        "estimated_duration": 12,
        "input_data": {"url": "https://example.com", "depth": [1, 2.5, None, True]},
    }
    assert parse_plan(json.dumps(one(**fields))).subtasks == (
        Subtask(
            id="a",
            description="do it",
            required_capabilities=("web_scraping",),
            priority=9,
            estimated_duration=12.0,
            input_data={"url": "https://example.com", "depth": [1, 2.5, None, True]},
        ),
    )


def test_missing_and_null_fields_get_the_defaults() -> None:
    names = ("required_capabilities", "dependencies", "priority", "input_data")
    nulls = dict.fromkeys((*names, "estimated_duration"))
    expected = Plan((Subtask(id="a", description="do it"),))
    assert parse_plan(json.dumps(one())) == expected
    assert parse_plan(json.dumps(one(**nulls))) == expected


def test_bare_array_with_positions_gets_keys_by_position() -> None:
    items = [
        {"description": "fetch"},
        {"description": "count", "dependencies": [0]},
        {"key": "report", "description": "write", "dependencies": [1, "s1"]},
    ]
    plan = parse_plan(json.dumps(items))
    assert [(item.id, item.dependencies) for item in plan.subtasks] == [
        ("s1", ()),
        ("s2", ("s1",)),
        ("report", ("s2", "s1")),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{}\n```",
        "```\n{}\n```",
        "\n  ```JSON\n{}\n  ```  \n",
        "{}",
        "\n {} \n",
    ],
)
def test_fences_around_the_answer_are_tolerated(text: str) -> None:
    value = json.dumps(one(description="use ``` in it"), indent=1)
    assert parse_plan(text.replace("{}", value)).subtasks[0].id == "a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key": 7}, "key must be a string"),
        ({"description": None}, "description is missing"),
        ({"description": ["x"]}, "description must be a string, not ['x']"),
        ({"description": "\0"}, "description holds the character NUL"),
        ({"description": "\ud800"}, "description holds half of a surrogate pair"),
        ({"required_capabilities": "web_scraping"}, "a list of capability names"),
        ({"required_capabilities": ["a", 1]}, "a list of capability names"),
        ({"dependencies": "b"}, "a list of keys"),
        ({"dependencies": [True]}, "a list of keys"),
        ({"dependencies": [0.0]}, "a list of keys"),
        ({"dependencies": [1]}, "has the position 1; positions go from 0 to 0"),
        ({"dependencies": [-1]}, "has the position -1"),
        ({"priority": "high"}, "priority must be a whole number from 0 to 10"),
        ({"priority": True}, "priority must be"),
        ({"priority": 1.5}, "priority must be"),
        ({"estimated_duration": "1h"}, "estimated_duration must be a number"),
        ({"estimated_duration": False}, "estimated_duration must be a number"),
        ({"input_data": [1]}, "input_data must be an object"),
        ({"input_data": {"n": 2**64}}, "input_data holds a whole number of more"),
        ({"input_data": {"\0": 1}}, "input_data holds the character NUL"),
        ({"input_data": {"x": "y" * 3 + "\udfff"}}, "half of a surrogate pair"),
    ],
)
def test_wrong_values_are_named_with_subtask_and_field(
    fields: dict[str, object], words: str
) -> None:
    (reason,) = reasons_of(one(**fields))
    assert words in reason
    assert reason.startswith("subtask 's1':" if "key" in fields else "subtask 'a':")


def test_every_reason_is_given_at_once() -> None:
    items = [{"key": "a", "priority": "x"}, 5, {"key": "c", "dependencies": [9]}]
    assert len(reasons_of(items)) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("I cannot do that.", "not valid JSON"),
        ("{}", 'a list called "subtasks"'),
        ("null", 'a list called "subtasks"'),
        ('{"subtasks": {}}', 'a list called "subtasks"'),
        ("[" * 100_000, "nested too deeply"),
        (f'[{{"description": "x", "priority": {"9" * 5000}}}]', "not valid JSON"),
    ],
)
def test_what_is_no_plan_is_refused_in_words(text: str, words: str) -> None:
    (reason,) = reasons_of(text)
    assert words in reason


def test_deep_input_data_is_refused() -> None:
    value: dict[str, object] = {}
    for _ in range(100):
        value = {"in": value}
    (reason,) = reasons_of(one(input_data=value))
    assert "nested more than 64 deep" in reason


def test_a_plan_from_toml_may_not_hold_dates() -> None:
    with pytest.raises(PlanError) as caught:
        plan_from(one(input_data={"day": date(2026, 1, 1)}))
    assert "put it in quotes" in caught.value.reasons[0]
    with pytest.raises(PlanError) as caught:
        plan_from(one(input_data={"limit": float("inf")}))
    assert "not finite" in caught.value.reasons[0]


def test_an_empty_list_is_read_as_an_empty_plan() -> None:
    assert parse_plan("[]") == Plan(())


def test_the_fallback_is_the_whole_task_as_one_subtask() -> None:
    plan = single_subtask_plan("do all", ("web_scraping",))
    assert plan.subtasks == (
        Subtask(
            id="task", description="do all", required_capabilities=("web_scraping",)
        ),
    )


def objects_of(schema: object) -> list[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else []
    found = [item for value in inner for item in objects_of(value)]
    if isinstance(schema, dict) and schema.get("type") == "object":
        found.append(schema)
    return found


def test_the_schema_is_one_that_structured_output_accepts() -> None:
    objects = objects_of(PLAN_SCHEMA)
    assert len(objects) == 2
    for item in objects:
        assert item["additionalProperties"] is False
        assert set(item["required"]) == set(item["properties"])
    text = json.dumps(PLAN_SCHEMA)
    for keyword in ("minimum", "maximum", "pattern", "minLength", "maxItems"):
        assert f'"{keyword}"' not in text


def test_the_schema_asks_for_what_is_read() -> None:
    fields = PLAN_SCHEMA["properties"]["subtasks"]["items"]["properties"]
    expected = {"key", *Subtask.__struct_fields__} - {"id", "input_data"}
    assert set(fields) == expected


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
    max_leaves=8,
)
subtasks = st.builds(
    Subtask,
    id=names,
    description=names,
    required_capabilities=st.lists(names, max_size=3).map(tuple),
    dependencies=st.lists(names, max_size=3).map(tuple),
    priority=st.integers(0, 10),
    estimated_duration=st.floats(0, 1e9),
    input_data=st.dictionaries(names, json_values, max_size=3),
)


@given(st.lists(subtasks, max_size=5), st.booleans())
def test_round_trip(items: list[Subtask], bare: bool) -> None:
    written = msgspec.to_builtins(items)
    for item in written:
        item["key"] = item.pop("id")
    text = json.dumps(written if bare else {"subtasks": written})
    assert parse_plan(text) == Plan(tuple(items))


field_names = st.sampled_from(["subtasks", "key", *Subtask.__struct_fields__])
garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(field_names | st.text(), inner)
    ),
    max_leaves=30,
)


@settings(max_examples=300)
@given(garbage.map(json.dumps) | st.text() | st.text('[]{}",:0 `\\u\n'))
def test_garbage_never_raises_anything_but_plan_error(text: str) -> None:
    try:
        plan = parse_plan(text)
    except PlanError as error:
        assert error.reasons
        assert all("\n" not in reason for reason in error.reasons)
    else:
        encoded = msgspec.json.encode([item.input_data for item in plan.subtasks])
        assert b"\\u0000" not in encoded.replace(b"\\\\", b"")
        msgspec.msgpack.encode([item.input_data for item in plan.subtasks])


broken_subtask = st.fixed_dictionaries(
    {"description": st.text() | garbage},
    optional=dict.fromkeys(
        ("key", "dependencies", "required_capabilities", "priority", "input_data"),
        garbage,
    ),
)


@given(st.lists(broken_subtask, min_size=1, max_size=4))
def test_broken_subtasks_never_raise_anything_but_plan_error(
    items: list[dict[str, Any]],
) -> None:
    try:
        plan = plan_from(items)
    except PlanError as error:
        assert all(reason.startswith("subtask ") for reason in error.reasons)
    else:
        assert len(plan.subtasks) == len(items)
