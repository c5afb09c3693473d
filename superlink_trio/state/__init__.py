"""What the SuperLink remembers: one contract, one file per store."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec

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
    "is_postgres",
    "open_state",
    "usual_room",
    "why_not",
]

IN_MEMORY = ":flwr-in-memory-state:"
"""The name of the default store, the reference's own."""

_ROOM_ELSEWHERE = 32 * 2**30


def is_postgres(database: str) -> bool:
    """Say whether a database is on a PostgreSQL server; there may be a password in its name."""
    return database.startswith(("postgresql://", "postgres://"))


def why_not(database: str) -> str | None:
    """Say why a database cannot be had by this name, and what to do; None where it may be."""
    if not is_postgres(database):
        return None
    if find_spec("psycopg") is None:
        return f"PostgreSQL needs psycopg: {sys.executable} -m pip install 'psycopg[binary]>=3.2.2'"
    from superlink_trio.state.postgres.server import Server

    try:
        Server(database)
    except CannotOpen as error:
        return str(error)
    return None


def open_state(
    database: str, *, clock: Clock | None = None, limits: StateLimits = NO_LIMITS
) -> State:
    """Make the store that `--database` names; it opens when it is served.

    Without `clock` it is this machine's time, or that of the server which the database is on.
    Raises CannotOpen where `why_not` has an answer.
    """
    if is_postgres(database):
        refusal = why_not(database)
        if refusal is not None:
            raise CannotOpen(refusal)
        # An extra, and nobody else has to wait for it.
        from superlink_trio.state.postgres import PostgresState

        return PostgresState(database, clock=clock, limits=limits)
    clock = clock or time.time
    if database == IN_MEMORY:
        return MemoryState(clock=clock, limits=limits)
    return SqliteState(database, clock=clock, limits=limits)


def usual_room(database: str) -> Room:
    """Give the room that a store has where `--max-stored-size` does not say it."""
    if database in (IN_MEMORY, ":memory:"):
        return room_in_memory()
    if is_postgres(database):
        return Room(_ROOM_ELSEWHERE, "as the disk of PostgreSQL is not known here")
    return room_on_disk(database)
