"""The key stays in the supervisor: agents, their CLIs and shells know a token."""

from pathlib import Path
from typing import Any

import anyio

from mas.keeper import Servers
from mas.store.postgres import TaskStore
from mas.testing import ScriptedClaude
from tests.cli.command import Mas
from tests.scripts import diligent, scripted

KEY = "sk-ant-only-for-the-supervisor"
ONE: tuple[dict[str, Any], ...] = ({"key": "spy"},)
SPYING = """\
env > output/environment
for up in $PPID $(ps -o ppid= -p $PPID); do
  tr '\\0' '\\n' < /proc/$up/environ; tr '\\0' '\\n' < /proc/$up/cmdline
done > output/processes"""


def holding(folder: Path, secret: str) -> list[str]:
    """The files below that hold it."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


def test_the_key_is_nowhere_but_in_the_requests_that_go_out(
    mas: Mas, home: Path, servers: Servers
) -> None:
    spy = diligent("spy", command=SPYING)
    with ScriptedClaude(scripted(ONE, {"spy": spy}), require_key=KEY) as claude:
        done = mas.run(
            *("run", "x", "--json"),
            ANTHROPIC_BASE_URL=claude.url,
            ANTHROPIC_API_KEY=KEY,
        )
        assert done.code == 0, done.err
        assert {request.key for request in claude.requests} == {KEY}
    assert KEY not in done.out + done.err

    task_id = done.events[-1]["task_id"]
    output = mas.folder / "shared_files" / task_id / "spy" / "output"
    seen = (output / "environment").read_text() + (output / "processes").read_text()
    token = next(
        line.partition("=")[2]
        for line in seen.splitlines()
        if line.startswith("ANTHROPIC_API_KEY=")
    )
    assert token.startswith("mas-")
    assert "mas.agent" in seen and KEY not in seen

    async def recorded() -> str:
        store = await TaskStore.connect(servers.postgres_dsn)
        try:
            found = [
                *await store.events(task_id),
                *await store.calls(task_id),
                *await store.logs(task_id),
            ]
        finally:
            await store.close()
        return "\n".join(map(str, found))

    found = anyio.run(recorded)
    assert KEY not in found
    assert token not in found
    assert holding(home / "claude", KEY) == []
