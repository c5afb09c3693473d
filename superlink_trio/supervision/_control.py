"""How a running tree is stopped from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Control:
    """The two ways to stop a tree. Both keep its order, and both may be used any number of times.

    `stopping` is set once the tree was asked to stop, `cancelled` once it was asked to hurry.
    """

    def __init__(self) -> None:
        self.stopping = trio.Event()
        self.cancelled = trio.Event()

    def stop(self) -> None:
        """Stop gracefully: every child, in reverse order, has its grace."""
        self.stopping.set()

    def cancel(self) -> None:
        """Stop now: the same reverse order, but every grace ends at once."""
        self.stopping.set()
        self.cancelled.set()


@asynccontextmanager
async def shielded_stop(control: Control | None = None) -> AsyncIterator[Control]:
    """Run the body shielded: cancelling it from outside means `stop()` and waiting for its end.

    Gives the Control to hand to `supervise`: the one that was given, or a new one. When the body
    has ended, a cancellation that came meanwhile goes on as usual. Entering is a checkpoint. As
    from a nursery, what the body raises comes out in an ExceptionGroup.
    """
    await trio.lowlevel.checkpoint()
    control = control or Control()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_when_cancelled, control)
        with trio.CancelScope(shield=True):
            yield control
        nursery.cancel_scope.cancel()


async def _stop_when_cancelled(control: Control) -> None:
    try:
        await trio.sleep_forever()
    finally:
        control.stop()
