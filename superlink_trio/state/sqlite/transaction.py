"""An open transaction on the file."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import cache

import attrs

from superlink_trio.state.sql import transaction as sql

KEPT_NEWS = 10_000
"""Entries that are kept for processes that have not read them; who missed more looks anew."""

# Who writes has the whole file.
_ROW_LOCK = re.compile(r" FOR ((KEY )?SHARE|(NO KEY )?UPDATE)( OF \w+)?( SKIP LOCKED)?")


@cache
def _in_sqlite(statement: str) -> str:
    words = _ROW_LOCK.sub("", statement)
    return words.replace("greatest(", "max(").replace("least(", "min(")


@attrs.define(eq=False, slots=False)
class Reading(sql.Reading):
    """See `sql.transaction.Reading`."""

    connection: sqlite3.Connection

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(_in_sqlite(statement), values)


@attrs.define(eq=False, slots=False)
class Transaction(Reading, sql.Transaction):
    """See `sql.transaction.Transaction`. The file is at `path`."""

    path: str

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute one statement for each row of values."""
        return max(0, self.connection.executemany(_in_sqlite(statement), rows).rowcount)

    def has_column(self, table: str, column: str) -> bool:
        """Say whether a table has a column."""
        return self.exists("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", table, column)

    def sweep_rest(self) -> None:
        """Delete all but the last that was written for other processes."""
        self.execute(
            "DELETE FROM superlink_news WHERE number <="
            " (SELECT seq - ? FROM sqlite_sequence WHERE name = 'superlink_news')",
            KEPT_NEWS,
        )
