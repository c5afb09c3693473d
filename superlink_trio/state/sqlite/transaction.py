"""An open transaction on the file, and what it notifies of once it is committed."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

import attrs

from superlink_trio.state.durable.engine import Change, ChangeKind
from superlink_trio.state.limits import NO_LIMITS, StateLimits

PORTION = 500
"""Rows of one kind that one step deletes at most: others want to write too."""


@attrs.define(eq=False, slots=False)
class Reading:
    """A transaction that only looks. `now` and `limits` are those of the call that asks."""

    connection: sqlite3.Connection
    now: float = attrs.field(default=math.nan, kw_only=True)
    limits: StateLimits = attrs.field(default=NO_LIMITS, kw_only=True)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(statement, values)

    def first(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Give the first row of a query, None when it has none."""
        row: tuple[Any, ...] | None = self.connection.execute(statement, values).fetchone()
        return row

    def value(self, statement: str, *values: object) -> Any:
        """Give the only column of a query's first row, None when it has none."""
        (value,) = self.first(statement, *values) or (None,)
        return value

    def exists(self, statement: str, *values: object) -> bool:
        """Say whether a query has a row."""
        return self.first(statement, *values) is not None

    def stored_size(self) -> int:
        """Give the bytes that all payloads, bundles and tasks take."""
        return int(self.value("SELECT stored FROM superlink_total") or 0)


@attrs.define(eq=False, slots=False)
class Transaction(Reading):
    """A transaction that writes. `me` is this process's id in the file at `path`."""

    me: int
    path: str
    changes: list[Change] = attrs.field(factory=list)

    def notify(self, kind: ChangeKind, key: int | str, value: object = None) -> None:
        """Say what changed. Who waits is notified once the transaction is committed."""
        self.changes.append(Change(kind, key, value))
