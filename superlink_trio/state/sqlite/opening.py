"""The file: found, looked at before it is touched, opened, and brought up to date."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import attrs

from superlink_trio.state.interface import SIGN_OF_LIFE, CannotOpen
from superlink_trio.state.sqlite import nodes, schema, sweeping
from superlink_trio.state.sqlite.faults import Identity, in_words
from superlink_trio.state.sqlite.transaction import Transaction

IN_MEMORY = ":memory:"

IsAlive: TypeAlias = Callable[[str], bool]

# Bytes to which the write-ahead log shrinks again after it carried a large payload.
_WAL_LIMIT = 64 * 1024 * 1024


@attrs.frozen
class Database:
    """A path and what to expect of it."""

    path: str
    patience: float
    """Seconds for which another program's lock is waited for."""
    max_bytes: float
    """What the file may grow to."""

    @property
    def in_memory(self) -> bool:
        """Whether there is no file at all."""
        return self.path == IN_MEMORY

    def connect(self, *, create: bool = False) -> sqlite3.Connection:
        """Open a connection. It may be used in any thread, but by one at a time."""
        path = self.path
        if not self.in_memory:
            path = f"{Path(path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        connection = sqlite3.connect(
            path,
            uri=not self.in_memory,
            isolation_level=None,
            check_same_thread=False,
            timeout=self.patience,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        if self.max_bytes < math.inf:
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count = {int(self.max_bytes // page_size)}")
        return connection

    def identity(self) -> Identity | None:
        """Say which file this is, None for memory."""
        return None if self.in_memory else Identity.of(self.path)


@attrs.frozen
class Opened:
    """A file that is ready: a connection for the writer, and who we are in it."""

    connection: sqlite3.Connection
    identity: Identity | None
    me: int


def open_database(database: Database, socket: str, is_alive: IsAlive, now: float) -> Opened:
    """Open the file, make or migrate its tables, and take over what ended processes left.

    `socket`: where other processes can tell this one that something changed. `is_alive` says of
    another process's socket whether that process still runs.
    """
    with _in_words(database):
        connection = database.connect(create=True)
        try:
            _prepare(connection, database)
            with _all_or_nothing(connection):
                me = _take_over(connection, socket, is_alive, now)
            return Opened(connection, database.identity(), me)
        except BaseException:
            connection.close()
            raise


def look(database: Database) -> None:
    """Refuse a file that is not ours to open, before anything is touched. Raises CannotOpen."""
    path = Path(database.path)
    if not path.parent.is_dir():
        raise CannotOpen(
            f"The database {path} cannot be made: the folder {path.parent} does not exist"
        )
    if path.is_dir():
        raise CannotOpen(f"The database {path} is a folder: name a file")
    if not path.exists() or path.stat().st_size == 0:
        return
    if not _writable(path) or not _writable(path.parent):
        raise CannotOpen(
            f"The database {path} cannot be written: "
            "check the permissions of the file and its folder"
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with (
        _in_words(database),
        closing(sqlite3.connect(uri, uri=True, timeout=database.patience)) as reader,
    ):
        found = schema.version(reader)
    if found > len(schema.MIGRATIONS):
        raise CannotOpen(
            f"The database {path} was written by a newer release (its schema has version {found}, "
            f"this release knows {len(schema.MIGRATIONS)}): use that release, or another file"
        )


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _prepare(connection: sqlite3.Connection, database: Database) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages == 0:
        # Only an empty file can be given this; others use their free pages again instead.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if not database.in_memory:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise CannotOpen(
                f"The database {database.path} lies on a file system without shared memory "
                "(a network drive?), which SQLite's write-ahead log needs: use a local disk"
            )


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.execute("COMMIT")


def _take_over(connection: sqlite3.Connection, socket: str, is_alive: IsAlive, now: float) -> int:
    schema.migrate(connection)
    inserted = connection.execute("INSERT INTO superlink_process(socket) VALUES (?)", (socket,))
    me = int(inserted.lastrowid or 0)
    others = sweeping.others(connection, me)
    if not any(is_alive(socket) for _, socket in others):
        # Nobody else is at work: the reference may have been, and the nodes had no one to talk to.
        sweeping.lapse(Transaction(connection, me), [process for process, _ in others])
        schema.adopt(connection)
        nodes.give_time(connection, now, SIGN_OF_LIFE)
    nodes.bound(connection, now)
    return me


@contextmanager
def _in_words(database: Database) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        words = in_words(error, database.path)
        if words is None:
            raise
        raise CannotOpen(words) from error
