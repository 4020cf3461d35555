"""The programs that the demo's agents write into their workspaces and run there.

Each is one file that needs nothing but the standard library, because it runs in a
workspace, where mas cannot be imported. They work on what the agent finds there:
``context/``, ``output/`` and ``temp/``.
"""

from pathlib import Path


def source(name: str) -> str:
    """Return the text of the program ``name``, as an agent writes it."""
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
