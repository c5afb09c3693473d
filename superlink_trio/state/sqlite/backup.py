"""A consistent copy of a file, made while it is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.sql import sweeping
from superlink_trio.state.sqlite import schema
from superlink_trio.state.sqlite.faults import in_words
from superlink_trio.state.sqlite.opening import check_sqlite, create_private
from superlink_trio.state.sqlite.transaction import Transaction


def back_up(database: str, target: str) -> None:
    """Copy a database file as it is at one moment.

    The copy can be served: nothing in it is under way. Nobody who uses the file is kept waiting.
    Raises CannotOpen; `target` exists afterwards if and only if the copy is whole.
    """
    if os.path.exists(target):
        raise CannotOpen(f"{target} exists already: name another file")
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise CannotOpen(f"{target} cannot be written: the folder {folder} does not exist")
    unfinished = f"{target}.unfinished"
    try:
        with closing(read_only(database)) as source:
            create_private(unfinished)
            _copy(source, unfinished)
        os.rename(unfinished, target)
    except sqlite3.Error as error:
        raise CannotOpen(
            in_words(error, database) or f"The database {database} cannot be copied: {error}"
        ) from error
    finally:
        for leftover in (unfinished, f"{unfinished}-wal", f"{unfinished}-shm"):
            with suppress(OSError):
                os.unlink(leftover)


def read_only(database: str) -> sqlite3.Connection:
    """Open a file that this program has served, for reading. Raises CannotOpen."""
    check_sqlite()
    if not os.path.isfile(database):
        raise CannotOpen(f"There is no database {database}")
    connection = sqlite3.connect(
        f"{Path(database).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    try:
        found = schema.version(connection)
    except sqlite3.Error as error:
        connection.close()
        raise CannotOpen(in_words(error, database) or f"{database}: {error}") from error
    if not 0 < found <= len(schema.MIGRATIONS):
        connection.close()
        raise CannotOpen(
            f"The database {database} was written by a newer release: use that"
            if found
            else f"The database {database} was never served by this program"
        )
    return connection


def _copy(source: sqlite3.Connection, path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        # All pages in one step: a single state of the file, which its writers do not disturb.
        source.backup(copy)
        if schema.version(copy) < len(schema.MIGRATIONS):
            return  # whoever opens it does the rest, once it has brought it up to date
        copy.execute("PRAGMA foreign_keys = ON")
        copy.execute("BEGIN IMMEDIATE")
        tx = Transaction(copy, path, me=0)
        everybody = [process for process, _ in sweeping.others(tx, 0)]
        sweeping.evict(tx, everybody)
        copy.execute("COMMIT")
