"""The connection that writes to PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from superlink_trio.state.durable.engine import Change, ChangeKind, Locked
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.postgres.clock import DatabaseClock
from superlink_trio.state.postgres.faults import faults_in_words, in_words, is_lock
from superlink_trio.state.postgres.opening import Opened, join_again
from superlink_trio.state.postgres.processes import Watch
from superlink_trio.state.postgres.server import Server
from superlink_trio.state.postgres.steps import Steps
from superlink_trio.state.postgres.transaction import Reading
from superlink_trio.state.sql import committing as sql
from superlink_trio.state.sql import sweeping

_log = logging.getLogger(__name__)


class Committer(sql.Committer[Steps]):
    """See `sql.committing.Committer`. `me` is this process's id in the database."""

    SHARES_MESSAGES = True

    def __init__(
        self, server: Server, opened: Opened, clock: DatabaseClock | None, grace: float
    ) -> None:
        self.me = opened.me
        self._server = server
        self._locks = opened.locks
        self._clock = clock
        self._watch = Watch(opened.locks, grace)
        self._connection: psycopg.Connection | None = opened.connection
        # The transaction that was being committed when the connection broke.
        self._doubtful: str | None = None
        self._was_evicted = False

    def close(self) -> None:
        """Leave nothing under way, and close the connection."""
        self._leave()
        self._disconnect()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sql.Begun[Steps]]:
        with self._usable_again(), faults_in_words(self._server.name, StateUnavailable):
            connection = self._connected()
            begun = self._begin(connection, durable=durable)
            yield begun
            self._commit(connection)
        self._was_evicted = False

    def _begin(self, connection: psycopg.Connection, *, durable: bool) -> sql.Begun[Steps]:
        connection.execute(
            "BEGIN; SET LOCAL synchronous_commit = "
            f"{'on' if durable else 'off'}; {self._locks.share_registry}".encode()
        )
        with connection.pipeline():
            tx = Reading(connection)
            others = tx.execute(sweeping.OTHERS, self.me)
            news = tx.execute(
                "DELETE FROM superlink_news WHERE process_id = ?"
                " RETURNING number, kind, key, value",
                self.me,
            )
        return sql.Begun(
            lambda: Steps(connection, self._watch, me=self.me),
            [str(process) for process, _ in others.fetchall()],
            [_to_change(*columns) for _, *columns in sorted(news.fetchall())],
            self._was_evicted,
        )

    def _commit(self, connection: psycopg.Connection) -> None:
        with connection.pipeline():
            connection.execute("SELECT superlink_settle()")
            written = connection.execute("SELECT pg_current_xact_id_if_assigned()::text")
        (self._doubtful,) = written.fetchone() or (None,)
        connection.execute("COMMIT")
        self._doubtful = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            connection = self._server.connect()
            try:
                self._join_again(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _join_again(self, connection: psycopg.Connection) -> None:
        # What was committed although we were not told has taken tasks for callers who went away.
        anew = self._doubtful is not None and self._was_committed(connection, self._doubtful)
        me = join_again(connection, self._locks, self.me, anew=anew)
        if me != self.me:
            if not anew:
                _log.warning(
                    "Another process took this one for dead, and may have given out what was "
                    "under way here: it had no connection to %s for too long",
                    self._server.name,
                )
            self.me, self._was_evicted = me, True
        self._doubtful = None
        if self._clock is not None:
            self._clock.measure(connection)

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
        # What another process was faster at is tried again as a whole.
        return isinstance(error, psycopg.Error) and is_lock(error)

    def _words_for(self, error: Exception) -> str | None:
        return in_words(error, self._server.name) if isinstance(error, psycopg.Error) else None

    def _publish(self, tx: Steps, changes: Sequence[Change]) -> None:
        with tx.connection.pipeline():
            tx.execute(
                "INSERT INTO superlink_news(process_id, kind, key, value)"
                " SELECT process_id, kind, key, value FROM superlink_process CROSS JOIN"
                " unnest(?::int[], ?::text[], ?::bigint[]) WITH ORDINALITY"
                " AS change(kind, key, value, place) WHERE process_id != ? ORDER BY place",
                [int(change.kind) for change in changes],
                [str(change.key) for change in changes],
                [change.value for change in changes],
                self.me,
            )
            # A hint, one for all of them: who does not hear it looks by itself a little later.
            tx.execute("SELECT pg_notify(?, ?)", self._locks.channel, str(self.me))


def _to_change(kind: int, key: str, value: int | None) -> Change:
    # Of what concerns others, tasks and messages are named by texts, nodes and runs by numbers.
    named = ChangeKind(kind)
    by_text = named in (ChangeKind.SETTLED, ChangeKind.REPLY)
    return Change(named, key if by_text else int(key), value)
