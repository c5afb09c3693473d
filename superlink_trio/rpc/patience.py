"""How long a driver's pull waits for more answers once it has some."""

from __future__ import annotations

import math

import trio

MOMENT = 0.5
"""Seconds after an answer in which another one has to follow. Answers that are further apart come
from nodes that are not equally fast, or were not asked at the same time."""

LONGEST = 3.0
"""Seconds after the first answer until it is given: as long as drivers sleep between pulls."""


class Patience:
    """Brings the deadline of a pull forward when answers come."""

    def __init__(self, scope: trio.CancelScope, missing: int) -> None:
        """`missing`: how many answers the pull waits for."""
        self._scope = scope
        self._missing = missing
        self._at_most = math.inf

    def note(self, missing: int) -> None:
        """Note how many answers are missing still."""
        if missing >= self._missing:
            return
        now = trio.current_time()
        if self._at_most == math.inf:
            self._at_most = min(self._scope.deadline, now + LONGEST)
        self._missing = missing
        self._scope.deadline = min(self._at_most, now + MOMENT)
