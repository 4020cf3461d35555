"""The keeper process; ``mas.keeper.join`` starts it and hands it its locks."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from mas.errors import NotReadyError
from mas.keeper.locks import FileLock
from mas.keeper.log import Log
from mas.keeper.paths import Layout, explained
from mas.keeper.process import Keeper
from mas.keeper.starter import Failure


def main() -> int:
    home, alive_fd, starting_fd = sys.argv[1:]
    # Nobody's child, so that it is no zombie of a starter that lives on.
    if os.fork() != 0:
        os._exit(0)
    os.umask(0o077)
    layout = Layout(Path(home))
    keeper: Keeper | None = None
    try:
        with explained(layout.home):
            log = Log(layout.log)
            keeper = Keeper(
                layout,
                log,
                alive=FileLock.inherited(int(alive_fd)),
                starting=FileLock.inherited(int(starting_fd)),
            )
            keeper.run()
    except NotReadyError as error:
        if keeper is not None:
            log.write("keeper", f"failed: {error.message}")
        if keeper is None or not keeper.was_ready:
            failure = Failure(error.message, error.hint, error.evidence)
            with suppress(BrokenPipeError):  # the starter is gone, and does not care
                os.write(2, msgspec.json.encode(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
