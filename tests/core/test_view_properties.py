"""The fold from events to what a screen shows: what holds for any run."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from mas.core.events import (
    AgentLost,
    AgentReady,
    AttemptFinished,
    AttemptProgress,
    AttemptStarted,
    CancelAccepted,
    Event,
    Noticed,
    PlanAccepted,
    Recorded,
    ResultIgnored,
    SubtaskFinished,
    TaskCreated,
    TaskResumed,
    TaskSuspended,
    Waiting,
)
from mas.core.view import RunView, State
from mas.model import Plan, Status, Subtask, Usage
from tests.core.telling import START, Telling, subtask

KEYS = tuple("abcdefg")


@st.composite
def plans(draw: st.DrawFn) -> tuple[Subtask, ...]:
    """Any plan of a few subtasks, in any order."""
    made: list[Subtask] = []
    for index, key in enumerate(KEYS[: draw(st.integers(1, len(KEYS)))]):
        needs = draw(st.sets(st.sampled_from(KEYS[:index]))) if index else set()
        made.append(subtask(key, *sorted(needs)))
    return tuple(draw(st.permutations(made)))


@st.composite
def runs(draw: st.DrawFn) -> tuple[Telling, dict[str, State]]:
    """A run as a scheduler could record it, and where each subtask must be then."""
    subtasks = draw(plans())
    task = Telling("a report", *subtasks)
    needs = {each.id: set(each.dependencies) for each in subtasks}
    state: dict[str, State] = {}
    attempts = dict.fromkeys(needs, 0)
    for _ in range(draw(st.integers(0, 25))):
        done = {key for key in needs if state.get(key) is State.COMPLETED}
        key = draw(st.sampled_from(sorted(needs)))
        match state.get(key):
            case None | State.RETRY if needs[key] <= done:
                attempts[key] += 1
                task.start(key, attempts[key])
                state[key] = State.RUNNING
            case State.RUNNING:
                state[key] = draw(
                    st.sampled_from(
                        (State.RUNNING, State.RETRY, State.COMPLETED, State.FAILED)
                    )
                )
                _advance(task, key, attempts[key], state[key])
            case _:
                task.tell(Waiting(reason="an agent"))
    return task, state


def _advance(task: Telling, key: str, attempt: int, state: State) -> None:
    match state:
        case State.RUNNING:
            task.progress(key, "reads", attempt, subagent="x", status="running")
        case State.RETRY:
            task.end_attempt(key, Status.FAILED, attempt=attempt, retry_in_s=1)
        case _:
            status = Status(state.value)
            task.end_attempt(key, status, attempt=attempt)
            task.end(key, status)


@given(runs())
@settings(max_examples=150)
def test_any_run_shows_each_subtask_where_it_is(
    run: tuple[Telling, dict[str, State]],
) -> None:
    task, expected = run
    view = task.view
    for key, row in view.subtasks.items():
        if key in expected:
            assert row.state is expected[key]
        else:
            needed = {view.subtasks[need].state for need in row.needs}
            assert row.state.is_waiting
            assert (row.state is State.READY) == (needed <= {State.COMPLETED})
            assert (row.state is State.BLOCKED) == any(s.is_broken for s in needed)
        assert all(view.subtasks[need].stage < row.stage for need in row.needs)
        assert isinstance(view.last(row, task.now), str)
    _counts_add_up(view)


@given(runs())
@settings(max_examples=50)
def test_facts_that_come_twice_change_nothing(
    run: tuple[Telling, dict[str, State]],
) -> None:
    task, _ = run
    again = RunView()
    facts = [record for record in task.records if record.seq is not None]
    for record in [*facts, *facts]:
        again.apply(record)

    assert again.statuses() == task.view.statuses()
    assert again.usage == task.view.usage
    _counts_add_up(again)


def _counts_add_up(view: RunView) -> None:
    states = [row.state for row in view.subtasks.values()]
    assert view.counts == {state: states.count(state) for state in State}


some_key = st.sampled_from([*KEYS, "unknown"])
some_attempt = st.integers(0, 3)
some_status = st.sampled_from(Status)
some_text = st.sampled_from(["", "words"])
any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(TaskCreated, description=some_text),
    st.builds(CancelAccepted, reason=some_text),
    st.builds(PlanAccepted, plan=plans().map(Plan), warning=st.none()),
    st.builds(AgentReady, agent_id=some_key, pid=st.just(1), capabilities=st.just(())),
    st.builds(AgentLost, agent_id=some_key, error=some_text, retired=st.booleans()),
    st.builds(
        AttemptStarted, subtask_id=some_key, attempt=some_attempt, agent_id=some_key
    ),
    st.builds(
        AttemptProgress,
        subtask_id=some_key,
        attempt=some_attempt,
        agent_id=some_key,
        activity=some_text,
        subagent=st.none() | some_key,
        subagent_status=st.none() | some_text,
        usage=st.none() | st.just(Usage(1)),
        held=st.none() | st.booleans(),
    ),
    st.builds(
        AttemptFinished,
        subtask_id=some_key,
        attempt=some_attempt,
        agent_id=some_key,
        status=some_status,
        error=st.none() | some_text,
        retry_in_s=st.none() | st.floats(0, 100),
        usage=st.just(Usage(2)),
    ),
    st.builds(
        SubtaskFinished, subtask_id=some_key, status=some_status, attempt=some_attempt
    ),
    st.builds(
        ResultIgnored,
        subtask_id=some_key,
        attempt=some_attempt,
        agent_id=some_key,
        status=some_status,
        error=some_text,
    ),
    st.builds(
        TaskResumed,
        owner=some_text,
        epoch=st.just(2),
        budget_usd=st.none() | st.just(0.5),
    ),
    st.builds(TaskSuspended, reason=some_text, hint=some_text),
    st.builds(Waiting, reason=some_text, until=st.none() | st.just(START)),
    st.builds(Noticed, text=some_text, is_passing=st.booleans()),
)


@given(st.lists(any_event, max_size=40))
@settings(max_examples=150)
def test_no_sequence_of_events_breaks_the_view(events: list[Event]) -> None:
    view = RunView()
    for number, event in enumerate(events, start=1):
        at = START + timedelta(seconds=number)
        view.apply(Recorded(seq=number, at=at, task_id="t1", event=event))
        _counts_add_up(view)
        for row in view.subtasks.values():
            view.last(row, at)
            assert row.state is State.RUNNING or not row.held
            assert row.unmet == sum(
                view.subtasks[need].state is not State.COMPLETED for need in row.needs
            )
