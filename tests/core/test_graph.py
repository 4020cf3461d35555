"""check_plan finds every fault and no other; levels and paths are the longest ones."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas.config import DEFAULT_ROSTER
from mas.core.graph import check_plan, critical_path, remaining_path_s, stages
from mas.errors import PlanError
from mas.model import CAPABILITIES, AgentSpec, Plan, Subtask


def subtask(key: str, *dependencies: str, seconds: float = 60.0) -> Subtask:
    return Subtask(
        id=key,
        description=f"do {key}",
        dependencies=dependencies,
        estimated_duration=seconds,
    )


def faults_of(*subtasks: Subtask, max_subtasks: int = 20_000) -> list[str]:
    return check_plan(
        Plan(subtasks),
        DEFAULT_ROSTER,
        capabilities=CAPABILITIES,
        max_subtasks=max_subtasks,
    )


DIAMOND = (
    subtask("a", seconds=1),
    subtask("b", "a", seconds=5),
    subtask("c", "a", seconds=2),
    subtask("d", "b", "c", seconds=1),
)


def test_a_good_plan_has_no_faults() -> None:
    assert faults_of(*DIAMOND) == []


def test_an_empty_plan_is_a_fault() -> None:
    assert faults_of() == ["the plan has no subtasks; give at least one"]


def test_too_many_subtasks_are_a_fault() -> None:
    (fault,) = faults_of(*DIAMOND, max_subtasks=3)
    assert "4 subtasks and at most 3" in fault


def test_a_cycle_is_printed() -> None:
    (fault,) = faults_of(subtask("a", "c"), subtask("b", "a"), subtask("c", "b"))
    assert "a → c → b → a" in fault


def test_every_separate_cycle_is_told_even_where_one_leads_to_another() -> None:
    first = (subtask("a", "x", "b"), subtask("b", "a"))
    second = (subtask("x", "y"), subtask("y", "x"))
    faults = faults_of(*first, *second)
    assert len(faults) == 2
    assert any("a → b → a" in fault for fault in faults)
    assert any("x → y → x" in fault for fault in faults)


def test_a_subtask_that_depends_on_itself_is_a_fault_of_its_own() -> None:
    (fault,) = faults_of(subtask("a", "a"))
    assert fault == "subtask 'a' depends on itself; remove that dependency"


def test_an_unknown_dependency_is_a_fault() -> None:
    (fault,) = faults_of(subtask("a", "x", "x"))
    assert "subtask 'a' depends on 'x', which is not in the plan" in fault


def test_the_same_dependency_twice_is_harmless() -> None:
    plan = (subtask("a"), subtask("b", "a", "a"))
    assert faults_of(*plan) == []
    assert stages(Plan(plan)) == [["a"], ["b"]]


def test_a_key_used_twice_is_a_fault() -> None:
    (fault,) = faults_of(subtask("a"), subtask("a"))
    assert "2 subtasks have the key 'a'" in fault


@pytest.mark.parametrize(
    ("one", "other"), [("Read", "read"), ("caf\u00e9", "cafe\u0301"), ("ß", "SS")]
)
def test_keys_that_are_one_folder_on_macos_are_a_fault(one: str, other: str) -> None:
    (fault,) = faults_of(subtask(one), subtask(other))
    assert "would be one folder" in fault


BAD_KEYS = [
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    "a/b",
    "a\\b",
    "a\nb",
    "a\0",
    "a\u200b",
    "\ud800",
    " a",
    "a ",
    "a" * 65,
    "\U0001f600" * 64,
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_no_folder_name_is_a_fault(key: str) -> None:
    (fault,) = faults_of(subtask(key))
    assert "choose another" in fault
    assert fault.isprintable()


@pytest.mark.parametrize("key", ["a", "a" * 64, "größe", "read it", "a.b-c_1", "1"])
def test_a_key_that_is_a_folder_name_is_fine(key: str) -> None:
    assert faults_of(subtask(key)) == []


@pytest.mark.parametrize("priority", [-1, 11, 10**30])
def test_a_priority_out_of_range_is_a_fault(priority: int) -> None:
    (fault,) = faults_of(replace(subtask("a"), priority=priority))
    assert "use 0 to 10" in fault


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_duration_that_is_none_is_a_fault(seconds: float) -> None:
    (fault,) = faults_of(subtask("a", seconds=seconds))
    assert "estimated_duration" in fault


@pytest.mark.parametrize("description", ["", " \n"])
def test_an_empty_description_is_a_fault(description: str) -> None:
    (fault,) = faults_of(replace(subtask("a"), description=description))
    assert "empty description" in fault


def test_an_unknown_capability_is_a_fault_that_names_the_known_ones() -> None:
    (fault,) = faults_of(replace(subtask("a"), required_capabilities=("magic",)))
    assert "'magic', which is not a capability" in fault
    assert all(name in fault for name in CAPABILITIES)


def test_a_subtask_that_no_agent_covers_at_all_is_a_fault() -> None:
    roster = (AgentSpec(id="agent_1", capabilities=("data_analysis",)),)

    def faults(*required: str) -> list[str]:
        plan = Plan((replace(subtask("a"), required_capabilities=required),))
        return check_plan(plan, roster, capabilities=CAPABILITIES, max_subtasks=5)

    (fault,) = faults("web_scraping", "code_generation")
    assert "no agent has any of it; the agents have: data_analysis" in fault
    assert faults("web_scraping", "data_analysis") == []
    assert faults() == []


@dataclass
class Fault:
    """A way to break a good plan, and words that the fault must contain."""

    words: str
    changes: dict[str, object] = field(default_factory=dict)


FAULTS = [
    Fault("use 0 to 10", {"priority": 11}),
    Fault("estimated_duration", {"estimated_duration": 0.0}),
    Fault("empty description", {"description": " "}),
    Fault("is not a capability", {"required_capabilities": ("magic",)}),
    Fault("not in the plan", {"dependencies": ("nowhere",)}),
]


@st.composite
def plans(draw: st.DrawFn, min_size: int = 1) -> Plan:
    """A random DAG, its subtasks in any order."""
    size = draw(st.integers(min_size, 12))
    made = []
    for number in range(size):
        chosen = draw(st.lists(st.integers(0, max(0, number - 1)), max_size=4))
        dependencies = [f"k{item}" for item in chosen] if number else []
        seconds = draw(st.integers(1, 100))
        made.append(subtask(f"k{number}", *dependencies, seconds=seconds))
    return Plan(tuple(draw(st.permutations(made))))


@given(plans())
def test_a_random_dag_passes(plan: Plan) -> None:
    assert faults_of(*plan.subtasks) == []


@given(plans(), st.sampled_from(FAULTS), st.data())
def test_an_injected_fault_is_found_alone(
    plan: Plan, fault: Fault, data: st.DataObject
) -> None:
    subtasks = list(plan.subtasks)
    at = data.draw(st.integers(0, len(subtasks) - 1))
    subtasks[at] = replace(subtasks[at], **fault.changes)
    (found,) = faults_of(*subtasks)
    assert fault.words in found
    assert repr(subtasks[at].id) in found


def cycles_of(*subtasks: Subtask) -> list[list[str]]:
    """The cycles that the faults print, as keys."""
    told = [fault for fault in faults_of(*subtasks) if "form a cycle" in fault]
    texts = [fault.split(", ", 1)[1].split(" (each", 1)[0] for fault in told]
    return [text.split(" → ") for text in texts]


@given(plans(min_size=2), st.data())
def test_an_injected_cycle_is_found_and_what_is_printed_is_one(
    plan: Plan, data: st.DataObject
) -> None:
    links = {item.id: item.dependencies for item in plan.subtasks}
    keys = st.sampled_from(sorted(links))
    ring = data.draw(st.lists(keys, min_size=2, max_size=5, unique=True))
    for key, after in pairwise([*ring, ring[0]]):
        links[key] = (*links[key], after)
    subtasks = [replace(item, dependencies=links[item.id]) for item in plan.subtasks]
    cycles = cycles_of(*subtasks)
    assert cycles
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        if not any("more" in key for key in cycle):
            assert all(after in links[key] for key, after in pairwise(cycle))
    with pytest.raises(PlanError) as caught:
        stages(Plan(tuple(subtasks)))
    assert any("cycle" in reason for reason in caught.value.reasons)


@given(plans())
def test_cutting_the_last_link_of_every_cycle_told_leaves_none(plan: Plan) -> None:
    keys = [item.id for item in plan.subtasks]
    after = dict(pairwise([*keys, keys[0]]))
    ring = [
        replace(item, dependencies=(*item.dependencies, after[item.id]))
        for item in plan.subtasks
    ]
    cut = {tuple(cycle[-2:]) for cycle in cycles_of(*ring)}
    assume(len(cut) < 10)  # no more than 10 are told
    mended = [
        replace(
            item,
            dependencies=tuple(
                key for key in item.dependencies if (item.id, key) not in cut
            ),
        )
        for item in ring
    ]
    assert cycles_of(*mended) == []


def test_levels_go_by_the_longest_way() -> None:
    plan = Plan((*DIAMOND, subtask("e", "a", "d"), subtask("f")))
    assert stages(plan) == [["a", "f"], ["b", "c"], ["d"], ["e"]]


def test_the_remaining_path_is_the_longest_and_includes_itself() -> None:
    assert remaining_path_s(Plan(DIAMOND)) == {"a": 7.0, "b": 6.0, "c": 3.0, "d": 1.0}


def test_the_critical_path_is_the_chain_that_takes_longest() -> None:
    assert critical_path(Plan(DIAMOND)) == ["a", "b", "d"]


@given(plans())
def test_levels_and_paths_keep_their_definitions(plan: Plan) -> None:
    by_key = {item.id: item for item in plan.subtasks}
    levels = stages(plan)
    level = {key: number for number, keys in enumerate(levels) for key in keys}
    assert sorted(level) == sorted(by_key)
    remaining = remaining_path_s(plan)
    for item in plan.subtasks:
        above = [level[key] for key in item.dependencies]
        assert level[item.id] == max(above, default=-1) + 1
        after = [remaining[o.id] for o in plan.subtasks if item.id in o.dependencies]
        assert remaining[item.id] == item.estimated_duration + max(after, default=0)
    path = critical_path(plan)
    assert all(key in by_key[after].dependencies for key, after in pairwise(path))
    seconds = sum(by_key[key].estimated_duration for key in path)
    assert seconds == max(remaining.values())


def test_a_chain_of_10_000_is_no_deeper_than_any_other() -> None:
    chain = [subtask("k0", seconds=1)]
    chain += [subtask(f"k{n}", f"k{n - 1}", seconds=1) for n in range(1, 10_000)]
    chain.reverse()
    assert faults_of(*chain) == []
    plan = Plan(tuple(chain))
    assert len(stages(plan)) == 10_000
    assert remaining_path_s(plan)["k0"] == 10_000
    assert critical_path(plan)[0] == "k0"


def test_a_cycle_of_10_000_is_told_in_one_short_sentence() -> None:
    ring = [subtask(f"k{n}", f"k{(n + 1) % 10_000}") for n in range(10_000)]
    (fault,) = faults_of(*ring)
    assert "more) →" in fault
    assert len(fault) < 300


def test_a_knot_of_cycles_is_told_in_part() -> None:
    keys = [f"k{n}" for n in range(60)]
    knot = [subtask(key, *(other for other in keys if other != key)) for key in keys]
    faults = faults_of(*knot)
    assert len(faults) == 11
    assert faults[-1] == "there are more cycles than these"


def test_a_dependency_out_of_the_plan_has_no_order() -> None:
    with pytest.raises(PlanError) as caught:
        remaining_path_s(Plan((subtask("a", "x"),)))
    assert "'x', which is not in the plan" in caught.value.reasons[0]
