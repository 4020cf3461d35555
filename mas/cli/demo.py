"""``mas demo``: the whole pipeline on a scripted model."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from shutil import get_terminal_size

import anyio
import click
from msgspec import structs

from mas.cli.options import (
    config_option,
    debug_option,
    json_option,
    plain_option,
    read_config,
    record_option,
)
from mas.cli.resume import DEMO
from mas.cli.supervise import Job, supervise
from mas.cli.tape import Recording, recording
from mas.config import DEFAULT_ROSTER, Claude, Config, Credentials, Limits
from mas.demo.plan import task
from mas.demo.script import THINKING_S, script
from mas.demo.source import BUNDLED, check_table
from mas.errors import MasError
from mas.model import CAPABILITIES
from mas.testing import ScriptedUpstream

_RAN_TO_THE_END = (0, 1)
_WIDTH = 78


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@record_option
@plain_option
@json_option
@config_option
@debug_option
def demo(
    file: Path | None,
    record: Path | None,
    plain: bool,
    as_json: bool,
    config_path: Path | None,
) -> int:
    """Run a whole pipeline on a scripted model: no key, no tokens.

    FILE is a CSV of yours; without one it is a table of penguins. What the model says
    is scripted, the rest is real: five agents, the Claude CLI, its tools, PostgreSQL
    and Redis. The figures in the report are computed from the file.
    """
    path = file or BUNDLED
    check_table(path)
    config = read_config(config_path)
    _say(
        f"mas demo: the model is scripted, so this takes no key and no tokens. The "
        f"rest is real, and every figure is computed from {path.name} as you watch."
    )
    job = Job(
        work=lambda supervisor: supervisor.run(task(path.name), [path]),
        description=task(path.name),
        script=DEMO,
    )
    played = partial(play, config, path.name, job, plain=plain, as_json=as_json)
    if record is None:
        return anyio.run(played)
    with recording(record, _for_the_script(config), job.description, [path]) as tape:
        return tape.ended(anyio.run(partial(played, tape=tape)))


async def play(
    config: Config,
    file_name: str,
    job: Job,
    *,
    plain: bool,
    as_json: bool,
    tape: Recording | None = None,
) -> int:
    """Do the job on the scripted model, for a table of this name."""
    claude = ScriptedUpstream(script(file_name), latency_s=THINKING_S)
    asked = tape.of(claude) if tape else claude
    played = structs.replace(job, upstream=lambda: nullcontext(asked))
    scripted = _for_the_script(config)
    code = await supervise(scripted, played, plain=plain, as_json=as_json)
    if claude.errors and code in _RAN_TO_THE_END:
        raise MasError(
            "the script of the demo had no answer",
            hint="please report it, with the file if you can",
            evidence="\n".join(claude.errors),
        )
    if code == 0:
        _say(
            "The model was scripted, the figures are real. "
            'With a key: mas run "your task"'
        )
    return code


def _say(words: str) -> None:
    click.echo(
        click.wrap_text(words, width=min(_WIDTH, get_terminal_size().columns)), err=True
    )


def _for_the_script(config: Config) -> Config:
    """The user's servers and folders, with the agents that the script needs."""
    return structs.replace(
        config,
        claude=Claude(),
        limits=Limits(),
        roster=DEFAULT_ROSTER,
        capabilities=dict(CAPABILITIES),
        credentials=Credentials(),
    )
