"""Courses of chaos: random, the same for the same seed, and bound to succeed."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.plans import Course, Injury, random_course


def drawn(seed: int, *, real: bool) -> Course:
    return random_course(Random(seed), real=real)


@given(st.integers(), st.booleans())
def test_a_course_is_sound(seed: int, real: bool) -> None:
    course = drawn(seed, real=real)
    assert course == drawn(seed, real=real)
    keys = [subtask["key"] for subtask in course.subtasks]
    for index, subtask in enumerate(course.subtasks):
        assert set(subtask["dependencies"]) <= set(keys[:index])
        acts = subtask["input_data"]["acts"]
        assert len(acts) <= 2
        assert acts[-1] == "ok" or acts[-1].startswith("slow:")
    assert course.injuries
    at_agents = [it for it in course.injuries if it.injury.hits_an_agent]
    assert len(at_agents) <= 1
    places = [it.after_events for it in course.injuries]
    assert places == sorted(places)


def test_every_injury_is_drawn_sooner_or_later() -> None:
    seen = {
        planned.injury
        for seed in range(300)
        for planned in drawn(seed, real=seed % 2 == 0).injuries
    }
    assert seen == set(Injury)
