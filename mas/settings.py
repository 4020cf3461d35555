"""Read the Config: mas.toml, then the environment, then the flags; a flag wins."""

import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import structs

from mas.config import (
    DEFAULT_ROSTER,
    AgentSection,
    Config,
    ConfigFile,
    Credentials,
    Files,
    PriceSection,
)
from mas.errors import ConfigError, MasError, UsageError
from mas.model import CAPABILITIES, AgentSpec

PERMISSION_MODES = ("default", "acceptEdits", "dontAsk", "bypassPermissions")
_OLD_PERMISSION_MODES = {
    "approveEdits": "acceptEdits",
    "approveAll": "bypassPermissions",
}
_FLAG = "the flag for "
_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_ENVIRONMENT: dict[str, tuple[str, str, type]] = {
    "CLAUDE_MODEL": ("claude", "model", str),
    "SDK_PERMISSION_MODE": ("claude", "permission_mode", str),
    "SDK_MAX_TURNS": ("claude", "max_turns", int),
    "TASK_TIMEOUT": ("limits", "attempt_timeout_s", float),
    "AGENT_HEARTBEAT_INTERVAL": ("supervisor", "heartbeat_s", float),
    "EMBEDDING_API_URL": ("embeddings", "url", str),
    "SHARED_FILES_PATH": ("files", "path", Path),
}
"""What each variable sets: section, key, type."""

_MOST = 1e9
_MOST_OF = {("gateway", "port"): 65535}
_MORE_THAN_NOTHING = 1e-6
"""A budget of nothing would suspend every task; no budget is to say nothing of it."""
_AT_LEAST: dict[tuple[str, str], float] = {
    ("claude", "max_turns"): 1,
    ("limits", "max_subtasks"): 1,
    ("limits", "max_attempts"): 1,
    ("limits", "attempt_timeout_s"): 1,
    ("limits", "task_timeout_s"): 0,
    ("limits", "inactivity_timeout_s"): 1,
    ("limits", "planner_timeout_s"): 1,
    ("limits", "budget_usd"): _MORE_THAN_NOTHING,
    ("limits", "budget_tokens"): 1,
    ("limits", "budget_usd_per_day"): _MORE_THAN_NOTHING,
    ("gateway", "port"): 0,
    ("gateway", "longest_wait_s"): 1,
    ("gateway", "first_wave_s"): 0,
    ("supervisor", "heartbeat_s"): 0.1,
    ("supervisor", "agent_ttl_s"): 1,
    ("supervisor", "handshake_timeout_s"): 0.1,
    ("supervisor", "max_restarts"): 0,
    ("supervisor", "restart_window_s"): 1,
    ("supervisor", "shutdown_grace_s"): 0,
    ("supervisor", "outage_timeout_s"): 0,
}


def load(
    *,
    path: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[tuple[str, str], Any] | None = None,
) -> tuple[Config, list[str]]:
    """Return the Config and the warnings to show.

    ``path`` must exist; None means ./mas.toml where there is one. ``flags`` maps
    (section, key) to a value; None values are left out. Raises ConfigError with the
    file or variable, the key and what is allowed; UsageError for a flag.
    """
    source = _find(path)
    where = str(source) if source else "mas.toml"
    file = _read(source) if source else ConfigFile()
    environment = {name: value for name, value in environment.items() if value}
    warnings: list[str] = []
    changes = _from_environment(environment)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    for (section, key), value in given.items():
        changes[section, key] = (f"{_FLAG}{section}.{key}", value)
    sections: dict[str, Any] = {}
    for name in ("claude", "limits", "supervisor", "gateway", "embeddings", "files"):
        section = getattr(file, name)
        origins = {key: f"{where}: {name}.{key}" for key in section.__struct_fields__}
        for (changed, key), (origin, value) in changes.items():
            if changed == name:
                section = structs.replace(section, **{key: value})
                origins[key] = origin
        sections[name] = _checked(name, section, origins, warnings)
    capabilities = CAPABILITIES | file.capabilities
    config = Config(
        **sections,
        postgres=structs.replace(
            file.postgres, dsn=_postgres_dsn(environment) or file.postgres.dsn
        ),
        redis=structs.replace(
            file.redis, url=_redis_url(environment) or file.redis.url
        ),
        prices=_prices(file, where),
        roster=_roster(file, where, capabilities, warnings),
        capabilities=capabilities,
        credentials=Credentials(
            api_key=_secret(environment, "ANTHROPIC_API_KEY"),
            auth_token=_secret(environment, "ANTHROPIC_AUTH_TOKEN"),
            base_url=environment.get("ANTHROPIC_BASE_URL"),
        ),
        home=_home(environment),
        source=source,
    )
    heartbeat_s, ttl_s = config.supervisor.heartbeat_s, config.supervisor.agent_ttl_s
    if heartbeat_s * 2 > ttl_s:
        raise ConfigError(
            f"supervisor.heartbeat_s is {heartbeat_s:g} and agent_ttl_s {ttl_s:g}: "
            "every agent would be taken for lost",
            hint="make the heartbeat at most half of the other",
        )
    path = _absolute(config.files.path, "SHARED_FILES_PATH or files.path")
    return structs.replace(config, files=Files(path=path)), warnings


