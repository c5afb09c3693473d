"""`SqliteState`: the durable state on a file."""

from __future__ import annotations

import math
import time

from superlink_trio.state.durable import DurableState
from superlink_trio.state.interface import Clock
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.sqlite.engine import SqliteEngine
from superlink_trio.state.sqlite.opening import Database

PATIENCE = 10.0
"""Seconds; the longest commit of another process, a large model's, is shorter."""


class SqliteState(DurableState):
    """State in one SQLite file, or in a database in memory (`:memory:`).

    `patience`: seconds for which another program's lock on the file is waited for, before calls
    are refused. `max_bytes`: what the file may grow to, before what would let it grow is refused.
    """

    def __init__(
        self,
        database: str,
        *,
        clock: Clock = time.time,
        limits: StateLimits = NO_LIMITS,
        patience: float = PATIENCE,
        max_bytes: float = math.inf,
    ) -> None:
        engine = SqliteEngine(Database(database, patience, max_bytes))
        super().__init__(engine, clock=clock, limits=limits)
