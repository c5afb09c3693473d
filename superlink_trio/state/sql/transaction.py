"""An open transaction, and what it notifies of once it is committed."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs

from superlink_trio.state.durable.engine import Change, ChangeKind
from superlink_trio.state.limits import NO_LIMITS, StateLimits

PORTION = 500
"""Rows of one kind that one step deletes at most: others want to write too."""

LARGE = 8 * 1024 * 1024
"""Bytes of a value from which a database may take or give it piece by piece."""

NUL = "\N{SYMBOL FOR NULL}"
"""What stands for NUL in a text, where the database has none."""


def listed(texts: Iterable[str]) -> str:
    """Give what `json_each` makes texts of; without NUL, which not every database has."""
    return json.dumps([text.replace("\0", NUL) for text in texts])


class Cursor(Protocol):
    """What came of a statement, as PEP 249 has it."""

    @property
    def rowcount(self) -> int:
        """How many rows were written."""

    @property
    def description(self) -> Sequence[Any] | None:
        """The columns; the first part of each is its name."""

    def fetchone(self) -> Any:
        """Give the next row, None when there is none."""

    def fetchall(self) -> list[Any]:
        """Give all rows that are left."""


@attrs.define(eq=False, slots=False)
class Reading(ABC):
    """A transaction that only looks. `now` and `limits` are those of the call that asks."""

    now: float = attrs.field(default=math.nan, kw_only=True)
    limits: StateLimits = attrs.field(default=NO_LIMITS, kw_only=True)

    @abstractmethod
    def execute(self, statement: str, *values: object) -> Cursor:
        """Execute one statement."""

    def first(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Give the first row of a query, None when it has none."""
        row: tuple[Any, ...] | None = self.execute(statement, *values).fetchone()
        return row

    def value(self, statement: str, *values: object) -> Any:
        """Give the only column of a query's first row, None when it has none."""
        (value,) = self.first(statement, *values) or (None,)
        return value

    def exists(self, statement: str, *values: object) -> bool:
        """Say whether a query has a row."""
        return self.first(statement, *values) is not None

    def content(self, column: str, rest: str, *values: object) -> Any:
        """Give the only column of a row, which may be large; `rest` says which: FROM … WHERE …."""
        return self.value(f"SELECT {column} {rest}", *values)

    def stored_size(self) -> int:
        """Give the bytes that all payloads, bundles and tasks take."""
        return int(self.value("SELECT stored FROM superlink_total") or 0)


@attrs.define(eq=False, slots=False)
class Transaction(Reading):
    """A transaction that writes. `me` is this process's id in the database."""

    me: int = attrs.field(kw_only=True)
    changes: list[Change] = attrs.field(factory=list, kw_only=True)

    def notify(self, kind: ChangeKind, key: int | str, value: object = None) -> None:
        """Say what changed. Who waits is notified once the transaction is committed."""
        self.changes.append(Change(kind, key, value))

    @abstractmethod
    def execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute one statement for each row of values, in order; give how many rows it wrote."""

    def insert(self, table: str, columns: Sequence[str], values: Sequence[object]) -> None:
        """Insert one row. Its key is the first column; the last one may be large."""
        marks = ", ".join("?" * len(columns))
        self.execute(f"INSERT INTO {table}({', '.join(columns)}) VALUES ({marks})", *values)

    @abstractmethod
    def has_column(self, table: str, column: str) -> bool:
        """Say whether a table of the reference has a column, which an older release's may not."""

    @abstractmethod
    def sweep_rest(self) -> None:
        """Delete what only this kind of database has, and nobody needs any more."""
