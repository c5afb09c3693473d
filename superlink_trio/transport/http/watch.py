"""One timer for the deadlines of thousands of connections."""

from __future__ import annotations

import math
from typing import Protocol

import trio

# Connections are not looked through more often than this, in seconds.
_TICK = 0.5


class Watched(Protocol):
    """Something with a deadline, which it may move at any time."""

    deadline: float

    def abort(self) -> None:
        """End: the deadline has passed."""


class Watch:
    """Aborts what has not moved its deadline before it passed; up to half a second late.

    Deadlines move several times in each call. A cancel scope for each would cost more than all else
    that has to be done for a small one.
    """

    def __init__(self) -> None:
        self.watched: set[Watched] = set()
        self.until = math.inf
        """The next look; whoever sets an earlier deadline says so by `sooner`."""
        self._sleep = trio.CancelScope()

    def sooner(self, deadline: float) -> None:
        """Look already then."""
        self.until = self._sleep.deadline = deadline

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            for one in [one for one in self.watched if one.deadline <= now]:
                one.abort()
            following = min(
                (one.deadline for one in self.watched if one.deadline > now), default=math.inf
            )
            self.until = max(following, now + _TICK)
            self._sleep = trio.CancelScope(deadline=self.until)
