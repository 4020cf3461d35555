"""Looks into PostgreSQL when it says that there is something new, and never else."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio

from mas.errors import MasError, NotReadyError, StoreError
from mas.store.outage import Revive, retry_pauses
from mas.store.sql import Connection, Listener

_T = TypeVar("_T")

_LINE_CHECK_S = 30.0
"""A line may die without a word to this end: then looking finds out."""


async def look_until(
    connect: Callable[[], Awaitable[Listener]],
    channel: str,
    payload: str,
    look: Callable[[Connection], Awaitable[_T | None]],
    *,
    revive: Revive | None = None,
) -> _T:
    """Call ``look`` until it finds something: at first, then after each announcement.

    It listens before it looks, so nothing is missed. Lost connections are opened again,
    for ever and without a word; ``revive`` is called before.
    """
    pauses = retry_pauses()
    while True:
        try:
            session = await connect()
            try:
                notices = await session.listen(channel, payload)
                while (found := await look(session)) is None:
                    pauses = retry_pauses()
                    with anyio.move_on_after(_LINE_CHECK_S):
                        await notices.wait()
                return found
            finally:
                await session.close()
        except (StoreError, NotReadyError):
            await anyio.sleep(next(pauses))
        if revive is not None:
            with suppress(MasError):  # connecting will fail too, and be tried again
                await revive()
