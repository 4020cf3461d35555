"""The tools that mas gives to Claude, as one MCP server for each attempt."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from claude_agent_sdk import McpSdkServerConfig, create_sdk_mcp_server
from msgspec import Struct

from mas.agent.tools.database import Database
from mas.agent.tools.generate_embedding import generate_embedding
from mas.agent.tools.get_shared_data import get_shared_data
from mas.agent.tools.query_database import query_database
from mas.agent.tools.share_data import share_data
from mas.agent.tools.shared import Shared
from mas.agent.workspace import Workspace
from mas.wire.messages import RunAttempt, ServiceSettings

SERVER_NAME = "mas"


class Toolbox(Struct, frozen=True):
    """The server, and the names under which Claude may use its tools."""

    server: McpSdkServerConfig
    allowed: tuple[str, ...]


@asynccontextmanager
async def open_tools(
    order: RunAttempt, services: ServiceSettings, workspace: Workspace
) -> AsyncIterator[Toolbox]:
    """The tools for one attempt; what they connected to is let go at the end."""
    database = Database(services.database_dsn, order.database_schema)
    shared = Shared(services.redis_url, order.task_id)
    tools = [
        query_database(database),
        generate_embedding(services.embedding_url, workspace.root / "temp"),
        share_data(shared),
        get_shared_data(shared),
    ]
    server = create_sdk_mcp_server(SERVER_NAME, tools=tools)
    allowed = tuple(f"mcp__{SERVER_NAME}__{tool.name}" for tool in tools)
    try:
        yield Toolbox(server, allowed)
    finally:
        await database.close()
        await shared.close()
