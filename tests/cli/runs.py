"""Runs to look at, and how to look at them."""

import io

from rich.console import Console, RenderableType

from mas.cli.progress import render, summary
from mas.cli.text import UNICODE, Glyphs
from mas.model import Status, Usage
from tests.core.telling import Telling, subtask

WIDTHS = (40, 60, 80, 100, 160, 250)
HOSTILE = "\x1b[2J\x1b]0;x\x07[red]no[/red]\r\n全サービス \u202e 👩\u200d💻 \x9b31m"


def screen(
    run: Telling, width: int = 80, height: int = 24, glyphs: Glyphs = UNICODE
) -> str:
    frame = render(run.view, now=run.now, width=width, height=height, glyphs=glyphs)
    return text_of(frame, width, height)


def summed_up(run: Telling, width: int = 80) -> str:
    told = summary(run.view, now=run.now, width=width, glyphs=UNICODE)
    return text_of(told, width)


def text_of(renderable: RenderableType, width: int, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(renderable, crop=False)
    return captured.get()


def price_report() -> Telling:
    """Six subtasks in four stages, half done."""
    run = Telling(
        "Quarterly competitor price report",
        subtask("fetch", description="Scrape competitor prices"),
        subtask("query", description="Load Q3 sales from Postgres"),
        subtask("fx", description="Pull FX rates"),
        subtask(
            "clean", "fetch", "query", description="Normalise and join both sources"
        ),
        subtask("stats", "clean", description="Price elasticity by region"),
        subtask("report", "stats", "fx", description="Write the report"),
    )
    run.start("fetch", agent="agent_2")
    run.end_attempt("fetch", Status.FAILED, 3, error="exited", retry_in_s=0)
    run.start("fetch", attempt=2, agent="agent_2")
    run.progress("fetch", "WebFetch", attempt=2)
    run.start("query", agent="agent_5")
    run.progress("query", "query_database")
    run.complete("query", 12.9, usage=Usage(6100, cost_usd=0.04))
    run.start("fx", agent="agent_4")
    run.complete("fetch", 41.2, attempt=2, usage=Usage(18400, cost_usd=0.11))
    run.start("clean", agent="agent_3")
    run.progress("clean", "Write")
    run.complete("clean", 22, usage=Usage(9800, cost_usd=0.06))
    run.start("stats", agent="agent_2")
    run.progress("stats", "Bash python fit.py")
    run.progress("stats", "reads", subagent="Explore", status="running")
    run.wait(64)
    run.end_attempt(
        "fx", Status.FAILED, 3.1, error="agent exited with 137", retry_in_s=3
    )
    return run


def many(number: int) -> Telling:
    """A wide plan in full swing: something in every state."""
    third = max(1, number // 3)
    run = Telling(
        f"Audit {number} services",
        *(
            subtask(
                f"s{at}",
                *([f"s{at - third}"] if at >= third else []),
                description=f"Audit service {at} {HOSTILE}",
            )
            for at in range(number)
        ),
    )
    usage = Usage(1234, 5, cost_usd=0.02)
    for at in range(number // 2):
        run.start(f"s{at}", agent=f"agent_{at % 5 + 1}")
        run.progress(f"s{at}", f"Read {HOSTILE}")
        if at % 17 == 5:
            run.end_attempt(f"s{at}", Status.FAILED, 5, error=HOSTILE, usage=usage)
            run.end(f"s{at}", Status.FAILED)
        elif at < number // 2 - 5:
            run.complete(f"s{at}", 5 + at, usage=usage)
    return run
