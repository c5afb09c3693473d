"""Calls of a state: retried while it is not available, and many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from superlink_trio.state import StateUnavailable

Result = TypeVar("Result")
Item = TypeVar("Item")

# Seconds before another try.
_RETRY_AFTER = 1.0

# As many steps as fit into one commit.
_AT_ONCE = 256


async def when_available(call: Callable[[], Awaitable[Result]], *, shield: bool = False) -> Result:
    """Retry a call of the state until it is available; its log says what is wrong with it.

    With `shield` only the pauses in between can be cancelled.
    """
    while True:
        try:
            with trio.CancelScope(shield=shield):
                return await call()
        except StateUnavailable:
            await trio.sleep(_RETRY_AFTER)


async def for_each(call: Callable[[Item], Awaitable[object]], items: Sequence[Item]) -> None:
    """Call for many, so that a store can put what they ask for into few commits."""
    for start in range(0, len(items), _AT_ONCE):
        async with trio.open_nursery() as nursery:
            for item in items[start : start + _AT_ONCE]:
                nursery.start_soon(call, item)
