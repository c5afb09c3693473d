"""Reading beside the writer: in worker threads, each with a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from superlink_trio.state.durable.faults import Locked, patiently
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.sqlite.faults import Identity, in_words, is_lock
from superlink_trio.state.sqlite.opening import Database
from superlink_trio.state.sqlite.steps import Queries

Result = TypeVar("Result")

# What reads for long reads large payloads, and more of those at once only cost memory.
_THREADS = 4


class Readers:
    """A handful of reading connections."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open = False
        self._identity: Identity | None = None
        self._idle: list[sqlite3.Connection] = []
        self.limiter = trio.CapacityLimiter(_THREADS)

    def open(self, identity: Identity | None) -> None:
        """Allow reading from this file."""
        self._open = True
        self._identity = identity

    def close(self) -> None:
        """Close the connections; those in use follow when they are not any more."""
        self._open = False
        while self._idle:
            self._idle.pop().close()

    async def read(self, query: Callable[[Queries], Result]) -> Result:
        """Run a query on one consistent state of the file. Raises StateUnavailable."""
        return await patiently(
            self._database.patience, partial(self._read, query), limiter=self.limiter
        )

    def _read(self, query: Callable[[Queries], Result]) -> Result:
        if not self._open:
            raise StateUnavailable("The database is not open.")
        if self._identity is not None:
            self._identity.check()
        try:
            connection = self._idle.pop() if self._idle else self._database.connect()
            try:
                connection.execute("BEGIN")
                result = query(Queries(connection))
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            words = in_words(error, self._database.path)
            if words is None:
                raise
            raise (Locked if is_lock(error) else StateUnavailable)(words) from error
        if self._open:
            self._idle.append(connection)
        else:
            connection.close()
        return result
