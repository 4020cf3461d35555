"""The house keeps its shape: who may import whom, and where each library lives."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mas"
MODULES = sorted(ROOT.rglob("*.py"))

LAYERS = [
    {"__init__", "errors", "model"},
    {"core", "wire", "config", "settings"},
    {"store", "keeper", "gateway", "testing", "gates"},
    {"planner", "agent"},
    {"supervisor"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
"""From the ground up: a module imports its own part, and what is below its layer."""

SAME_LAYER = {
    "model": {"errors"},
    "settings": {"config"},
    "testing": {"gateway"},  # scripted Claude is one of its upstreams
}
NEVER = {("cli", "agent"), ("supervisor", "agent"), ("agent", "supervisor")}
PURE = {"core", "wire"}
PURE_MODULES = {
    f"gateway/{folder}{name}.py"
    for folder, names in {
        "": ("encodings", "sse"),
        "pacing/": ("backoff", "breaker", "limits", "pace"),
        "spending/": ("budget", "event_stream", "meter", "reading", "reconcile"),
        "cassettes/": ("assembly", "conversation", "normal", "places"),
    }.items()
    for name in names
}
IMPURE_LIBRARIES = {
    "anyio", "asyncio", "asyncpg", "os", "random", "redis", "socket", "subprocess",
    "threading", "time",
}  # fmt: skip
HOMES = {
    "anthropic": ["planner.py"],
    "asyncpg": ["store/", "agent/tools/"],
    "redis": ["store/redis.py"],
    "claude_agent_sdk": ["agent/"],
    "mcp": ["agent/"],
    "rich": ["cli/"],
    "click": ["cli/"],
    "brotli": ["gateway/encodings.py"],
    "h11": ["gateway/server.py"],
    "httpx2": ["gateway/forward.py", "agent/tools/"],
    "starlette": ["testing/"],
    "uvicorn": ["gateway/server.py", "testing/"],
    "zstandard": ["gateway/encodings.py"],
}
MOST_LINES = 400


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            if node.module == "mas":
                yield from (f"mas.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if name in names)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_imports_only_downward(path: Path) -> None:
    own = part(path)
    for name in imports(path):
        if not name.startswith("mas."):
            continue
        other = name.split(".")[1]
        if (
            other == own
            or not (ROOT / other).exists() | (ROOT / f"{other}.py").exists()
        ):
            continue
        allowed = layer(other) < layer(own) or other in SAME_LAYER.get(own, ())
        assert allowed, f"{shown(path)} imports {name}"
        assert (own, other) not in NEVER, f"{shown(path)} imports {name}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if part(path) in PURE or shown(path) in PURE_MODULES],
    ids=shown,
)
def test_the_pure_parts_touch_nothing_outside(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & IMPURE_LIBRARIES
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree) if isinstance(node, nodes)]
    calls = {
        node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
    }
    assert not calls & {"now", "today", "open", "read_text", "write_text", "print"}


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_each_library_has_its_home(path: Path) -> None:
    for name in {name.split(".")[0] for name in imports(path)} & set(HOMES):
        homes = HOMES[name]
        assert any(shown(path).startswith(home) for home in homes), (
            f"{shown(path)} imports {name}, which lives in {homes}"
        )


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_is_one_thing(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_modules_do_not_import_each_other_in_circles() -> None:
    graph = {
        ".".join(("mas", *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in MODULES
    }
    edges = {
        name: {target for target in imports(path) if target in graph}
        for name, path in graph.items()
    }
    while leaves := {name for name, targets in edges.items() if not targets}:
        edges = {
            name: targets - leaves
            for name, targets in edges.items()
            if name not in leaves
        }
    assert edges == {}


def test_every_part_of_the_house_is_in_one_layer() -> None:
    for name in {part(path) for path in MODULES}:
        assert sum(name in names for names in LAYERS) == 1, name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "mas.cli",
            {"anthropic", "anyio", "asyncpg", "claude_agent_sdk", "redis", "rich"},
        ),
        ("mas.cli.agents", {"anthropic", "asyncpg", "claude_agent_sdk", "uvicorn"}),
        ("mas.cli.tasks", {"anthropic", "claude_agent_sdk", "uvicorn"}),
        ("mas.cli.run", {"anthropic", "claude_agent_sdk", "starlette", "mcp"}),
        ("mas.agent.__main__", {"anthropic", "claude_agent_sdk", "mcp", "uvicorn"}),
    ],
)
def test_a_command_loads_only_what_it_needs(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not heavy & set(loaded.stdout.split())
