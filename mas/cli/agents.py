"""``mas agents``: a status table of every agent that runs now."""

from datetime import UTC, datetime
from pathlib import Path

import anyio
import click
import msgspec
from anyio import to_thread
from rich.console import Console

from mas import keeper
from mas.cli.options import config_option, debug_option, json_option, read_config
from mas.cli.tables import agents_table
from mas.config import Config
from mas.model import AgentStatus
from mas.store.redis import AgentBoard


@click.command()
@json_option
@config_option
@debug_option
def agents(as_json: bool, config_path: Path | None) -> int:
    """Show every agent that runs now, of all supervisors.

    Starts nothing: without a server there is no agent, and the table is empty.
    """
    statuses, note = anyio.run(_look, read_config(config_path))
    if as_json:
        click.echo(msgspec.json.encode({"agents": statuses}))
        return 0
    if note:
        click.echo(note, err=True)
    console = Console()
    console.print(agents_table(statuses, now=datetime.now(UTC)))
    return 0


async def _look(config: Config) -> tuple[list[AgentStatus], str]:
    if config.redis.url:
        return await _read(config.redis.url), ""
    lease = await to_thread.run_sync(keeper.join_running, config.home)
    if lease is None:
        return [], "The embedded servers are not running, so no agent is."
    try:
        return await _read(lease.servers.redis_url), ""
    finally:
        lease.close()


async def _read(url: str) -> list[AgentStatus]:
    board = await AgentBoard.connect(url)
    try:
        return await board.agents()
    finally:
        await board.close()
