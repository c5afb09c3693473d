"""What is in the store, counted for everybody who wants to know."""

from __future__ import annotations

import math
from contextlib import suppress

import attrs
import trio

from superlink_trio.state import Census, State, StateUnavailable

# Seconds for which what was counted is not counted again: where counting takes long, long enough
# that it takes this share of the time.
_FRESH, _FRESH_AT_MOST = 1.0, 10.0
_SHARE = 1 / 20

# Seconds after which a store that does not answer counts as one that cannot. Prometheus waits for
# ten by default, and the other figures are wanted most just then.
_PATIENCE = 3.0


@attrs.define(eq=False)
class Counts:
    """Counts once for all who ask meanwhile."""

    _state: State
    _counting: trio.Lock = attrs.field(factory=trio.Lock)
    _census: Census | None = None
    _due: float = -math.inf

    async def census(self) -> Census | None:
        """Count what is stored, unless that was done a moment ago; None where the store cannot."""
        async with self._counting:
            began = trio.current_time()
            if began >= self._due:
                self._census = None
                # Where it fails, the log says why.
                with trio.move_on_after(_PATIENCE), suppress(StateUnavailable):
                    self._census = await self._state.census()
                ended = trio.current_time()
                pause = max(_FRESH, (ended - began) / _SHARE)
                self._due = ended + min(pause, _FRESH_AT_MOST)
            return self._census
