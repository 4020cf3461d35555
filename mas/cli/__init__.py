"""The command line: one command, one file, loaded only when it is called."""

import os
import signal
import sys
import traceback
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from mas import __version__
from mas.cli import streams
from mas.errors import MasError

COMMANDS = {
    "run": "Plan a task, run it on all agents and show it live.",
    "demo": "Run a whole pipeline on a scripted model: no key, no tokens.",
    "agents": "Show every agent that runs now.",
    "tasks": "List the recorded tasks, newest first.",
    "show": "Show a task's state and results.",
    "resume": "Go on with a task where it stopped.",
    "cancel": "End a task, whoever runs it.",
    "doctor": "Say what is there, what is missing and how to mend it.",
}
"""Each is the function of that name in the module of that name in this package."""


class _LazyGroup(click.Group):
    """Knows the commands by name and help; loads a command's module when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"mas.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mas")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Split a task into a DAG of subtasks with Claude and run them on five agents
    at once.

    Exit codes: 0 completed, 1 failed or cancelled, 2 usage, 3 not ready (credentials,
    services, configuration), 4 suspended, 130 Ctrl-C, 143 SIGTERM.
    """
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    streams.prepare()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # KeyboardInterrupt in the midst of an import leaves its lock held: a later
        # import waits for ever. Until a run takes the signals over, nothing needs care.
        signal.signal(signal.SIGINT, _end_at_once)
    sys.exit(_run(arguments))


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # the cursor, which a live view hides
    os.write(2, b"mas: interrupted\n")
    os._exit(128 + number)


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        code = cli.main(arguments, prog_name="mas", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("mas: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of the pipe has gone, as in `mas tasks | head`; nobody reads more.
        streams.stop_writing()
        return 0
    except MasError as error:
        return _told(error, debug=debug)
    except BaseExceptionGroup as group:
        first = _first(group)
        if isinstance(first, MasError):
            return _told(first, debug=debug)
        return _unexpected(first, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, not a traceback
        return _unexpected(error, debug=debug)
    return code if isinstance(code, int) else 0


def _told(error: MasError, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    click.echo(f"mas: {_visible(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {_visible(error.hint)}", err=True)
    for line in error.evidence.strip().splitlines()[-12:]:
        click.echo(f"  | {_visible(line)}", err=True)
    return error.exit_code


def _unexpected(error: BaseException, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    click.echo(
        f"mas: unexpected {type(error).__name__}: {_visible(str(error))}", err=True
    )
    click.echo("hint: please report it, with what --debug shows", err=True)
    return 1


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that matters: mas's own before any other."""
    leaves: list[BaseException] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo += reversed(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, MasError)), leaves[0])


def _visible(text: str) -> str:
    """Without control characters: what others wrote never steers the terminal."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text
    )
