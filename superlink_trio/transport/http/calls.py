"""The calls under way on all connections of a server, as stopping needs to see them."""

from __future__ import annotations

import trio


class Calls:
    """Counts the calls under way."""

    def __init__(self) -> None:
        self.begun = 0
        """How many there have been."""
        self._under_way = 0
        self._none = trio.Event()

    def begin(self) -> None:
        """Count a call."""
        self.begun += 1
        self._under_way += 1

    def end(self) -> None:
        """Count a call no more."""
        self._under_way -= 1
        if not self._under_way:
            self._none.set()

    async def ended(self) -> None:
        """Wait until there is none."""
        while self._under_way:
            self._none = trio.Event()
            await self._none.wait()
