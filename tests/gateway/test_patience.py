"""A deadline that stands still while it is held."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mas.gateway.patience import Patience


async def test_it_ends_what_takes_too_long() -> None:
    patience = Patience(0.02)
    with patience.scope:
        await anyio.sleep_forever()
    assert patience.scope.cancelled_caught


async def test_it_ends_nothing_that_is_quick() -> None:
    patience = Patience(60)
    with patience.scope:
        await checkpoint()
    assert not patience.scope.cancelled_caught


async def test_it_stands_still_while_it_is_held() -> None:
    patience = Patience(10)
    now = anyio.current_time()
    assert patience.scope.deadline == pytest.approx(now + 10, abs=1)
    patience.hold(True)
    patience.hold(True)
    assert patience.scope.deadline == float("inf")
    patience.hold(False)
    patience.hold(False)
    assert patience.scope.deadline == pytest.approx(anyio.current_time() + 10, abs=1)


async def test_what_was_used_before_counts_after_it() -> None:
    patience = Patience(10)
    patience.scope.deadline -= 9.99  # as if so much had passed
    patience.hold(True)
    patience.hold(False)
    with anyio.fail_after(5), patience.scope:
        await anyio.sleep_forever()
    assert patience.scope.cancelled_caught
