"""How a run is shown while it goes: live, a line a change, or JSON lines."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import anyio
import click
import msgspec
from rich.console import Console
from rich.live import Live

from mas.cli.plain import Waits, line
from mas.cli.progress import render, summary
from mas.cli.text import glyphs_for
from mas.core.events import Recorded
from mas.core.view import RunView

_FRAME_S = 0.25
"""Four frames a second: a frame costs some milliseconds of the supervisor's loop."""

Show = Callable[[Recorded], None]


class Screen(NamedTuple):
    """Where the events of a run go."""

    show: Show
    recall: Show
    """For the facts of former runs: what is shown builds on them, none is told."""


def _forget(recorded: Recorded) -> None:
    pass


@asynccontextmanager
async def shown(
    description: str,
    *,
    max_attempts: int,
    plain: bool,
    as_json: bool,
) -> AsyncIterator[Screen]:
    """Give what shows each event, in the way that fits where it goes.

    JSON lines are results and go to stdout; the live view and the lines are talk and go
    to stderr. At the end the summary goes to stdout.
    """
    if as_json:
        yield Screen(_show_json, _forget)
        return
    view = RunView(max_attempts=max_attempts)
    view.description = description
    if plain or not _is_terminal():
        waits = Waits()

        def show_line(recorded: Recorded) -> None:
            view.apply(recorded)
            text = line(recorded) if waits.is_news(recorded) else None
            if text is not None:
                click.echo(text, err=True)

        yield Screen(show_line, view.apply)
    else:
        async with _live(view) as show:
            yield Screen(show, view.apply)
    console = Console()
    end = summary(view, now=datetime.now(UTC), width=console.width)
    console.print(end, crop=False)  # a path is for copying: never cut


@asynccontextmanager
async def _live(view: RunView) -> AsyncIterator[Show]:
    console = Console(stderr=True)
    glyphs = glyphs_for(console.encoding)

    def draw(is_summed_up: bool = False) -> None:
        frame = render(
            view,
            now=datetime.now(UTC),
            width=console.width,
            height=console.height - 1,
            glyphs=glyphs,
            is_summed_up=is_summed_up,
        )
        live.update(frame, refresh=True)

    async def keep_drawing() -> None:
        while True:
            try:
                draw()
            except OSError:  # the terminal is gone; SIGHUP tells the supervisor
                return
            await anyio.sleep(_FRAME_S)

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_drawing)
            yield view.apply
            tasks.cancel_scope.cancel()
        draw(is_summed_up=sys.stdout.isatty())


def _show_json(recorded: Recorded) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(recorded.to_json()) + b"\n")
    sys.stdout.buffer.flush()


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
