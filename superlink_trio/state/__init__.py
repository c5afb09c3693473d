"""What the SuperLink remembers: one contract, one file per store."""

from __future__ import annotations

import time

from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.interface import (
    Admission,
    CannotOpen,
    Clock,
    NotTaken,
    State,
    StateUnavailable,
)
from superlink_trio.state.memory import MemoryState
from superlink_trio.state.sqlite import SqliteState

__all__ = [
    "Admission",
    "Arrivals",
    "CannotOpen",
    "MemoryState",
    "NotTaken",
    "SqliteState",
    "State",
    "StateUnavailable",
    "open_state",
]

IN_MEMORY = ":flwr-in-memory-state:"
"""The name of the default store, the reference's own."""


def open_state(database: str, *, clock: Clock = time.time) -> State:
    """Make the store that `--database` names; it opens when it is served."""
    if database == IN_MEMORY:
        return MemoryState(clock=clock)
    return SqliteState(database, clock=clock)
