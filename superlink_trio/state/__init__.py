"""What the SuperLink remembers: one contract, one file per store."""

from __future__ import annotations

import time

from superlink_trio.state.arrivals import Arrivals
from superlink_trio.state.census import Census, TaskState
from superlink_trio.state.interface import (
    Admission,
    CannotOpen,
    Clock,
    NotTaken,
    State,
    StateUnavailable,
    Work,
)
from superlink_trio.state.limits import NO_LIMITS, Limit, LimitReached, StateLimits
from superlink_trio.state.memory import MemoryState
from superlink_trio.state.room import Room, room_in_memory, room_on_disk
from superlink_trio.state.sqlite import SqliteState

__all__ = [
    "Admission",
    "Arrivals",
    "CannotOpen",
    "Census",
    "Limit",
    "LimitReached",
    "MemoryState",
    "NotTaken",
    "Room",
    "SqliteState",
    "State",
    "StateLimits",
    "StateUnavailable",
    "TaskState",
    "Work",
    "open_state",
    "usual_room",
]

IN_MEMORY = ":flwr-in-memory-state:"
"""The name of the default store, the reference's own."""


def open_state(
    database: str, *, clock: Clock = time.time, limits: StateLimits = NO_LIMITS
) -> State:
    """Make the store that `--database` names; it opens when it is served."""
    if database == IN_MEMORY:
        return MemoryState(clock=clock, limits=limits)
    return SqliteState(database, clock=clock, limits=limits)


def usual_room(database: str) -> Room:
    """Give the room that a store has where `--max-stored-size` does not say it."""
    if database in (IN_MEMORY, ":memory:"):
        return room_in_memory()
    return room_on_disk(database)
