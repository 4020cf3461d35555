"""Makes modules tell of each function that is entered and left, by an import hook."""

import ast
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from tests.crash.points import Point, Side, defined

_HOOK = "__mas_test_point__"

Heard = Callable[[Point], object]


def instrument(modules: Sequence[str], heard: Heard) -> None:
    """From now on each call in these modules is told to ``heard``, counted from 1.

    A module that is imported already would be missed: ValueError.
    """
    if early := [name for name in modules if name in sys.modules]:
        raise ValueError(f"imported too early: {early}")
    sys.meta_path.insert(0, _Finder(modules, _Counting(heard)))


class _Counting:
    """Numbers the calls; several threads may call."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._calls: Counter[tuple[str, Side]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, function: str, side: Side) -> None:
        with self._lock:
            self._calls[function, side] += 1
            call = self._calls[function, side]
        self._heard(Point(function, Side(side), call))


class _Finder(MetaPathFinder):
    def __init__(self, modules: Sequence[str], count: _Counting) -> None:
        self._modules = modules
        self._count = count

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            raise ImportError(f"{fullname} is not found")
        spec.loader = _Loader(fullname, spec.origin, self._count)
        return spec


class _Loader(SourceFileLoader):
    """Compiles the source anew, changed; never from, and never to, a .pyc file."""

    def __init__(self, fullname: str, path: str, count: _Counting) -> None:
        super().__init__(fullname, path)
        self._count = count

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        for name, function in list(defined(tree)):
            _wrap(function, f"{fullname}:{name}")
        return compile(ast.fix_missing_locations(tree), path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_HOOK] = self._count
        super().exec_module(module)


def _wrap(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> None:
    """Put ``hook(name, side)`` at the start of the function and at all of its ends."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    head, body = function.body[:has_docstring], function.body[has_docstring:]
    ending = ast.Try(
        body=body or [ast.Pass()],
        handlers=[],
        orelse=[],
        finalbody=[_call(name, Side.LEAVES)],
    )
    function.body = [*head, _call(name, Side.ENTERS), ending]


def _call(name: str, side: Side) -> ast.Expr:
    arguments: list[ast.expr] = [ast.Constant(name), ast.Constant(side.value)]
    return ast.Expr(ast.Call(ast.Name(_HOOK, ast.Load()), arguments, []))
