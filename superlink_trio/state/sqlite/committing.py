"""One commit, in a worker thread: what others wrote, the heartbeats, then step after step."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import outcome

from superlink_trio.state.durable.engine import Change, ChangeKind, Committed, Locked, Performed
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.sqlite import nodes, schema, sweeping, task_res
from superlink_trio.state.sqlite.faults import in_words, is_lock, spoils_connection
from superlink_trio.state.sqlite.opening import Database, Opened, newer
from superlink_trio.state.sqlite.presence import Presence
from superlink_trio.state.sqlite.steps import Steps
from superlink_trio.state.sqlite.transaction import Transaction

Step: TypeAlias = Callable[[Steps], Any]

_log = logging.getLogger(__name__)


class Committer:
    """The writing connection. Used by one thread at a time."""

    def __init__(
        self, database: Database, opened: Opened, presence: Presence | None = None
    ) -> None:
        self._me = opened.me
        self._database = database
        self._presence = presence
        self._identity = opened.identity
        self._name = opened.name
        self._connection: sqlite3.Connection | None = opened.connection
        self._last_news: int | None = None

    def commit(
        self, steps: Sequence[Step], heartbeats: Mapping[int, Heartbeat], *, durable: bool
    ) -> Committed:
        """Commit as `durable.engine.Committer` says."""
        with self._in_words():
            connection = self._connected()
            # WAL: FULL syncs the log at every commit, NORMAL at checkpoints only.
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                me = self._registered(connection)
                committed, newest = self._perform_all(connection, me, steps, heartbeats)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        self._me, self._last_news = me, newest
        return committed

    def close(self) -> None:
        """Leave nothing under way, and close the file."""
        try:
            leave: Sequence[Step] = [task_res.purge_all, self._leave]
            self.commit(leave, {}, durable=True)
        except StateUnavailable as error:
            _log.warning("Not closed well: %s", error)
        if self._connection is not None:
            self._connection.close()

    def _leave(self, tx: Transaction) -> None:
        sweeping.evict(tx, [tx.me])

    def _connected(self) -> sqlite3.Connection:
        if self._identity is not None:
            self._identity.check()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _registered(self, connection: sqlite3.Connection) -> int:
        """Give our id; a new one where others took us for dead, and gave out what we held."""
        if self._presence is not None:
            self._presence.keep()
        if sweeping.is_registered(connection, self._me):
            return self._me
        found = schema.version(connection)
        if found != len(schema.MIGRATIONS):
            raise StateUnavailable(newer(self._database.path, found))
        _log.warning(
            "Another process took this one for dead, and may have given out what was under way "
            "here: leave alone what is called %s.superlink-... while processes run",
            self._database.path,
        )
        me = sweeping.register(connection, self._name)
        connection.execute(
            "UPDATE superlink_serving SET process_id = ? WHERE process_id = ?", (me, self._me)
        )
        return me

    def _perform_all(
        self,
        connection: sqlite3.Connection,
        me: int,
        steps: Sequence[Step],
        heartbeats: Mapping[int, Heartbeat],
    ) -> tuple[Committed, int]:
        others = [name for _, name in sweeping.others(connection, me)]
        news, missed, newest = self._read_news(connection)
        writing = Steps(connection, me, self._database.path)
        for node_id, heartbeat in heartbeats.items():
            nodes.write_heartbeat(writing, node_id, heartbeat)
        performed = [self._perform(connection, me, step, publish=bool(others)) for step in steps]
        if others:
            newest = self._newest(connection)
        missed = missed or me != self._me
        return Committed(performed, [*news, *writing.changes], missed, others), newest

    def _perform(
        self, connection: sqlite3.Connection, me: int, step: Step, *, publish: bool
    ) -> Performed:
        tx = Steps(connection, me, self._database.path)
        connection.execute("SAVEPOINT step")
        try:
            result = step(tx)
            if publish:
                self._publish(tx)
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite has taken back the whole transaction
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")
            return Performed(outcome.Error(self._translated(error)), ())
        connection.execute("RELEASE step")
        return Performed(outcome.Value(result), tx.changes)

    def _translated(self, error: Exception) -> Exception:
        words = in_words(error, self._database.path) if isinstance(error, sqlite3.Error) else None
        if words is None:
            return error
        unavailable = StateUnavailable(words)
        unavailable.__cause__ = error
        return unavailable

    def _publish(self, tx: Transaction) -> None:
        tx.connection.executemany(
            "INSERT INTO superlink_news(kind, key, value) VALUES (?, ?, ?)",
            [
                (change.kind, change.key, change.value)
                for change in tx.changes
                if change.concerns_others
            ],
        )

    def _read_news(self, connection: sqlite3.Connection) -> tuple[list[Change], bool, int]:
        newest = self._newest(connection)
        since = newest if self._last_news is None else self._last_news
        if since == newest:
            return [], False, newest
        rows = connection.execute(
            "SELECT kind, key, value FROM superlink_news WHERE number > ? ORDER BY number", (since,)
        ).fetchall()
        news = [Change(ChangeKind(kind), key, value) for kind, key, value in rows]
        return news, len(rows) < newest - since, newest

    def _newest(self, connection: sqlite3.Connection) -> int:
        row = connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'superlink_news'"
        ).fetchone()
        return 0 if row is None else int(row[0])

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if spoils_connection(error):
                self._disconnect()
            words = in_words(error, self._database.path)
            raise (Locked if is_lock(error) else StateUnavailable)(
                words or f"The database {self._database.path} failed: {error}"
            ) from error

    def _disconnect(self) -> None:
        # The file is opened anew by the next commit. What is in memory only cannot be.
        if self._connection is not None and not self._database.in_memory:
            self._connection.close()
            self._connection = None
