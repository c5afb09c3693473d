"""What is in a database file, counted."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress

import attrs

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.sql import report as sql
from superlink_trio.state.sql import sweeping
from superlink_trio.state.sqlite import presence, schema
from superlink_trio.state.sqlite.backup import read_only
from superlink_trio.state.sqlite.faults import in_words
from superlink_trio.state.sqlite.transaction import Reading


@attrs.frozen(kw_only=True)
class FileReport(sql.Report):
    """What is in a file. Sizes are bytes."""

    log_size: int
    free: int


def report(database: str, now: float) -> FileReport:
    """Count what is in a file, which may be in use. `now`: Unix seconds. Raises CannotOpen."""
    try:
        with closing(read_only(database)) as connection:
            connection.execute("BEGIN")
            return _report(Reading(connection, now=now), database)
    except sqlite3.Error as error:
        raise CannotOpen(in_words(error, database) or f"{database}: {error}") from error


def _report(tx: Reading, database: str) -> FileReport:
    log_size = 0
    with suppress(FileNotFoundError):
        log_size = os.path.getsize(f"{database}-wal")
    processes = [name for _, name in sweeping.others(tx, 0) if presence.is_alive(database, name)]
    found = sql.report(
        tx,
        database=database,
        schema=schema.version(tx.connection),
        size=os.path.getsize(database),
        processes=len(processes),
        row="rowid",
        keeps_messages=schema.keeps_messages(tx.connection),
    )
    return FileReport(
        **attrs.asdict(found, recurse=False),
        log_size=log_size,
        free=tx.value("PRAGMA freelist_count") * tx.value("PRAGMA page_size"),
    )
