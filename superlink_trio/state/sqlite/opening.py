"""The file: found, looked at before it is touched, opened, and brought up to date."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs

from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, CannotOpen
from superlink_trio.state.sql import nodes, sweeping
from superlink_trio.state.sqlite import presence, schema
from superlink_trio.state.sqlite.faults import ATTEMPT, Identity, faults_in_words
from superlink_trio.state.sqlite.transaction import Transaction

IN_MEMORY = ":memory:"

# The first that gives what an UPDATE or DELETE has changed (RETURNING).
_OLDEST = (3, 35, 0)

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
            timeout=ATTEMPT,
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
    name: str
    me: int


def open_database(database: Database, name: str, now: float) -> Opened:
    """Open the file, make or migrate its tables, and take over what ended processes left.

    `name`: this process's, by which the others will see whether it lives.
    Raises CannotOpen, and Locked where it may be tried again.
    """
    with faults_in_words(database.path, CannotOpen):
        connection = database.connect(create=True)
        try:
            _prepare(connection, database)
            with _all_or_nothing(connection):
                me = _take_over(connection, database, name, now)
            return Opened(connection, database.identity(), name, me)
        except BaseException:
            connection.close()
            raise


def check_sqlite() -> None:
    """Raise CannotOpen where Python came with an SQLite that lacks what we use of it."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise CannotOpen(
            f"A database needs SQLite {'.'.join(map(str, _OLDEST))} or newer, this Python has "
            f"{sqlite3.sqlite_version}: use another Python, or leave --database out"
        )


def create_private(path: str) -> None:
    """Make an empty file where there is none, for its owner only: it will hold models and keys.

    SQLite gives what it puts beside a file the file's permissions. Raises CannotOpen.
    """
    # One that is there must not be opened: closing it would drop the locks that SQLite has on it.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise CannotOpen(
            f"The database {path} cannot be made ({error.strerror}): "
            "check the permissions of its folder, and that the disk is not full"
        ) from error


def look(database: Database) -> int:
    """Refuse a file that is not ours to open, before anything is touched. Raises CannotOpen.

    Answers the version of its schema; 0 where there is none of ours yet.
    """
    check_sqlite()
    if database.in_memory:
        return 0
    path = Path(database.path)
    if not path.parent.is_dir():
        raise CannotOpen(
            f"The database {path} cannot be made: the folder {path.parent} does not exist"
        )
    if path.is_dir():
        raise CannotOpen(f"The database {path} is a folder: name a file")
    if not path.exists() or path.stat().st_size == 0:
        return 0
    if not _writable(path) or not _writable(path.parent):
        raise CannotOpen(
            f"The database {path} cannot be written: "
            "check the permissions of the file and its folder"
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with (
        faults_in_words(database.path, CannotOpen),
        closing(sqlite3.connect(uri, uri=True, timeout=ATTEMPT)) as reader,
    ):
        found = schema.version(reader)
    _check_version(database, found, alone=True)
    return found


def _check_version(database: Database, found: int, *, alone: bool) -> None:
    if found > len(schema.MIGRATIONS):
        raise CannotOpen(newer(database.path, found))
    if found < len(schema.MIGRATIONS) and not alone:
        raise CannotOpen(
            f"The database {database.path} is in use by a process of an older release (its schema "
            f"has version {found}, this release would make it {len(schema.MIGRATIONS)}): "
            "stop that one first"
        )


def newer(path: str, found: int) -> str:
    """Say that a file has a schema which this release does not know."""
    return (
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


def _take_over(connection: sqlite3.Connection, database: Database, name: str, now: float) -> int:
    found = schema.version(connection)
    tx = Transaction(connection, database.path, me=0, now=now)
    others = sweeping.others(tx, 0) if found else []
    alone = not any(presence.is_alive(database.path, other) for _, other in others)
    _check_version(database, found, alone=alone)
    schema.migrate(connection)
    me = sweeping.register(tx, name)
    if alone:
        # Nobody else is at work: the reference may have been, and the nodes had no one to talk to.
        for process, other in others:
            sweeping.evict(tx, [process])
            presence.forget(database.path, other)
        schema.adopt(tx)
        nodes.give_time(tx, HEARTBEAT_TIMEOUT)
    nodes.bound(tx)
    return me
