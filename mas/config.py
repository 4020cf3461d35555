"""What can be set: one frozen Config, section by section as in mas.toml.

``load`` in mas/settings.py reads it from mas.toml, the environment and the flags.
"""

from pathlib import Path

from msgspec import Struct, field

from mas.model import CAPABILITIES, AgentSpec

DEFAULT_MODEL = "claude-sonnet-5-5"


class Claude(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str = DEFAULT_MODEL
    planner_model: str | None = None
    """None: the same as ``model``."""
    permission_mode: str = "acceptEdits"
    max_turns: int = 50


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_subtasks: int = 50
    max_attempts: int = 3
    attempt_timeout_s: float = 1800
    task_timeout_s: float = 0
    """0 is none."""
    inactivity_timeout_s: float = 300
    planner_timeout_s: float = 120
    budget_usd: float | None = None
    budget_tokens: int | None = None
    budget_usd_per_day: float | None = None
    """Each of the three: None is no limit."""


class Gateway(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: int = 0
    """On loopback; 0 is one that is free."""
    longest_wait_s: float = 300
    """A rate limit or an outage that takes longer suspends the task."""
    first_wave_s: float | None = None
    """How long the first requests wait for the first answer, for the prompt cache's
    sake; None: 5 where Claude is asked at Anthropic's own address, else 0."""


class Supervisor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    heartbeat_s: float = 10
    agent_ttl_s: float = 60
    handshake_timeout_s: float = 30
    max_restarts: int = 5
    restart_window_s: float = 60
    shutdown_grace_s: float = 5
    outage_timeout_s: float = 300
    """How long PostgreSQL may be away in mid-run before the task is suspended."""


class Postgres(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dsn: str | None = None
    """None: the embedded server."""


class Redis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str | None = None
    """None: the embedded server."""


class Embeddings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str | None = None


class Files(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: Path = Path("shared_files")


class Credentials(Struct, frozen=True, kw_only=True):
    """How Claude is reached. Never printed: the repr shows only what is set."""

    api_key: str | None = None
    auth_token: str | None = None
    base_url: str | None = None

    @property
    def found(self) -> bool:
        return bool(self.api_key or self.auth_token)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no record."""
        return tuple(filter(None, (self.api_key, self.auth_token)))

    def __repr__(self) -> str:
        pairs = {
            "ANTHROPIC_API_KEY": self.api_key,
            "ANTHROPIC_AUTH_TOKEN": self.auth_token,
            "ANTHROPIC_BASE_URL": self.base_url,
        }
        return f"Credentials({', '.join(name for name in pairs if pairs[name])})"


class AgentSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    capabilities: tuple[str, ...]
    command: tuple[str, ...] = ()
    permission_mode: str | None = None
    model: str | None = None


class PriceSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in US dollars a million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None


class ConfigFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """mas.toml, section by section."""

    claude: Claude = Claude()
    limits: Limits = Limits()
    agents: dict[str, AgentSection] = field(default_factory=dict)
    capabilities: dict[str, str] = field(default_factory=dict)
    supervisor: Supervisor = Supervisor()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    embeddings: Embeddings = Embeddings()
    files: Files = Files()
    gateway: Gateway = Gateway()
    prices: dict[str, PriceSection] = field(default_factory=dict)


DEFAULT_ROSTER = tuple(
    AgentSpec(id=f"agent_{number}", capabilities=capabilities)
    for number, capabilities in enumerate(
        (
            ("data_analysis", "code_generation"),
            ("web_scraping", "api_integration"),
            ("file_processing", "database_operations"),
            ("code_generation", "api_integration"),
            ("data_analysis", "database_operations"),
        ),
        start=1,
    )
)


class Config(Struct, frozen=True, kw_only=True):
    """Everything that can be set, with mas.toml, environment and flags applied."""

    claude: Claude = Claude()
    limits: Limits = Limits()
    supervisor: Supervisor = Supervisor()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    embeddings: Embeddings = Embeddings()
    files: Files = Files()
    gateway: Gateway = Gateway()
    prices: dict[str, PriceSection] = field(default_factory=dict)
    """By model; they overrule the table in the package."""
    roster: tuple[AgentSpec, ...] = DEFAULT_ROSTER
    capabilities: dict[str, str] = field(default_factory=lambda: dict(CAPABILITIES))
    """What each capability means, by name: the built-in ones and those of mas.toml."""
    credentials: Credentials = Credentials()
    home: Path
    """MAS_HOME, absolute."""
    source: Path | None = None
    """The mas.toml that was read."""
