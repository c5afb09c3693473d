"""`PostgresState`: the durable state in a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import psycopg

from superlink_trio.state.durable import DurableState
from superlink_trio.state.durable.engine import Committed, Locked
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.interface import Clock, StateUnavailable
from superlink_trio.state.limits import NO_LIMITS, StateLimits
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.committing import Committer
from superlink_trio.state.postgres.faults import faults_in_words
from superlink_trio.state.postgres.opening import open_database
from superlink_trio.state.postgres.processes import GRACE, STALLED, Watch
from superlink_trio.state.postgres.server import Server, begin_reading
from superlink_trio.state.postgres.session import Session
from superlink_trio.state.postgres.steps import Queries, Steps
from superlink_trio.state.sql.readers import Readers
from superlink_trio.state.sql.task_ins import INLINE

Result = TypeVar("Result")

PATIENCE = 10.0
"""Seconds; the longest commit of another process, a large model's, is shorter."""


class PostgresState(DurableState):
    """State in a PostgreSQL database, `postgresql://…`.

    The tables lie in the first schema of the connection's search path. Without `clock` it is the
    database's time, which all processes over it share. `patience`: seconds for which a server that
    is not there yet is waited for at the start, and afterwards what others have locked. `grace`:
    seconds for which another process may be without a connection before it is taken for dead;
    `stalled`: seconds for which it may have one and commit nothing.
    Raises CannotOpen where `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        limits: StateLimits = NO_LIMITS,
        patience: float = PATIENCE,
        grace: float = GRACE,
        stalled: float = STALLED,
    ) -> None:
        theirs = DatabaseClock()
        engine = PostgresEngine(url, theirs if clock is None else None, patience, grace, stalled)
        super().__init__(engine, clock=clock or theirs, limits=limits)


class PostgresEngine:
    """An `Engine` of a connection that writes, one that stays, and a few that read."""

    largest_inline = INLINE
    shares_messages = Committer.SHARES_MESSAGES
    private = False

    def __init__(
        self, url: str, clock: DatabaseClock | None, patience: float, grace: float, stalled: float
    ) -> None:
        self.patience = patience
        self._grace = grace
        self._stalled = stalled
        self._server = Server(url)
        self._direct = Server(url, direct=True)
        self._clock = clock
        self._committer: Committer | None = None
        self._session: Session | None = None
        self._readers = Readers(self._server.connect, patience)

    def open(self, now: float) -> None:
        opened = open_database(self._server, self._direct, self._clock, now, self._grace)
        watch = Watch(opened.locks, self._grace, self._stalled)
        self._committer = Committer(self._server, opened, self._clock, watch)
        self._session = opened.session
        self._readers.open()

    def close(self) -> None:
        self._readers.close()
        if self._committer is not None:
            self._committer.close()

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

    def _read(self, query: Callable[[Queries], Result], connection: psycopg.Connection) -> Result:
        with faults_in_words(self._server.name, StateUnavailable):
            try:
                begin_reading(connection, self._server)
            except psycopg.OperationalError as error:
                # It broke while it was idle: so have the others, and a new one may be had at once.
                self._readers.close_idle()
                raise Locked(f"A connection to {self._server.name} was lost") from error
            result = query(Queries(connection))
            connection.execute("COMMIT")
        return result

    def notify(self, others: Sequence[str]) -> bool:
        return True  # the commit itself has done so

    async def next_notice(self) -> None:
        assert self._session is not None, "only who is open listens"
        await self._session.next_notice()
