"""`SqliteState`: the durable state on a file, or on memory as SQLite has it."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import trio

from superlink_trio.state.durable import DurableState
from superlink_trio.state.durable.engine import Committed
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.interface import Clock, StateUnavailable
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.sql.readers import Readers
from superlink_trio.state.sql.task_ins import INLINE
from superlink_trio.state.sqlite.committing import Committer
from superlink_trio.state.sqlite.faults import Identity, faults_in_words
from superlink_trio.state.sqlite.opening import Database, create_private, look, open_database
from superlink_trio.state.sqlite.presence import Presence
from superlink_trio.state.sqlite.steps import Queries, Steps

Result = TypeVar("Result")

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


class SqliteEngine:
    """An `Engine` of one writing connection, and a few that read beside it."""

    largest_inline = INLINE
    shares_messages = Committer.SHARES_MESSAGES

    def __init__(self, database: Database) -> None:
        self._database = database
        self.patience = database.patience
        self.private = database.in_memory
        self._presence: Presence | None = None
        self._committer: Committer | None = None
        self._identity: Identity | None = None
        self._readers = Readers(self._connect, database.patience)

    def open(self, now: float) -> None:
        name = ""
        look(self._database)
        if not self.private:
            create_private(self._database.path)
            self._presence = Presence(self._database.path)
            name = self._presence.name
        try:
            opened = open_database(self._database, name, now)
        except BaseException:
            self._leave()
            raise
        self._committer = Committer(self._database, opened, self._presence)
        self._identity = opened.identity
        self._readers.open()

    def close(self) -> None:
        self._readers.close()
        if self._committer is not None:
            self._committer.close()
        self._leave()

    def _leave(self) -> None:
        if self._presence is not None:
            self._presence.close()
            self._presence = None

    def commit(
        self,
        steps: Sequence[Callable[[Steps], Any]],
        heartbeats: Mapping[int, Heartbeat],
        *,
        durable: bool,
    ) -> Committed:
        assert self._committer is not None, "only what is open is written to"
        return self._committer.commit(steps, heartbeats, durable=durable)

    @property
    def reading(self) -> bool:
        return self._readers.reading

    async def read(self, query: Callable[[Queries], Result]) -> Result:
        return await self._readers.read(partial(self._read, query))

    def _connect(self) -> sqlite3.Connection:
        if self._identity is not None:
            self._identity.check()
        with faults_in_words(self._database.path, StateUnavailable):
            return self._database.connect()

    def _read(self, query: Callable[[Queries], Result], connection: sqlite3.Connection) -> Result:
        if self._identity is not None:
            self._identity.check()
        with faults_in_words(self._database.path, StateUnavailable):
            connection.execute("BEGIN")
            result = query(Queries(connection))
            connection.execute("COMMIT")
        return result

    def notify(self, others: Sequence[str]) -> bool:
        return self._presence is None or self._presence.notify(others)

    async def next_notice(self) -> None:
        if self._presence is None:
            await trio.sleep_forever()
        else:
            await self._presence.next_notice()
