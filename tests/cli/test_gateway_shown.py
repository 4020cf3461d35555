"""What people see of the gateway, in real runs on scripted Claude."""

from datetime import datetime
from typing import Any

import pytest

from mas.model import Usage
from mas.testing import Fault, Script, ScriptedClaude
from tests.cli.command import Done, Mas
from tests.scripts import diligent, scripted

ONE: tuple[dict[str, Any], ...] = ({"key": "only"},)


def limited() -> Script:
    """One subtask, whose first request is refused for two seconds."""
    refused = Fault.status(429, retry_after_s=2)
    return scripted(ONE, {"only": diligent("only", before=(refused,))})


def play(mas: Mas, script: Script, *arguments: str) -> Done:
    with ScriptedClaude(script) as claude:
        done = mas.run(*arguments, ANTHROPIC_BASE_URL=claude.url)
        assert claude.errors == []
    assert done.code == 0
    return done


def test_a_wait_is_one_line_and_the_end_says_what_it_took(mas: Mas) -> None:
    done = play(mas, limited(), "run", "x", "--plain", "--budget", "5")

    waits = [line[10:] for line in done.err.splitlines() if "waiting for the r" in line]
    assert waits == ["task  waiting for the rate limit, 2 s"]
    assert " of $5.00" in done.out
    assert "waits for its turn" not in done.err


def test_the_events_tell_the_wait_its_end_and_who_is_held(mas: Mas) -> None:
    events = play(mas, limited(), "run", "x", "--json").events

    waits = [it for it in events if it["type"] == "waiting"]
    [limit] = [it for it in waits if it["reason"] == "the rate limit"]
    left = datetime.fromisoformat(limit["until"]) - datetime.fromisoformat(limit["at"])
    assert 1.5 < left.total_seconds() <= 2
    after = waits[waits.index(limit) + 1]
    assert (after["reason"], after["until"]) == ("", None)
    said = datetime.fromisoformat(after["at"]) - datetime.fromisoformat(limit["at"])
    assert 1.5 < said.total_seconds() < 10
    progress = [it for it in events if it["type"] == "attempt_progress"]
    held = [it["held"] for it in progress if it["held"] is not None]
    assert held[:2] == [True, False]
    _tokens_add_up(events, progress)


def _tokens_add_up(
    events: list[dict[str, Any]], progress: list[dict[str, Any]]
) -> None:
    """What is told meanwhile grows, and ends in what the attempt and the task took."""
    told = [it["usage"].get("input_tokens", 0) for it in progress if it["usage"]]
    [ended] = [it["usage"] for it in events if it["type"] == "attempt_finished"]
    [planned] = [it["usage"] for it in events if it["type"] == "plan_accepted"]
    total = events[-1]["result"]["usage"]
    assert told == sorted(told) and told[-1] == ended["input_tokens"]
    for kind in ("input_tokens", "output_tokens", "cost_usd"):
        assert total[kind] == pytest.approx(planned[kind] + ended[kind])
    by_model = total["by_model"].values()
    assert sum(it["input_tokens"] for it in by_model) == total["input_tokens"]


def test_show_tells_every_call_and_what_they_took(mas: Mas) -> None:
    play(mas, limited(), "run", "x", "--plain")

    document = mas.run("show", "-", "--json").document
    assert set(document) == {"task", "subtask_results"}
    task = document["task"]
    assert "calls" not in task
    spending = task["spending"]
    assert spending["refused"] == 1
    assert [it["subtask_id"] for it in spending["by_subtask"]] == [None, "only"]
    used = task["result"]["usage"]
    for kind in Usage.__struct_fields__:
        assert spending["usage"].get(kind, 0) == pytest.approx(used.get(kind, 0))

    calls = mas.run("show", "-", "--json", "--calls").document["task"]["calls"]
    assert len(calls) == spending["calls"] >= 5
    assert [it["http_status"] for it in calls].count(429) == 1
    assert {it["state"] for it in calls} == {"complete", "refused"}

    page = mas.run("show", "-", "--calls", COLUMNS="150").out
    assert f"Claude  {len(calls)} calls · 1 refused · " in page
    assert page.count("claude-sonnet-5-5") == 1 + len(calls)
    assert page.count("429 refused") == 1
    assert "429" not in mas.run("show", "-").out


def test_a_budget_that_is_spent_says_once_what_to_do(mas: Mas) -> None:
    script = scripted(ONE, {})
    with ScriptedClaude(script) as claude:
        environment = {"ANTHROPIC_BASE_URL": claude.url, "COLUMNS": "200"}
        done = mas.run("run", "x", "--plain", "--budget", "0.02", **environment)

    assert done.code == 4
    assert done.out.count("mas resume") == done.out.count("is spent") == 1
    assert done.out.count(" --budget MORE") == 1
    assert "80 %" not in done.out and done.err.count("80 % of the budget") == 1
    assert " of $0.02\n" in done.out
    assert mas.run("show", "-", COLUMNS="200").out.count("--budget MORE") == 1


def test_a_model_without_a_price_is_told_and_marked(mas: Mas) -> None:
    script = scripted(ONE, {})
    done = play(mas, script, "run", "x", "--plain", "--model", "my-model")

    assert done.err.count("the price of my-model is not known") == 1
    assert "cost not known" in done.out
    assert "the price of my-model is not known" in done.out
    shown = mas.run("show", "-").out
    assert "cost not known" in shown
    assert '? the price of my-model is not known: [prices."my-model"]' in shown


def test_an_answer_that_was_cut_is_an_estimate(mas: Mas) -> None:
    cut = diligent("only", before=(Fault.cut(after_events=4),))
    done = play(mas, scripted(ONE, {"only": cut}), "run", "x", "--plain")

    assert " tokens · ~$" in done.out.replace("\n ", "")
    shown = mas.run("show", "-").out
    assert "~ an answer was cut: its output is an estimate" in shown


def gateway(mas: Mas, *arguments: str, **environment: str) -> dict[str, str]:
    checks = mas.run("doctor", "--json", *arguments, **environment).document["checks"]
    [check] = [check for check in checks if check["name"] == "gateway"]
    assert "secret" not in str(checks) and "test-key" not in str(checks)
    return dict(check)


def test_the_doctor_says_where_claude_is_asked_and_what_it_costs(mas: Mas) -> None:
    check = gateway(mas)
    assert (check["state"], check["hint"]) == ("ok", "")
    assert "asks Claude at api.anthropic.com;" in check["detail"]
    assert "knows what claude-sonnet-5-5 costs (table of 20" in check["detail"]
    assert check["detail"].endswith("no budget is set: --budget USD")


def test_the_doctor_warns_of_models_without_a_price(mas: Mas) -> None:
    (mas.folder / "mas.toml").write_text(
        '[claude]\nplanner_model = "my-model"\n'
        "[limits]\nbudget_usd = 2\nbudget_tokens = 100000\nbudget_usd_per_day = 10\n"
    )
    url = "https://ann:secret@gateway.example:8443/path?key=secret"
    check = gateway(mas, ANTHROPIC_BASE_URL=url)
    assert check["state"] == "warning"
    assert "asks Claude at gateway.example:8443;" in check["detail"]
    assert "does not know what my-model costs" in check["detail"]
    assert check["detail"].endswith(
        "budget $2.00 a task, 100,000 tokens a task, $10.00 a day"
    )
    assert '[prices."my-model"]' in check["hint"]
