"""Options that several commands share, and what they come to."""

from pathlib import Path
from typing import Any

import click

from mas.config import Config
from mas.settings import load

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Read this file instead of ./mas.toml.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for other programs."
)
plain_option = click.option(
    "--plain", is_flag=True, help="One line a change instead of the live view."
)
input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file or folder for the subtasks; may be given several times.",
)


budget_option = click.option(
    "--budget",
    "budget_usd",
    type=float,
    metavar="USD",
    help="What the task may cost, over all its runs; then it is suspended.",
)
budget_tokens_option = click.option(
    "--budget-tokens",
    type=int,
    metavar="N",
    help="The same in tokens: input, output and cache writes.",
)


record_option = click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep every exchange with Claude in FILE, for --replay.",
)


def debug_option(command: Any) -> Any:
    """Accept --debug after the command's name too; ``main`` looks at the arguments."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Traceback with an error."
    )(command)


def read_config(
    path: Path | None, flags: dict[tuple[str, str], Any] | None = None
) -> Config:
    """The configuration; warnings go to stderr."""
    config, warnings = load(path=path, flags=flags)
    for warning in warnings:
        click.echo(f"mas: warning: {warning}", err=True)
    return config
