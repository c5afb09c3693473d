"""What is known by two processes that serve together: each is told of the other's now and then."""

from __future__ import annotations

import trio

from superlink_trio.leaves import Shared


def exchange(one: Shared, other: Shared) -> None:
    """Tell each what was noted at the other."""
    for here, there in ((one, other), (other, one)):
        if (told := here.take()) is not None:
            there.hear(told)


async def exchange_always(one: Shared, other: Shared) -> None:
    """Do that every second, until cancelled."""
    while True:
        await trio.sleep(1)
        exchange(one, other)
