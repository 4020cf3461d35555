"""``mas doctor``: what is there, what is missing, and how to mend it."""

import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import click
import msgspec
from rich.console import Console

from mas import __version__
from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.cli.tables import Check, CheckState, doctor_table
from mas.config import Config, Limits
from mas.errors import MasError
from mas.supervisor.claude import configured_prices
from mas.supervisor.services import open_services

_OLDEST_PYTHON = (3, 11)
_LOW_DISK_BYTES = 2**30
_CLI_DEADLINE_S = 20


@click.command()
@json_option
@config_option
@debug_option
def doctor(as_json: bool, config_path: Path | None) -> int:
    """Say what is there, what is missing and how to mend it.

    Starts the embedded servers for a moment where none are configured. Exit code 3
    where mas run could not work.
    """
    config = read_config(config_path)
    checks = [
        _python(),
        _cli(),
        _credentials(config),
        _gateway(config),
        *anyio.run(_servers, config),
        *_sandbox_tools(),
        _disk("disk for MAS_HOME", config.home),
        _disk("disk for results", config.files.path),
    ]
    if as_json:
        click.echo(msgspec.json.encode({"checks": checks}))
    else:
        Console().print(doctor_table(checks))
    return 3 if any(check.state is CheckState.WRONG for check in checks) else 0


def _python() -> Check:
    detail = f"{platform.python_version()} at {sys.executable}, mas {__version__}"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", CheckState.WRONG, detail, "install Python 3.11 or newer")
    return Check("Python", CheckState.OK, detail, "")


def _cli() -> Check:
    """The Claude CLI inside the SDK's wheel; found without importing the SDK."""
    name = "Claude CLI"
    spec = find_spec("claude_agent_sdk")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [
        path
        for folder in folders
        if (path := Path(folder, "_bundled/claude")).is_file()
    ]
    if not found:
        return Check(
            name,
            CheckState.WRONG,
            "not in the installed claude-agent-sdk",
            "pip install --force-reinstall claude-agent-sdk",
        )
    try:
        told = subprocess.run(
            [found[0], "--version"],
            capture_output=True,
            text=True,
            timeout=_CLI_DEADLINE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check(
            name,
            CheckState.WRONG,
            f"does not start: {error}",
            "pip install --force-reinstall claude-agent-sdk",
        )
    detail = f"{told.stdout.strip()}, SDK {version('claude-agent-sdk')}"
    return Check(name, CheckState.OK, detail, "")


def _credentials(config: Config) -> Check:
    credentials = config.credentials
    if not credentials.found:
        return Check(
            "credentials",
            CheckState.WRONG,
            "none found",
            "set ANTHROPIC_API_KEY; mas demo works without",
        )
    kind = "ANTHROPIC_API_KEY" if credentials.api_key else "ANTHROPIC_AUTH_TOKEN"
    detail = f"{kind} is set (not tried: that would cost)"
    return Check("credentials", CheckState.OK, detail, "")


def _gateway(config: Config) -> Check:
    """What agents go through to Claude: where it asks, and what it knows of costs."""
    try:
        prices = configured_prices(config)
    except MasError as error:
        return Check("gateway", CheckState.WRONG, error.message, error.hint)
    claude = config.claude
    models = [claude.model, claude.planner_model, *(it.model for it in config.roster)]
    wanted = list(dict.fromkeys(filter(None, models)))
    unknown = [model for model in wanted if prices.of(model) is None]
    known = [model for model in wanted if model not in unknown]
    told = [f"asks Claude at {_host(config.credentials.base_url)}"]
    if known:
        told.append(f"knows what {', '.join(known)} costs (table of {prices.date})")
    if unknown:
        told.append(f"does not know what {', '.join(unknown)} costs")
    told.append(_budgets(config.limits))
    detail = "; ".join(told)
    if not unknown:
        return Check("gateway", CheckState.OK, detail)
    hint = f'add [prices."{unknown[0]}"] to mas.toml, or no budget in USD counts it'
    return Check("gateway", CheckState.WARNING, detail, hint)


def _host(base_url: str | None) -> str:
    """The address without what may be secret in it."""
    if base_url is None:
        return "api.anthropic.com"
    return urlsplit(base_url).netloc.rpartition("@")[2] or "an address without a host"


def _budgets(limits: Limits) -> str:
    named = [
        (limits.budget_usd, "${:.2f} a task"),
        (limits.budget_tokens, "{:,} tokens a task"),
        (limits.budget_usd_per_day, "${:.2f} a day"),
    ]
    budgets = [form.format(most) for most, form in named if most is not None]
    if not budgets:
        return "no budget is set: --budget USD"
    return f"budget {', '.join(budgets)}"


async def _servers(config: Config) -> list[Check]:
    kind = {
        "PostgreSQL": "configured" if config.postgres.dsn else "embedded",
        "Redis": "configured" if config.redis.url else "embedded",
    }
    started = time.monotonic()
    try:
        async with open_services(config) as services:
            versions = {
                "PostgreSQL": await services.store.server_version(),
                "Redis": await services.board.server_version(),
            }
    except MasError as error:
        return [Check("servers", CheckState.WRONG, error.message, error.hint)]
    took_s = time.monotonic() - started
    return [
        Check(
            name,
            CheckState.OK,
            f"{versions[name]}, {kind[name]}, both ready in {took_s:.2f} s",
            "",
        )
        for name in kind
    ]


def _sandbox_tools() -> list[Check]:
    """What would contain an agent's Bash. This mas only looks; it does not use them."""
    if sys.platform == "darwin":
        names = {"sandbox-exec": "comes with macOS"}
    else:
        names = {
            "bwrap": "apt-get install bubblewrap, or your system's like",
            "socat": "apt-get install socat, or your system's like",
        }
    checks = []
    for name, hint in names.items():
        path = shutil.which(name)
        note = "this version of mas does not use it yet"
        checks.append(
            Check(f"sandbox: {name}", CheckState.OK, f"{path}; {note}", "")
            if path
            else Check(
                f"sandbox: {name}", CheckState.WARNING, f"not found; {note}", hint
            )
        )
    return checks


def _disk(name: str, folder: Path) -> Check:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, CheckState.WRONG, f"{folder}: {error}", "check the path")
    detail = f"{free / 2**30:.1f} GiB free at {folder}"
    if free < _LOW_DISK_BYTES:
        return Check(name, CheckState.WARNING, detail, "make room: 1 GiB is little")
    return Check(name, CheckState.OK, detail, "")
