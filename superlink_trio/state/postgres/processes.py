"""Processes over one database: a lock tells that one is alive.

Each has a number (`superlink_process`), and on the connection it writes by an advisory lock of that
number. PostgreSQL lets go of it when the connection ends, and then nothing of that process is under
way in the database. Who takes another for dead takes its lock first, so that it cannot come back
meanwhile; and a process that connects anew takes its lock before it looks whether it is still
registered.
"""

from __future__ import annotations

import os
import socket
import time

import attrs
import psycopg

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.postgres.transaction import Reading, Transaction
from superlink_trio.state.sql import sweeping

GRACE = 5.0
"""Seconds for which a process may be without a connection before it is taken for dead: after
PostgreSQL was restarted, all have to connect anew."""

# No process has this number: the lock of who registers, against everybody who writes.
_REGISTRY = 0


@attrs.frozen
class Locks:
    """The advisory locks of the processes over one schema of a database."""

    schema: int
    """Its OID, as a signed number: the first key of each lock."""

    @classmethod
    def of(cls, connection: psycopg.Connection) -> Locks:
        """Look up the schema in which the tables are. Raises CannotOpen where there is none."""
        row = connection.execute(
            "SELECT oid::int8 FROM pg_namespace WHERE nspname = current_schema()"
        ).fetchone()
        if row is None:
            raise CannotOpen(
                "The database has no schema to make tables in: create the one that search_path "
                "names, or leave that out"
            )
        return cls(row[0] - 2**32 if row[0] >= 2**31 else row[0])

    @property
    def channel(self) -> str:
        """Where processes say that they have changed something."""
        return f"superlink_{self.schema & 0xFFFFFFFF}"

    @property
    def share_registry(self) -> str:
        """A statement: nobody registers before the transaction is over."""
        return f"SELECT pg_advisory_xact_lock_shared({self.schema}, {_REGISTRY})"

    def lock_registry(self, connection: psycopg.Connection) -> None:
        """Wait for all who write; nobody writes, nor registers, before the transaction is over."""
        connection.execute("SELECT pg_advisory_xact_lock(%s::int, 0)", (self.schema,))

    def keep(self, connection: psycopg.Connection, process: int) -> None:
        """Be alive, for as long as the connection is."""
        connection.execute(
            "SELECT pg_advisory_lock(%s::int, %s::int)", (self.schema, process), prepare=False
        )

    def is_alive(self, tx: Reading, process: int) -> bool:
        """Say whether a process is alive; if not, it stays so until the transaction is over."""
        query = "SELECT pg_try_advisory_xact_lock(?::int, ?::int)"
        return not tx.value(query, self.schema, process)


def own_name() -> str:
    """Give what an administrator finds a process by in `superlink_process`."""
    return f"{socket.gethostname()}:{os.getpid()}"


@attrs.define
class Watch:
    """Which of the other processes were not there when this one last looked, and since when."""

    locks: Locks
    grace: float = GRACE
    missing: dict[int, float] = attrs.field(factory=dict)

    def evict_ended(self, tx: Transaction) -> None:
        """Evict the processes that have been without a connection for too long."""
        now = time.monotonic()
        others = [process for process, _ in sweeping.others(tx, tx.me)]
        missing = [process for process in others if not self.locks.is_alive(tx, process)]
        self.missing = {process: self.missing.get(process, now) for process in missing}
        sweeping.evict(tx, [each for each in missing if now - self.missing[each] >= self.grace])
