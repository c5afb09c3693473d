"""How fast a request comes in."""

from __future__ import annotations

import math

import trio

# Seconds for which a rate is looked at, at least; twice as many at most.
_WINDOW = 5.0

# A rate is not known after less than this, in seconds.
_LEAST = 1.0


class Arrival:
    """A request on its way: the patience there is with it, and how long it will be."""

    __slots__ = ("_began", "_last", "_patience", "_rate", "_received", "deadline", "size")

    def __init__(self, patience: float, rate: float) -> None:
        """Wait `patience` seconds for bytes that do not come, or come at less than `rate` a second.

        A leaky bucket: what comes faster fills it up again, and no more than that.
        """
        now = trio.current_time()
        self.deadline = now + patience
        self.size = math.inf
        """Bytes in all, once that is known."""
        self._patience, self._rate = patience, rate
        self._received = 0
        # When a window began, and how much had come: the one before the last, and the last.
        self._began = self._last = (now, 0)

    def note(self, size: int) -> None:
        """Count bytes that have come."""
        now = trio.current_time()
        if now - self._last[0] >= _WINDOW:
            self._began, self._last = self._last, (now, self._received)
        self._received += size
        self.deadline = min(now + self._patience, self.deadline + size / self._rate)

    @property
    def seconds_left(self) -> float:
        """When it will be here, if the rest comes as what came in the last seconds; may be inf."""
        when, before = self._began
        came = self._received - before
        if not came:
            return math.inf
        rate = came / max(trio.current_time() - when, _LEAST)
        return max(self.size - self._received, 0) / rate
