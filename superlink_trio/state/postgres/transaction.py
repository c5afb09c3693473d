"""An open transaction on PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import attrs
import psycopg

from superlink_trio.state.sql import transaction as sql

_IN_ORDER = re.compile(r"CROSS JOIN (\w+(?: AS \w+)?) ON")

_UNUSED = "NOT EXISTS (SELECT 1 FROM superlink_task AS s WHERE s.payload_id = p.payload_id)"


@cache
def in_postgres(statement: str) -> bytes:
    """Put a statement of `sql` into PostgreSQL's and psycopg's words."""
    words = statement.replace("json_each(?)", "json_array_elements_text(?::json)")
    # Its planner knows how many rows there are, and chooses the order by itself.
    words = _IN_ORDER.sub(r"JOIN \1 ON", words)
    return words.replace("?", "%s").encode()


@attrs.define(eq=False, slots=False)
class Reading(sql.Reading):
    """See `sql.transaction.Reading`."""

    connection: psycopg.Connection

    def execute(self, statement: str, *values: object) -> psycopg.Cursor[Any]:
        """Execute one statement."""
        return self.connection.execute(in_postgres(statement), values, binary=True)


@attrs.define(eq=False, slots=False)
class Transaction(Reading, sql.Transaction):
    """See `sql.transaction.Transaction`."""

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute one statement for each row of values, without waiting for each."""
        with self.connection.cursor() as cursor:
            cursor.executemany(in_postgres(statement), rows)
            return max(0, cursor.rowcount)

    def has_column(self, table: str, column: str) -> bool:
        """Say that every column is there: no older release has made this database."""
        return True

    def sweep_rest(self) -> None:
        """Delete what was written for processes that are not there any more, and payloads.

        Where two processes close the last two tasks of a payload at once, each finds the other's.
        """
        self.execute(
            "DELETE FROM superlink_news"
            " WHERE process_id NOT IN (SELECT process_id FROM superlink_process)"
        )
        unused = self.execute(
            f"SELECT payload_id FROM superlink_payload AS p WHERE {_UNUSED}"
            " LIMIT ? FOR UPDATE SKIP LOCKED",
            sql.PORTION,
        ).fetchall()
        for (payload_id,) in unused:
            # Locked, it gets no new task; but one may have been committed before.
            self.execute(
                f"DELETE FROM superlink_payload AS p WHERE payload_id = ? AND {_UNUSED}",
                payload_id,
            )
