"""An open transaction on PostgreSQL."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import attrs
import psycopg

from superlink_trio.state.sql import transaction as sql

_IN_ORDER = re.compile(r"CROSS JOIN (\w+(?: AS \w+)?) ON")

_UNUSED = "NOT EXISTS (SELECT 1 FROM superlink_task AS s WHERE s.payload_id = p.payload_id)"

_WRITTEN_AT_ONCE = 1024 * 1024


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

    def content(self, column: str, rest: str, *values: object) -> Any:
        """Give the only column of a row, in slices where it is large.

        What a connection has received at once it keeps the room for, and PostgreSQL needs it twice.
        """
        size = self.value(f"SELECT octet_length({column}) {rest}", *values)
        if size is None or size <= sql.LARGE:
            return super().content(column, rest, *values)
        piece = f"SELECT substring({column} FROM ?::int FOR {sql.LARGE}) {rest}"
        # Its value is not copied once more.
        whole = io.BytesIO()
        for place in range(1, size + 1, sql.LARGE):
            whole.write(self.value(piece, place, *values))
        return whole.getvalue()


@attrs.define(eq=False, slots=False)
class Transaction(Reading, sql.Transaction):
    """See `sql.transaction.Transaction`."""

    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute one statement for each row of values, without waiting for each."""
        with self.connection.cursor() as cursor:
            cursor.executemany(in_postgres(statement), rows)
            return max(0, cursor.rowcount)

    def insert(self, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
        """Insert one row, the last column in pieces where it is large."""
        (key, *rest), content = values[:-1], values[-1]
        if not isinstance(content, bytes) or len(content) <= sql.LARGE:
            super().insert(table, columns, values)
            return
        self._copy(table, (columns[0], columns[-1]), _in_bytes(key), content)
        if rest:
            changes = ", ".join(f"{column} = ?" for column in columns[1:-1])
            self.execute(f"UPDATE {table} SET {changes} WHERE {columns[0]} = ?", *rest, key)

    def _copy(self, table: str, columns: Sequence[str], key: bytes, content: bytes) -> None:
        """Send a row of two columns; libpq would copy a long statement over and over."""
        # Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
        statement = f"COPY {table}({', '.join(columns)}) FROM STDIN (FORMAT BINARY)".encode()
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            copy.write(struct.pack("!hi", 2, len(key)) + key + struct.pack("!i", len(content)))
            pieces = memoryview(content)
            for place in range(0, len(content), _WRITTEN_AT_ONCE):
                copy.write(pieces[place : place + _WRITTEN_AT_ONCE])
            copy.write(struct.pack("!h", -1))

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


def _in_bytes(key: object) -> bytes:
    # What a text and what bytes are in COPY's binary format.
    return key if isinstance(key, bytes) else str(key).encode()
