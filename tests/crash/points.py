"""The points at which mas is killed: generated from its code, not listed by hand.

A point is the k-th time that a function is entered or left, however it is left.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Self

from msgspec import Struct

import mas

SUPERVISOR = (
    "mas.supervisor.supervisor",
    "mas.supervisor.engine",
    "mas.supervisor.journal",
    "mas.supervisor.handles",
    "mas.supervisor.pool",
    "mas.supervisor.results",
    "mas.supervisor.takeover",
    "mas.supervisor.claude",
    "mas.gateway.gateway",
    "mas.gateway.spending.ledger",
    "mas.store.ledger",
    "mas.store.writer",
)
AGENT = (
    "mas.agent.worker",
    "mas.agent.attempt",
    "mas.agent.session",
    "mas.agent.workspace",
)
JOURNAL_WRITES = (
    "mas.supervisor.journal:Journal.create",
    "mas.supervisor.journal:Journal.append",
)
"""Each call of these is a point, not some only."""

_ROOT = Path(mas.__file__).parent.parent


class Side(StrEnum):
    ENTERS = "enters"
    LEAVES = "leaves"


class Point(Struct, frozen=True, order=True):
    """Where a process kills itself."""

    function: str
    """``module:qualified name``."""
    side: Side
    call: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        function, side, call = text.split("/")
        return cls(function, Side(side), int(call))

    def __str__(self) -> str:
        return f"{self.function}/{self.side}/{self.call}"

    @property
    def digest(self) -> bytes:
        """Spreads points evenly, and the same way each time."""
        return hashlib.sha256(str(self).encode()).digest()


def functions(modules: Iterable[str]) -> list[str]:
    """Every function and method of these modules, in the order of the source."""
    return [
        f"{module}:{name}"
        for module in modules
        for name, _ in defined(ast.parse(source_of(module).read_text("utf-8")))
    ]


def source_of(module: str) -> Path:
    return _ROOT.joinpath(*module.split(".")).with_suffix(".py")


def defined(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below ``tree`` with its qualified name, the outer ones first."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name, node
                yield from defined(node, f"{prefix}{name}.<locals>.")
            case ast.ClassDef(name=name):
                yield from defined(node, f"{prefix}{name}.")
            case _:
                yield from defined(node, prefix)


def table(names: Iterable[str], calls: Mapping[str, int]) -> list[Point]:
    """The points of these functions, called so often in an undisturbed run.

    The first call of each, entered and left; where there are more, one from the middle;
    of the journal's writes, every one. A function that is never called keeps its first
    call's points: that it is not reached is for the reader to see.
    """
    points = []
    for name in names:
        number = calls.get(name, 0)
        wanted = {1, 1 + number // 2} if number > 2 else {1}
        if name in JOURNAL_WRITES:
            wanted = set(range(1, max(1, number) + 1))
        points += [Point(name, side, call) for call in sorted(wanted) for side in Side]
    return points


def sample(points: Iterable[Point], number: int) -> list[Point]:
    """So many of them, spread over the table and the same each time."""
    return sorted(sorted(points, key=lambda point: point.digest)[:number])


def calls_in(log: str) -> Counter[str]:
    """How often each function was entered, from the lines that ``dying`` keeps."""
    return Counter(log.split())
