"""Configuration: the file, then the environment, then the flags; faults are told."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from mas.config import DEFAULT_MODEL, DEFAULT_ROSTER, Config, PriceSection
from mas.errors import ConfigError, UsageError
from mas.settings import load


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(
    toml: str = "",
    environment: dict[str, str] | None = None,
    flags: dict[tuple[str, str], Any] | None = None,
) -> Config:
    if toml:
        Path("mas.toml").write_text(toml, encoding="utf-8")
    config, _ = load(environment=environment or {"HOME": "/h"}, flags=flags)
    return config


def refused(toml: str = "", environment: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(toml, environment)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_without_anything_the_defaults_hold() -> None:
    config = loaded()
    assert config.claude.model == DEFAULT_MODEL
    assert config.roster == DEFAULT_ROSTER
    assert config.files.path == Path.cwd() / "shared_files"
    assert config.postgres.dsn is None and config.redis.url is None


def test_environment_beats_file_and_a_flag_beats_both() -> None:
    toml = '[claude]\nmodel = "of-file"\nmax_turns = 7\n'
    environment = {"CLAUDE_MODEL": "of-environment", "TASK_TIMEOUT": "90"}
    config = loaded(toml, environment, {("claude", "model"): "of-flag"})
    assert (config.claude.model, config.claude.max_turns) == ("of-flag", 7)
    assert config.limits.attempt_timeout_s == 90
    assert loaded(toml, environment).claude.model == "of-environment"
    assert loaded(toml).claude.model == "of-file"


def test_an_empty_variable_counts_as_unset() -> None:
    assert loaded(environment={"CLAUDE_MODEL": ""}).claude.model == DEFAULT_MODEL


@pytest.mark.parametrize(
    ("environment", "dsn", "url"),
    [
        (
            {"POSTGRES_HOST": "db", "POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p@/"},
            "postgresql://u:p%40%2F@db:5432/u",
            None,
        ),
        (
            {"POSTGRES_HOST": "db", "POSTGRES_PORT": "6000", "POSTGRES_DB": "d"},
            "postgresql://postgres@db:6000/d",
            None,
        ),
        (
            {"POSTGRES_HOST": "::1", "REDIS_HOST": "::1"},
            "postgresql://postgres@[::1]:5432/postgres",
            "redis://[::1]:6379/0",
        ),
        ({"DATABASE_URL": "postgresql://x/y"}, "postgresql://x/y", None),
        ({"REDIS_HOST": "r", "REDIS_DB": "3"}, None, "redis://r:6379/3"),
        ({"REDIS_URL": "redis://z"}, None, "redis://z"),
    ],
)
def test_configured_servers_are_used(
    environment: dict[str, str], dsn: str | None, url: str | None
) -> None:
    config = loaded(environment=environment)
    assert (config.postgres.dsn, config.redis.url) == (dsn, url)


def test_old_names_of_permission_modes_are_read_with_a_warning() -> None:
    config, warnings = load(environment={"SDK_PERMISSION_MODE": "approveEdits"})
    assert config.claude.permission_mode == "acceptEdits"
    assert warnings == ["SDK_PERMISSION_MODE: approveEdits is called acceptEdits now"]


def test_a_roster_in_the_file_replaces_the_default() -> None:
    config = loaded(
        '[capabilities]\ngpu = "has a graphics card"\n'
        '[agents.big]\ncapabilities = ["gpu", "code_generation"]\n'
        'command = ["nice"]\nmodel = "m"\n'
    )
    [agent] = config.roster
    assert (agent.id, agent.capabilities) == ("big", ("gpu", "code_generation"))
    assert (agent.command, agent.model) == (("nice",), "m")
    assert config.capabilities["gpu"] == "has a graphics card"


MORE = "it must be more than 0"
PRICES = '[prices."m"]\ninput = 1\noutput = 5\n'


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[claude]\nmodle = 1\n", "unknown key claude.modle"),
        ("[cloud]\n", "unknown key cloud"),
        ("[claude]\nmax_turns = 'ten'\n", "claude.max_turns: Expected `int`"),
        ("[files]\npath = 3\n", "files.path: Expected `str`"),
        ("[claude]\nmodel = ''\n", "claude.model is empty"),
        ("[limits]\nmax_attempts = 0\n", "limits.max_attempts is 0; it must be 1 to"),
        ("[limits]\nattempt_timeout_s = nan\n", "limits.attempt_timeout_s is nan"),
        ("[claude]\npermission_mode = 'plan'\n", "could write no result"),
        ("[claude]\npermission_mode = 'yolo'\n", "'yolo', which cannot be used"),
        ("[agents.a]\ncapabilities = ['flying']\n", "unknown capability 'flying'"),
        ("[agents.a]\ncapabilities = []\n", "agents.a.capabilities is empty"),
        ("[agents.a]\n", "agents.*: Object missing required field `capabilities`"),
        ("[agents.'a b']\ncapabilities = ['data_analysis']\n", "not a usable name"),
        (
            "[agents.a]\ncapabilities=['data_analysis']\n[agents.a]\ncapabilities=[]\n",
            "Cannot declare ('agents', 'a') twice",
        ),
        ("[claude\n", "mas.toml"),
        *(
            (f"[limits]\n{key} = {value}\n", f"limits.{key} is {value}; {MORE}")
            for key in ("budget_usd", "budget_usd_per_day")
            for value in ("0", "-1", "nan", "inf")
        ),
        ("[limits]\nbudget_tokens = 0\n", f"limits.budget_tokens is 0; {MORE}"),
        ("[limits]\nbudget_tokens = -5\n", f"limits.budget_tokens is -5; {MORE}"),
        ("[limits]\nbudget_tokens = 0.5\n", "limits.budget_tokens: Expected `int"),
        ("[limits]\nbudget_usd = '5'\n", "limits.budget_usd: Expected `float"),
        ("[gateway]\nport = 65536\n", "gateway.port is 65536; it must be 0 to 65535"),
        ("[gateway]\nport = -1\n", "gateway.port is -1"),
        (
            "[gateway]\nlongest_wait_s = 0\n",
            "gateway.longest_wait_s is 0; it must be 1",
        ),
        ("[gateway]\nlongest_wait_s = nan\n", "gateway.longest_wait_s is nan"),
        ("[gateway]\nfirst_wave_s = -1\n", "gateway.first_wave_s is -1; it must be 0"),
        ("[gateway]\nhost = 'x'\n", "unknown key gateway.host"),
        (f"{PRICES}inptu = 1\n", "unknown key prices.*.inptu"),
        ("[prices.m]\ninput = 1\n", "prices.*: Object missing required field `output`"),
        (f"{PRICES}cache_read = -0.1\n", 'prices."m".cache_read is -0.1, which is no'),
        (f"{PRICES}cache_write = nan\n", 'prices."m".cache_write is nan, which is no'),
        (f"{PRICES}cache_write = inf\n", 'prices."m".cache_write is inf, which is no'),
        ("[prices.m]\ninput = -3\noutput = 1\n", 'prices."m".input is -3, which is no'),
    ],
)
def test_a_fault_in_the_file_names_file_key_and_what_is_allowed(
    toml: str, told: str
) -> None:
    error = refused(toml)
    assert error.message.startswith("mas.toml")
    assert told in error.message


@pytest.mark.parametrize(
    ("toml", "known"),
    [
        ("[claude]\nturns = 1\n", "max_turns"),
        ("[gateway]\nhost = 'x'\n", "port, longest_wait_s, first_wave_s"),
        (f"{PRICES}cache = 1\n", "input, output, cache_read, cache_write"),
        ("[price.m]\ninput = 1\n", "gateway, prices"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(toml: str, known: str) -> None:
    assert known in refused(toml).hint


def test_a_budget_that_is_refused_says_how_to_have_none() -> None:
    hint = refused("[limits]\nbudget_usd = 0\n").hint
    assert hint == "leave it out for no limit"


def test_budgets_gateway_and_prices_are_read() -> None:
    config = loaded(
        "[limits]\nbudget_usd = 5\nbudget_tokens = 7\nbudget_usd_per_day = 0.01\n"
        f"[gateway]\nport = 4711\nlongest_wait_s = 10\nfirst_wave_s = 0\n{PRICES}",
        flags={("limits", "budget_usd"): 6.5},
    )
    limits, gateway, prices = config.limits, config.gateway, config.prices
    assert (limits.budget_usd, limits.budget_tokens) == (6.5, 7)
    assert limits.budget_usd_per_day == 0.01
    assert (gateway.port, gateway.longest_wait_s, gateway.first_wave_s) == (4711, 10, 0)
    assert prices == {"m": PriceSection(input=1, output=5)}


def test_without_anything_there_is_no_budget_and_any_free_port() -> None:
    config = loaded()
    limits = config.limits
    budgets = (limits.budget_usd, limits.budget_tokens, limits.budget_usd_per_day)
    assert budgets == (None, None, None)
    assert (config.gateway.port, config.gateway.first_wave_s) == (0, None)
    assert config.prices == {}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TASK_TIMEOUT": "soon"}, "TASK_TIMEOUT is 'soon', not a number"),
        ({"TASK_TIMEOUT": "0"}, "TASK_TIMEOUT is 0; it must be 1 to 1e+09"),
        ({"SDK_MAX_TURNS": "-3"}, "SDK_MAX_TURNS is -3"),
        ({"SDK_MAX_TURNS": "9" * 30}, "SDK_MAX_TURNS is 1e+30"),
        ({"AGENT_HEARTBEAT_INTERVAL": "120"}, "every agent would be taken for lost"),
        ({"MAS_HOME": "~nosuchuser/x"}, "MAS_HOME is '~nosuchuser/x'"),
        ({"SHARED_FILES_PATH": "~nosuchuser/x"}, "files.path is '~nosuchuser/x'"),
        ({"ANTHROPIC_API_KEY": "sk\nsecret"}, "ANTHROPIC_API_KEY holds characters"),
        ({"SDK_PERMISSION_MODE": "auto"}, "SDK_PERMISSION_MODE is 'auto'"),
        ({"POSTGRES_HOST": "h", "POSTGRES_PORT": "x"}, "POSTGRES_PORT is 'x'"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "99999"}, "REDIS_PORT is '99999'"),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(
    environment: dict[str, str], told: str
) -> None:
    error = refused(environment=environment)
    assert told in error.message
    assert "secret" not in str(vars(error))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (("limits", "max_subtasks"), 0, "the flag for limits.max_subtasks is 0"),
        (("claude", "permission_mode"), "plan", "could write no result"),
        (("claude", "model"), "", "the flag for claude.model is empty"),
        (("limits", "budget_usd"), 0.0, f"limits.budget_usd is 0; {MORE}"),
        (("limits", "budget_usd"), -1.0, f"limits.budget_usd is -1; {MORE}"),
        (("limits", "budget_usd"), float("nan"), f"limits.budget_usd is nan; {MORE}"),
        (("limits", "budget_tokens"), 0, f"limits.budget_tokens is 0; {MORE}"),
    ],
)
def test_a_fault_in_a_flag_is_a_fault_of_usage(
    key: tuple[str, str], value: object, told: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        loaded(flags={key: value})
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_a_named_file_must_exist() -> None:
    with pytest.raises(UsageError, match=r"no such configuration file: other\.toml"):
        load(path=Path("other.toml"), environment={})


def test_credentials_are_never_in_the_repr() -> None:
    config = loaded(environment={"ANTHROPIC_API_KEY": "sk-secret"})
    assert config.credentials.found
    assert "sk-secret" not in repr(config)
    assert config.credentials.secrets == ("sk-secret",)


def test_mas_home_is_absolute() -> None:
    assert loaded(environment={"MAS_HOME": "h"}).home == Path.cwd() / "h"


def test_the_documented_file_is_the_defaults(request: pytest.FixtureRequest) -> None:
    documented, warnings = load(
        path=request.config.rootpath / "mas.toml", environment={"HOME": "/h"}
    )
    assert structs.replace(documented, source=None) == loaded()
    assert warnings == []


def test_what_is_commented_out_in_the_documented_file_can_be_set(
    request: pytest.FixtureRequest,
) -> None:
    documented = (request.config.rootpath / "mas.toml").read_text(encoding="utf-8")
    opened = re.sub(r"^# (?=\[|\w+ = )", "", documented, flags=re.MULTILINE)
    config = loaded(opened)
    limits = config.limits
    budgets = (limits.budget_usd, limits.budget_tokens, limits.budget_usd_per_day)
    assert budgets == (5.0, 2_000_000, 20.0)
    assert config.gateway.first_wave_s == 5
    price = PriceSection(input=3, output=15, cache_read=0.3, cache_write=3.75)
    assert config.prices == {"some-model": price}
    assert config.capabilities["gpu"] == "has a graphics card"
