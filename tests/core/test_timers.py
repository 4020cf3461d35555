"""Timers: one due time a subtask, whatever was set before."""

from hypothesis import given
from hypothesis import strategies as st

from mas.core.timers import Timers

keys = st.sampled_from("abc")
times = st.integers(0, 20).map(float)
steps = st.lists(
    st.tuples(st.just("set"), keys, times)
    | st.tuples(st.just("clear"), keys, times)
    | st.tuples(st.just("pop"), keys, times)
)


def test_what_is_outdated_below_the_top_stays_outdated() -> None:
    timers = Timers()
    timers.set("b", 1.0)
    timers.set("a", 2.0)
    timers.set("a", 9.0)
    timers.clear("b")
    assert timers.next_due() == 9.0
    assert list(timers.pop_due(8.9)) == []
    assert list(timers.pop_due(9.0)) == ["a"]
    assert timers.next_due() is None


@given(steps)
def test_timers_are_a_due_time_for_each_key(
    steps: list[tuple[str, str, float]],
) -> None:
    timers = Timers()
    due: dict[str, float] = {}
    for step, key, at in steps:
        match step:
            case "set":
                timers.set(key, at)
                due[key] = at
            case "clear":
                timers.clear(key)
                due.pop(key, None)
            case "pop":
                gone = sorted((t, k) for k, t in due.items() if t <= at)
                assert list(timers.pop_due(at)) == [key for _, key in gone]
                due = {k: t for k, t in due.items() if t > at}
        assert all((key in timers) == (key in due) for key in "abc")
        left = {key: max(0.0, due[key] - at) if key in due else None for key in "abc"}
        assert {key: timers.left(key, at) for key in "abc"} == left
    assert timers.next_due() == min(due.values(), default=None)
