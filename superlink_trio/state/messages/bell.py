"""News that anybody may wait for."""

from __future__ import annotations

import trio


class Bell:
    """Wakes everybody who waits when it rings; who comes later waits for the next time."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self) -> None:
        """Wait until it rings."""
        await self._rung.wait()
