"""What an agent is told at its start: all that it may know."""

from mas.config import Config
from mas.model import AgentSpec
from mas.supervisor.services import Services
from mas.wire import messages


def agent_configuration(
    config: Config,
    supervisor_id: str,
    services: Services,
    base_url: str,
    spec: AgentSpec,
) -> messages.Configure:
    """The message that follows an agent's hello; makes Claude's folder if need be."""
    claude = config.claude
    config_dir = config.home / "claude"
    config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return messages.Configure(
        supervisor=supervisor_id,
        claude=messages.ClaudeSettings(
            model=spec.model or claude.model,
            permission_mode=spec.permission_mode or claude.permission_mode,
            max_turns=claude.max_turns,
            inactivity_timeout_s=config.limits.inactivity_timeout_s,
            config_dir=str(config_dir),
            base_url=base_url,
        ),
        services=messages.ServiceSettings(
            database_dsn=services.agents_database.dsn,
            redis_url=services.addresses.redis_url,
            embedding_url=config.embeddings.url,
        ),
        heartbeat_s=config.supervisor.heartbeat_s,
    )
