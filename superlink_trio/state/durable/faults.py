"""What stands in the way for a moment, and how to wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import trio

from superlink_trio.state.interface import StateUnavailable

Result = TypeVar("Result")


class Locked(StateUnavailable):
    """Another program has the database. Nothing was done, and it may be tried again at once."""


async def patiently(
    patience: float,
    attempt: Callable[[], Result],
    limiter: trio.CapacityLimiter | None = None,
) -> Result:
    """Call `attempt` in a thread until it is not Locked, for `patience` seconds at most.

    It may be cancelled between two attempts. Raises Locked, and what `attempt` raises.
    """
    # What another program does knows nothing of Trio's clock.
    gives_up_at = time.monotonic() + patience
    while True:
        try:
            return await trio.to_thread.run_sync(attempt, limiter=limiter)
        except Locked:
            if time.monotonic() >= gives_up_at:
                raise
