"""The planner against scripted Claude: good plans, bad plans, and no plan at all."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from mas.config import Config, Credentials
from mas.errors import MasError, NotReadyError
from mas.gateway.patience import Patience
from mas.model import Subtask
from mas.planner import PlannedTask, plan_task
from mas.testing import (
    Conversation,
    Fault,
    Request,
    Script,
    ScriptedClaude,
    Turn,
    plan,
    planner,
    text,
)

GOOD = [{"key": "a", "description": "do a"}]
CONFIG = Config(home=Path("/nowhere"), credentials=Credentials(api_key="test-key"))


async def planned(
    *turns: Any, inputs: tuple[Path, ...] = (), patience: Patience | None = None
) -> tuple[PlannedTask, list[Request]]:
    with ScriptedClaude(Script([Conversation(planner, list(turns))])) as claude:
        result = await plan_task(
            "the whole task",
            inputs,
            CONFIG,
            base_url=claude.url,
            token="a-token",
            patience=patience or Patience(30),
        )
        assert claude.errors == []
        return result, claude.requests


async def test_a_good_plan_takes_one_call() -> None:
    result, requests = await planned([plan(GOOD)])
    assert result.plan.subtasks == (Subtask(id="a", description="do a"),)
    assert result.warning is None
    [request] = requests
    assert request.key == "a-token"
    assert request.prompt == "the whole task"
    assert "agent_5 (data_analysis, database_operations)" in request.system


@pytest.mark.parametrize(
    "older_form",
    [
        '[{"description": "x"}, {"description": "y", "dependencies": [0]}]',
        '```json\n{"subtasks": [{"description": "x"}, '
        '{"description": "y", "dependencies": ["s1"]}]}\n```',
    ],
)
async def test_the_older_forms_of_a_plan_are_understood(older_form: str) -> None:
    result, _ = await planned([text(older_form)])
    first, second = result.plan.subtasks
    assert (first.id, second.id, second.dependencies) == ("s1", "s2", ("s1",))


FAULTS: list[tuple[list[dict[str, Any]], str]] = [
    ([], "no subtask"),
    ([{"key": "a", "description": "x", "dependencies": ["a"]}], "itself"),
    ([{"key": "a", "description": "x", "dependencies": ["b"]}], "'b'"),
    ([{"key": "a", "description": "x"}, {"key": "a", "description": "y"}], "'a'"),
    (
        [{"key": "a", "description": "x", "required_capabilities": ["flying"]}],
        "flying",
    ),
    ([{"key": "a", "description": "x", "priority": 11}], "11"),
    ([{"key": f"k{n}", "description": "x"} for n in range(51)], "50"),
    (
        [
            {"key": "a", "description": "x", "dependencies": ["b"]},
            {"key": "b", "description": "y", "dependencies": ["a"]},
        ],
        "a → b → a",
    ),
]


@pytest.mark.parametrize(("bad", "told"), FAULTS, ids=[told for _, told in FAULTS])
async def test_a_bad_plan_goes_back_once_with_the_reasons(
    bad: list[dict[str, Any]], told: str
) -> None:
    result, requests = await planned([plan(bad)], [plan(GOOD)])
    assert [subtask.id for subtask in result.plan.subtasks] == ["a"]
    assert result.warning is None
    assert told in requests[1].last_user_text


async def test_a_second_bad_plan_becomes_one_subtask_with_a_warning() -> None:
    result, requests = await planned([text("no JSON")], [plan([])])
    [subtask] = result.plan.subtasks
    assert subtask.description == "the whole task"
    assert "the task is one subtask" in (result.warning or "")
    assert len(requests) == 2


async def test_the_planner_sees_what_the_users_files_are(tmp_path: Path) -> None:
    table = tmp_path / "sales.csv"
    table.write_text("region,sum\nnorth,3\n")
    picture = tmp_path / "logo.bin"
    picture.write_bytes(b"\0\1\2")
    _, [request] = await planned([plan(GOOD)], inputs=(table, picture, tmp_path))
    assert "- sales.csv (19 bytes), it begins:\nregion,sum\nnorth,3" in request.prompt
    assert "- logo.bin (3 bytes)\n" in request.prompt
    assert f"- {tmp_path.name}/ (a folder): logo.bin, sales.csv" in request.prompt


UNREACHABLE = Fault.status(
    502, message="mas: Claude cannot be reached at http://localhost:9: no", times=3
)
"""As the gateway says it."""


@pytest.mark.parametrize(
    ("turn", "kind", "told"),
    [
        (Fault.status(401), NotReadyError, "refused the credentials (401)"),
        (Fault.status(403), NotReadyError, "may not do this (403)"),
        (Fault.status(404), NotReadyError, "does not know the model"),
        (Fault.status(400), MasError, "Claude answered 400"),
        (Fault.status(500, times=3), MasError, "Claude answered 500"),
        (UNREACHABLE, NotReadyError, "cannot be reached at http://localhost:9"),
        (Turn([text("no")], stop_reason="refusal"), MasError, "declined"),
        (Turn([text("{")], stop_reason="max_tokens"), MasError, "did not end within"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_no_plan_is_one_clear_line_and_a_hint(
    turn: Any, kind: type[MasError], told: str
) -> None:
    with pytest.raises(
        kind, match=told.replace("(", r"\(").replace(")", r"\)")
    ) as caught:
        await planned(turn)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert "test-key" not in str(vars(caught.value))


async def test_an_overloaded_moment_is_waited_out() -> None:
    result, requests = await planned(Fault.status(529), [plan(GOOD)])
    assert len(result.plan.subtasks) == 1
    assert len(requests) == 2


async def test_a_silent_claude_has_a_deadline() -> None:
    with pytest.raises(NotReadyError, match="no answer from Claude within 1 s"):
        await planned(Fault.hang(), patience=Patience(1))


async def test_the_deadline_stands_still_while_the_request_is_held() -> None:
    patience = Patience(1)
    late = Turn([plan(GOOD)], delay_s=1.5)
    patience.hold(True)
    result, _ = await planned(late, patience=patience)
    assert len(result.plan.subtasks) == 1


async def test_an_address_where_nobody_answers_is_named() -> None:
    address = "http://127.0.0.1:9"
    credentials = Credentials(api_key="test-key", base_url=address)
    config = structs.replace(CONFIG, credentials=credentials)
    patience = Patience(30)
    with pytest.raises(NotReadyError, match=r"reached at http://127\.0\.0\.1:9"):
        await plan_task(
            "x", (), config, base_url=address, token="a-token", patience=patience
        )


async def test_no_proxy_stands_between_planner_and_gateway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    result, _ = await planned([plan(GOOD)])
    assert len(result.plan.subtasks) == 1
