"""The calls under way on all connections of a server, as stopping needs to see them."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Calls:
    """Counts the calls under way, and can cancel them all."""

    def __init__(self) -> None:
        self.begun = 0
        """How many there have been."""
        self._cancels: set[Callable[[], None]] = set()
        self._none = trio.Event()
        self._none.set()

    def begin(self, cancel: Callable[[], None]) -> None:
        """Count a call; `cancel` ends it early."""
        self.begun += 1
        if not self._cancels:
            self._none = trio.Event()
        self._cancels.add(cancel)

    def end(self, cancel: Callable[[], None]) -> None:
        """Count a call no more."""
        self._cancels.discard(cancel)
        if not self._cancels:
            self._none.set()

    async def ended(self) -> None:
        """Wait until there is none."""
        await self._none.wait()

    def cancel(self) -> None:
        """Cancel every call that is not being answered yet."""
        for cancel in list(self._cancels):
            cancel()
