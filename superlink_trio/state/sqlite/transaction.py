"""A step inside a transaction, and what it tells those who wait."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import attrs

Result = TypeVar("Result")

PORTION = 500
"""Rows of one kind that one step deletes at most: others want to write too."""


class Kind(enum.IntEnum):
    """What may have changed. The numbers are stored: they keep their meaning for ever."""

    QUEUED = 1
    """A TaskIns can be taken; key: its node."""
    HANDED_OVER = 2
    """A TaskIns was handed over, so that it may turn out to be lost; key: its node."""
    SETTLED = 3
    """A TaskIns is answered or gone; key: its id, value: the size of the answer."""
    GONE = 4
    """A node is not registered any more; key: the node."""
    KNOWN = 5
    """A node is registered; key: the node, value: until when it is online."""
    QUIET = 6
    """Nothing can be taken; key: the node, value: over which connection, None: over any."""
    BOUND = 7
    """A node belongs to a key; key: the node, value: the key."""
    PULLED = 8
    """A node came with a pull to another process than before; key: the node."""


_FOR_OTHERS = frozenset({Kind.QUEUED, Kind.HANDED_OVER, Kind.SETTLED, Kind.GONE, Kind.PULLED})


@attrs.frozen
class Change:
    """One thing that changed."""

    kind: Kind
    key: Any
    value: Any = None

    @property
    def concerns_others(self) -> bool:
        """Whether the other processes over the file have to know; the rest is our own cache."""
        return self.kind in _FOR_OTHERS


@attrs.define(eq=False)
class Transaction:
    """The open transaction as a step sees it. `me` is this process's id in the file."""

    connection: sqlite3.Connection
    me: int
    changes: list[Change] = attrs.field(factory=list)

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(statement, values)

    def first(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        """Give the first row of a query, None when it has none."""
        row: tuple[Any, ...] | None = self.connection.execute(statement, values).fetchone()
        return row

    def stored_size(self) -> int:
        """Give the bytes that all payloads, bundles and tasks take."""
        (stored,) = self.first("SELECT stored FROM superlink_total") or (0,)
        return int(stored)

    def tell(self, kind: Kind, key: int | str, value: object = None) -> None:
        """Say what changed. It is heard once the transaction is committed, in commit order."""
        self.changes.append(Change(kind, key, value))


Step: TypeAlias = Callable[[Transaction], Result]
