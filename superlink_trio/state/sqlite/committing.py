"""The connection that writes to the file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from superlink_trio.state.durable.engine import Change, ChangeKind, Locked
from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.sql import committing as sql
from superlink_trio.state.sql import sweeping
from superlink_trio.state.sqlite import schema
from superlink_trio.state.sqlite.faults import in_words, is_lock, spoils_connection
from superlink_trio.state.sqlite.opening import Database, Opened, newer
from superlink_trio.state.sqlite.presence import Presence
from superlink_trio.state.sqlite.steps import Steps
from superlink_trio.state.sqlite.transaction import Reading

_log = logging.getLogger(__name__)


class Committer(sql.Committer[Steps]):
    """See `sql.committing.Committer`."""

    SHARES_MESSAGES = False

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

    def close(self) -> None:
        """Leave nothing under way, and close the file."""
        self._leave()
        if self._connection is not None:
            self._connection.close()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sql.Begun[Steps]]:
        with self._faults_in_words():
            connection = self._connected()
            # WAL: FULL syncs the log at every commit, NORMAL at checkpoints only.
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                tx = Reading(connection)
                me = self._registered(connection)
                others = [name for _, name in sweeping.others(tx, me)]
                news, missed, newest = self._read_news(tx)
                yield sql.Begun(
                    lambda: Steps(connection, self._database.path, me=me),
                    *(others, news, missed or me != self._me),
                )
                if others:
                    newest = self._newest(tx)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
        self._me, self._last_news = me, newest

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
        tx = Reading(connection)
        if sweeping.is_registered(tx, self._me):
            return self._me
        found = schema.version(connection)
        if found != len(schema.MIGRATIONS):
            raise StateUnavailable(newer(self._database.path, found))
        _log.warning(
            "Another process took this one for dead, and may have given out what was under way "
            "here: leave alone what is called %s.superlink-... while processes run",
            self._database.path,
        )
        me = sweeping.register(tx, self._name)
        tx.execute("UPDATE superlink_serving SET process_id = ? WHERE process_id = ?", me, self._me)
        return me

    def _took_everything(self, error: Exception) -> bool:
        return self._connection is None or not self._connection.in_transaction

    def _words_for(self, error: Exception) -> str | None:
        return in_words(error, self._database.path) if isinstance(error, sqlite3.Error) else None

    def _publish(self, tx: Steps, changes: Sequence[Change]) -> None:
        tx.connection.executemany(
            "INSERT INTO superlink_news(kind, key, value) VALUES (?, ?, ?)",
            [(change.kind, change.key, change.value) for change in changes],
        )

    def _read_news(self, tx: Reading) -> tuple[list[Change], bool, int]:
        newest = self._newest(tx)
        since = newest if self._last_news is None else self._last_news
        if since == newest:
            return [], False, newest
        rows = tx.execute(
            "SELECT kind, key, value FROM superlink_news WHERE number > ? ORDER BY number", since
        ).fetchall()
        news = [Change(ChangeKind(kind), key, value) for kind, key, value in rows]
        return news, len(rows) < newest - since, newest

    def _newest(self, tx: Reading) -> int:
        return int(tx.value("SELECT seq FROM sqlite_sequence WHERE name = 'superlink_news'") or 0)

    @contextmanager
    def _faults_in_words(self) -> Iterator[None]:
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
