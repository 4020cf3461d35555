"""``python -m mas``: the same as the command ``mas``."""

from mas.cli import main

main()
