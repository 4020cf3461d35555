"""Random plans, rosters and failures for the tests of the scheduler."""

from hypothesis import strategies as st

from mas.model import AgentSpec, FailureKind, Plan, Subtask

CAPABILITIES = st.sampled_from([(), ("x",), ("y",), ("x", "y"), ("x", "y", "z")])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    size = draw(st.integers(1, 8))
    subtasks = []
    for number in range(size):
        above = st.lists(st.integers(0, max(0, number - 1)), max_size=2)
        subtasks.append(
            Subtask(
                id=f"k{number}",
                description="do it",
                required_capabilities=draw(CAPABILITIES),
                dependencies=tuple(f"k{n}" for n in draw(above)) if number else (),
                priority=draw(st.integers(4, 6)),
                estimated_duration=draw(st.integers(1, 3)),
            )
        )
    return Plan(tuple(draw(st.permutations(subtasks))))


rosters = st.lists(CAPABILITIES, min_size=1, max_size=4).map(
    lambda items: tuple(
        AgentSpec(id=f"agent_{n}", capabilities=item) for n, item in enumerate(items)
    )
)
failure_kinds = st.sampled_from(
    [
        *[FailureKind.AGENT_LOST] * 4,
        # A refusal of the credentials ends the run: it has a rule of its own.
        *[kind for kind in FailureKind if kind is not FailureKind.AUTHENTICATION],
    ]
)
