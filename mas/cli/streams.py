"""The three standard streams, when they are not what a program expects."""

import os
import sys


def prepare() -> None:
    """Make sure that all three are there and take any text.

    A shell can close them (``2>&-``). The next file that is opened would get the
    number, and what is meant for the user would go into it.
    """
    for number, name, mode in (
        (0, "stdin", "r"),
        (1, "stdout", "w"),
        (2, "stderr", "w"),
    ):
        try:
            os.fstat(number)
        except OSError:
            flags = os.O_RDONLY if mode == "r" else os.O_WRONLY
            nowhere = os.open(os.devnull, flags)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a plain file object, as under pytest
            stream.reconfigure(errors="replace")


def stop_writing() -> None:
    """Nobody reads stdout any more: what is still written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