def _find(path: Path | None) -> Path | None:
    if path is not None:
        if not path.is_file():
            raise UsageError(
                f"no such configuration file: {path}", hint="check --config"
            )
        return path
    default = Path("mas.toml")
    return default if default.is_file() else None


def _read(source: Path) -> ConfigFile:
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {source}: {error}", hint="it must be a readable UTF-8 file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        twice = "declare" in str(error) or "overwrite" in str(error)
        hint = "each section and key may stand once" if twice else "see https://toml.io"
        raise ConfigError(f"{source}: {error}", hint=hint) from error
    try:
        return msgspec.convert(values, ConfigFile, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise _explained(source, str(error)) from error


def _to_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _explained(source: Path, problem: str) -> ConfigError:
    """Turn msgspec's words into the file, the key and what is allowed there."""
    what, _, where = problem.partition(" - at `$")
    place = where.rstrip("`").lstrip(".").replace("[...]", ".*")
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown:
        key = f"{place}.{unknown[1]}" if place else unknown[1]
        return ConfigError(
            f"{source}: unknown key {key}",
            hint=f"allowed there: {', '.join(_allowed_keys(place))}",
        )
    return ConfigError(
        f"{source}: {place or 'top level'}: {what}", hint="see README, Configuration"
    )


def _allowed_keys(place: str) -> tuple[str, ...]:
    if not place:
        return ConfigFile.__struct_fields__
    section = place.partition(".")[0]
    if section == "agents":
        return AgentSection.__struct_fields__
    if section == "prices":
        return PriceSection.__struct_fields__
    fields: tuple[str, ...] = getattr(ConfigFile(), section).__struct_fields__
    return fields


def _from_environment(
    environment: Mapping[str, str],
) -> dict[tuple[str, str], tuple[str, Any]]:
    changes: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, (section, key, kind) in _ENVIRONMENT.items():
        if name not in environment:
            continue
        try:
            changes[section, key] = (name, kind(environment[name]))
        except ValueError:
            raise ConfigError(
                f"the variable {name} is {environment[name]!r}, not a number",
                hint=f"it sets {section}.{key}",
            ) from None
    return changes


def _checked(
    name: str, section: Any, origins: Mapping[str, str], warnings: list[str]
) -> Any:
    for key in section.__struct_fields__:
        value, least = getattr(section, key), _AT_LEAST.get((name, key))
        most = _MOST_OF.get((name, key), _MOST)
        if None not in (least, value) and not least <= value <= most:
            is_budget = key.startswith("budget")
            least_told = "more than 0 and at most" if is_budget else f"{least:g} to"
            raise _refused(
                origins[key],
                f"is {value:g}; it must be {least_told} {most:g}",
                hint="leave it out for no limit"
                if is_budget
                else "see README, Configuration",
            )
        if value == "":
            raise _refused(origins[key], "is empty", hint="give a value or none")
    if name == "claude":
        mode = _permission_mode(
            section.permission_mode, origins["permission_mode"], warnings
        )
        return structs.replace(section, permission_mode=mode)
    return section


def _permission_mode(mode: str, origin: str, warnings: list[str]) -> str:
    if mode in _OLD_PERMISSION_MODES:
        new = _OLD_PERMISSION_MODES[mode]
        warnings.append(f"{origin}: {mode} is called {new} now")
        mode = new
    reasons = {
        "plan": "an agent could write no result",
        "auto": "it works only against Anthropic's own endpoint",
    }
    if mode not in PERMISSION_MODES:
        reason = f": {reasons[mode]}" if mode in reasons else ""
        raise _refused(
            origin,
            f"is {mode!r}, which cannot be used{reason}",
            hint=f"allowed: {', '.join(PERMISSION_MODES)}",
        )
    return mode


def _refused(origin: str, why: str, *, hint: str) -> MasError:
    """A value that is not allowed: the command line's fault, or the configuration's."""
    kind = UsageError if origin.startswith(_FLAG) else ConfigError
    return kind(f"{origin} {why}", hint=hint)


def _prices(file: ConfigFile, where: str) -> dict[str, PriceSection]:
    for model, section in file.prices.items():
        for key in section.__struct_fields__:
            price = getattr(section, key)
            if price is not None and not 0 <= price < math.inf:
                raise ConfigError(
                    f'{where}: prices."{model}".{key} is {price:g}, which is no price',
                    hint="a number of US dollars a million tokens, 0 or more",
                )
    return file.prices


def _roster(
    file: ConfigFile, where: str, capabilities: Mapping[str, str], warnings: list[str]
) -> tuple[AgentSpec, ...]:
    if not file.agents:
        return DEFAULT_ROSTER
    roster = []
    for agent_id, section in file.agents.items():
        place = f"{where}: agents.{agent_id}"
        if not _AGENT_ID.fullmatch(agent_id):
            raise ConfigError(
                f"{place}: not a usable name",
                hint="letters, digits, '_', '.' and '-', at most 64",
            )
        if not section.capabilities:
            raise ConfigError(
                f"{place}.capabilities is empty",
                hint=f"known capabilities: {', '.join(capabilities)}",
            )
        for capability in section.capabilities:
            if capability not in capabilities:
                raise ConfigError(
                    f"{place}.capabilities: unknown capability {capability!r}",
                    hint=f"known: {', '.join(capabilities)}; declare another one in "
                    f'[capabilities], as {capability} = "what it means"',
                )
        mode = section.permission_mode
        if mode is not None:
            mode = _permission_mode(mode, f"{place}.permission_mode", warnings)
        roster.append(
            AgentSpec(
                id=agent_id,
                capabilities=tuple(dict.fromkeys(section.capabilities)),
                command=section.command,
                permission_mode=mode,
                model=section.model,
            )
        )
    return tuple(roster)


def _postgres_dsn(environment: Mapping[str, str]) -> str | None:
    if "DATABASE_URL" in environment:
        return environment["DATABASE_URL"]
    if "POSTGRES_HOST" not in environment:
        return None
    host = environment["POSTGRES_HOST"]
    port = _number(environment, "POSTGRES_PORT", 5432)
    user = environment.get("POSTGRES_USER", "postgres")
    password = environment.get("POSTGRES_PASSWORD")
    database = environment.get("POSTGRES_DB", user)
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    if host.startswith("/"):
        address = f"{login}@/{quote(database, safe='')}?host={quote(host)}&port={port}"
    else:
        address = f"{login}@{_bracketed(host)}:{port}/{quote(database, safe='')}"
    return f"postgresql://{address}"


def _redis_url(environment: Mapping[str, str]) -> str | None:
    if "REDIS_URL" in environment:
        return environment["REDIS_URL"]
    if "REDIS_HOST" not in environment:
        return None
    port = _number(environment, "REDIS_PORT", 6379)
    database = _number(environment, "REDIS_DB", 0)
    password = environment.get("REDIS_PASSWORD")
    login = f":{quote(password, safe='')}@" if password else ""
    host = _bracketed(environment["REDIS_HOST"])
    return f"redis://{login}{host}:{port}/{database}"


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _secret(environment: Mapping[str, str], name: str) -> str | None:
    """The credential, which goes into a header: an error there would print it."""
    value = environment.get(name, "").strip()
    if not (value.isascii() and (value.isprintable() or not value)):
        raise ConfigError(
            f"the variable {name} holds characters that no credential has",
            hint="set it anew; a line break may have come along when it was copied",
        )
    return value or None


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or int(value) > 65535:
        raise ConfigError(
            f"the variable {name} is {value!r}, not a whole number up to 65535",
            hint=f"leave it out for {default}",
        )
    return int(value)


def _absolute(path: Path, origin: str) -> Path:
    try:
        return path.expanduser().resolve()
    except (RuntimeError, ValueError) as error:  # no such user; a NUL
        raise ConfigError(
            f"{origin} is {str(path)!r}: {error}", hint="give an absolute path"
        ) from error


def _home(environment: Mapping[str, str]) -> Path:
    if "MAS_HOME" in environment:
        return _absolute(Path(environment["MAS_HOME"]), "MAS_HOME")
    if os.geteuid() == 0:
        return Path("/var/lib/mas")
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/mas"
    data = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "mas"
