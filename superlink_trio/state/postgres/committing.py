"""The connection that writes to PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from superlink_trio.state.durable.engine import Change, Locked
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.postgres import news
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.faults import faults_in_words, in_words, is_lock
from superlink_trio.state.postgres.opening import Opened, join_anew
from superlink_trio.state.postgres.processes import PRESENT, Watch
from superlink_trio.state.postgres.server import Server
from superlink_trio.state.postgres.steps import Steps
from superlink_trio.state.postgres.transaction import Reading
from superlink_trio.state.sql import committing as sql

# Commits in a row that are tried again because the same row was there already.
_MOST_COLLISIONS = 3

_log = logging.getLogger(__name__)


class Committer(sql.Committer[Steps]):
    """See `sql.committing.Committer`."""

    SHARES_MESSAGES = True

    def __init__(
        self, server: Server, opened: Opened, clock: DatabaseClock | None, watch: Watch
    ) -> None:
        self._me = opened.me
        self._name = opened.name
        self._server = server
        self._session = opened.session
        self._locks = opened.locks
        self._clock = clock
        self._watch = watch
        self._connection: psycopg.Connection | None = opened.connection
        # The transaction that was being committed when the connection broke.
        self._doubtful: str | None = None
        self._was_evicted = False
        self._collisions = 0

    def close(self) -> None:
        """Leave nothing under way, and close the connections."""
        self._leave()
        self._disconnect()
        self._session.close()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sql.Begun[Steps]]:
        with self._usable_again(), faults_in_words(self._server.name, StateUnavailable):
            connection = self._connected()
            begun = self._begin(connection, durable=durable)
            yield begun
            self._commit(connection)
        self._was_evicted = False
        self._collisions = 0

    def _begin(self, connection: psycopg.Connection, *, durable: bool) -> sql.Begun[Steps]:
        members, changes = self._look(connection, durable=durable)
        while members.pop(self._me, None) != self._name:
            connection.rollback()
            self._join_anew(connection)
            members, changes = self._look(connection, durable=durable)
        return sql.Begun(
            lambda: Steps(connection, self._watch, me=self._me),
            [*members.values()],
            changes,
            self._was_evicted,
        )

    def _look(
        self, connection: psycopg.Connection, *, durable: bool
    ) -> tuple[dict[int, str], Sequence[Change]]:
        """Begin a transaction; give who is registered, and what others have written for us."""
        level = "on" if durable else "off"
        connection.execute(
            f"BEGIN; {self._server.timeouts} SET LOCAL synchronous_commit = {level};"
            f" {self._locks.shared_by(self._me)}".encode()
        )
        with connection.pipeline():
            tx = Reading(connection)
            members = tx.execute(PRESENT)
            changes = news.take(tx, self._me)
        return dict(members.fetchall()), changes

    def _commit(self, connection: psycopg.Connection) -> None:
        with connection.pipeline():
            connection.execute("SELECT superlink_settle()")
            written = connection.execute("SELECT pg_current_xact_id_if_assigned()::text")
        (self._doubtful,) = written.fetchone() or (None,)
        connection.execute("COMMIT")
        self._doubtful = None

    def _connected(self) -> psycopg.Connection:
        # Who cannot be seen to live does nothing: others would take it for dead meanwhile.
        self._session.keep()
        if self._connection is None:
            connection = self._server.connect()
            try:
                self._settle(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _settle(self, connection: psycopg.Connection) -> None:
        # What was committed although we were not told has taken tasks for callers who went away.
        if self._doubtful is not None and self._was_committed(connection, self._doubtful):
            self._join_anew(connection)
        self._doubtful = None
        if self._clock is not None:
            self._clock.measure(connection)

    def _join_anew(self, connection: psycopg.Connection) -> None:
        before = self._me
        self._me = join_anew(
            connection, self._server, self._locks, self._name, before, self._session.number
        )
        self._was_evicted = True
        _log.warning(
            "What was under way here is given out again: a commit's outcome got lost, %s has "
            "crashed, or another process took this one for dead (number %d, now %d)",
            *(self._server.name, before, self._me),
        )

    def _was_committed(self, connection: psycopg.Connection, transaction: str) -> bool:
        try:
            row = connection.execute("SELECT pg_xact_status(%s::xid8)", (transaction,)).fetchone()
        except psycopg.errors.InvalidParameterValue:
            return False  # PostgreSQL has crashed, and does not even know that it had begun
        if row == ("in progress",):
            raise Locked(f"The database {self._server.name} is still at work on a commit")
        return row == ("committed",)

    @contextmanager
    def _usable_again(self) -> Iterator[None]:
        """Leave no transaction open behind, and no connection that is broken."""
        try:
            yield
        except BaseException:
            if self._connection is not None:
                try:
                    self._connection.rollback()
                    self._doubtful = None
                except psycopg.Error:
                    self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _took_everything(self, error: Exception) -> bool:
        if self._connection is None or self._connection.closed:
            return True
        if isinstance(error, psycopg.errors.UniqueViolation):
            # Another process may have been faster. If not it is a mistake, and its step's alone.
            self._collisions += 1
            return self._collisions <= _MOST_COLLISIONS
        # What another process was faster at is tried again as a whole.
        return isinstance(error, psycopg.Error) and is_lock(error)

    def _words_for(self, error: Exception) -> str | None:
        if isinstance(error, psycopg.errors.UniqueViolation):
            return None
        return in_words(error, self._server.name) if isinstance(error, psycopg.Error) else None

    def _publish(self, tx: Steps, changes: Sequence[Change]) -> None:
        news.publish(tx, self._locks, changes, self._session.number)
