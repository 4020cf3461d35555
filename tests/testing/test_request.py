"""What a Request tells of itself, and which turn it asks for."""

from typing import Any

import pytest

from mas.testing import Request

REMINDER = "<system-reminder>\nBe tidy.\n</system-reminder>\n"
KILLED = "[Tool call interrupted: the session ended before this call's result]"
STOPPED = "The user doesn't want to proceed with this tool use. STOP."
NUDGE = "Your response above was cut off mid-stream. Resume directly."


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [_block(each) for each in content]}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [_block(each) for each in content]}


def system(words: str) -> dict[str, Any]:
    return {"role": "system", "content": words}


def result(content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


CALL = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}


def _block(content: Any) -> Any:
    return {"type": "text", "text": content} if isinstance(content, str) else content


def asked(*messages: dict[str, Any], **body: Any) -> Request:
    return Request("POST", "/v1/messages", {"messages": list(messages), **body})


def test_the_prompt_is_what_the_user_said_first_without_reminders() -> None:
    request = asked(user(REMINDER, "load the table"), assistant("ok"), user("again"))

    assert request.prompt == "load the table"
    assert request.last_user_text == "again"


@pytest.mark.parametrize("say", [user, lambda words: system(f"Stop: {words}")])
def test_what_a_hook_says_is_said_by_the_user(say: Any) -> None:
    feedback = 'hook blocking error from command: "callback": Mend this.'
    note = "# Environment\nYou have been invoked here"
    request = asked(user("go"), system(note), assistant("Done."), say(feedback))

    assert request.last_user_text.endswith("Mend this.")
    assert request.prompt == "go"
    assert asked(user("go"), system(note)).last_user_text == "go"


def test_a_content_may_be_a_string() -> None:
    request = asked({"role": "user", "content": "load"}, system="You work.")

    assert (request.prompt, request.system) == ("load", "You work.")


def test_tool_results_are_their_texts_in_order() -> None:
    blocks = [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]
    other = CALL | {"id": "toolu_2"}
    answers = [result("a"), result(blocks) | {"tool_use_id": "toolu_2"}]
    request = asked(user("go"), assistant(CALL, other), user(*answers), user("so?"))

    assert request.tool_results == ["a", "b\nc"]
    assert request.last_tool_result == "b\nc"


def test_tool_results_keep_the_order_of_the_calls_however_they_come() -> None:
    first, second = CALL | {"id": "toolu_1"}, CALL | {"id": "toolu_2"}
    late = [result("b") | {"tool_use_id": "toolu_2"}, result("a")]
    request = asked(user("go"), assistant(first, second), user(*late))

    assert request.tool_results == ["a", "b"]
    assert request.last_tool_result == "b"


def test_no_tool_result_is_an_empty_text() -> None:
    assert asked(user("go")).last_tool_result == ""


@pytest.mark.parametrize(
    ("turn", "messages"),
    [
        (0, [user("go")]),
        (0, [user("go"), system("# Environment")]),
        (1, [user("go"), assistant(CALL), user(result("a"))]),
        (2, [user("go"), assistant("one"), user("more"), assistant("two"), user("x")]),
        (1, [user("go"), assistant("one"), {"role": "user", "content": "Stop hook"}]),
    ],
)
def test_the_turn_is_the_number_of_answers_so_far(
    turn: int, messages: list[dict[str, Any]]
) -> None:
    assert asked(*messages).turn == turn


def test_an_answer_that_the_cli_made_up_on_resuming_is_no_turn() -> None:
    request = asked(
        user("go"),
        assistant(CALL),
        user(result("a")),
        assistant("No response requested."),
        user("carry on"),
    )

    assert request.turn == 1
    assert request.prompt == "go"


@pytest.mark.parametrize("interrupted", [KILLED, STOPPED])
def test_an_answer_whose_calls_were_interrupted_is_asked_for_again(
    interrupted: str,
) -> None:
    other = CALL | {"id": "toolu_2"}
    request = asked(
        user("go"),
        assistant(CALL),
        user(result("a")),
        assistant(CALL | {"id": "toolu_3"}, other),
        user(
            result("b") | {"tool_use_id": "toolu_3"},
            result(interrupted) | {"tool_use_id": "toolu_2"},
            "[Request interrupted by user for tool use]",
        ),
        assistant("No response requested."),
        user("carry on"),
    )

    assert request.turn == 1
    assert request.tool_results == ["a"]


def test_an_answer_that_was_stopped_in_its_stream_is_asked_for_again() -> None:
    stopped = "[Request interrupted by user]"
    made_up = assistant("No response requested.")
    given = [user("go"), assistant(CALL), user(result("a"), stopped)]

    assert asked(*given, made_up, user("carry on")).turn == 1
    cut = [user("go"), assistant(CALL), user(result("a")), assistant("I b")]
    assert asked(*cut, user(stopped), made_up, user("carry on")).turn == 1


def test_a_call_whose_result_is_missing_was_not_given() -> None:
    assert asked(user("go"), assistant(CALL), user("carry on")).turn == 0


def test_a_reply_that_was_cut_and_is_asked_for_again_is_no_turn() -> None:
    cut = [user("go"), assistant("I ru"), system("# Note"), user(NUDGE)]

    assert asked(*cut).turn == 0
    assert asked(*cut, assistant(CALL), user(result("a"))).turn == 1


def test_the_folder_is_read_from_the_environment_note() -> None:
    note = "# Environment\n - Primary working directory: /tmp/a b\n - Platform: linux"

    assert asked(user("go"), system(note)).cwd == "/tmp/a b"
    assert asked(user("go")).cwd == ""


def test_only_a_schema_makes_a_request_for_structured_output() -> None:
    schema = {"format": {"type": "json_schema", "schema": {}}}

    assert asked(user("go"), output_config=schema).wants_structured_output
    assert not asked(
        user("go"), output_config={"effort": "medium"}
    ).wants_structured_output
    assert not asked(user("go")).wants_structured_output


def test_a_subagent_is_told_by_its_header_or_by_its_system_prompt() -> None:
    by_header = Request("POST", "/", headers={"x-claude-code-agent-id": "a1"})
    by_prompt = asked(user("go"), system="cc_entrypoint=sdk-py; cc_is_subagent=true;")

    assert by_header.is_subagent
    assert by_prompt.is_subagent
    assert not asked(user("go")).is_subagent


@pytest.mark.parametrize(
    "headers", [{"x-api-key": "k-1"}, {"authorization": "Bearer k-1"}]
)
def test_the_key_is_known_but_not_shown(headers: dict[str, str]) -> None:
    request = Request("POST", "/v1/messages", headers=headers)

    assert request.key == "k-1"
    assert "k-1" not in repr(request)


def test_the_repr_tells_requests_apart() -> None:
    request = asked(user("load  the\ntable"), assistant("one"), user("more"))

    assert repr(request) == "<POST /v1/messages turn 1 of 'load the table': no answer>"
