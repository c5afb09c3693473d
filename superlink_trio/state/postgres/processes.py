"""Processes over one database: which are there, which have ended, and what fences those off.

Each has a number (`superlink_process`) and an advisory lock on a connection that stays (`session`),
of which PostgreSQL lets go when that ends. Who has been without it for too long, or has committed
nothing for a minute, is taken for dead: its row goes, and what it had under way is queued again.

It may live against all belief, so every commit looks for its own row first, under a lock that is
shared with nobody but who deletes that row (the fence). A process whose row is gone gets another
number, and what it still does for the old one finds nothing: what is under way bears the number.
All this holds whatever connection a commit is made over.

A crash of PostgreSQL may undo the last commits that nobody waited for (`synchronous_commit = off`),
without anybody being told. `superlink_present` is an unlogged table, which a crash empties: a
process that is not in it any more gives up its number just so, as it may know what is not true.
"""

from __future__ import annotations

import os
import secrets
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

STALLED = 60.0
"""Seconds after which a process is taken for dead that leaves unread what is written for it. Each
reads with every commit, and commits every two seconds."""

_END_HOLDER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid, objid, objsubid, mode)
            = ((%s::int8 & 4294967295)::oid, %s::oid, 2, 'ExclusiveLock')
"""

# The lock of who registers, against everybody who writes. No process has this number.
_REGISTRY = 0

PRESENT = (
    "SELECT process_id, socket FROM superlink_process JOIN superlink_present USING (process_id)"
)
"""The processes that are registered and have seen no crash of PostgreSQL since."""


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

    def shared_by(self, process: int) -> str:
        """Give a statement: nobody registers, nor evicts the process, while its commit lasts."""
        return (
            f"SELECT pg_advisory_xact_lock_shared({self.schema}, {_REGISTRY}),"
            f" pg_advisory_xact_lock_shared({self.schema}, {_fence(process)})"
        )

    def lock_registry(self, connection: psycopg.Connection) -> None:
        """Wait for all who write; nobody writes, nor registers, before the transaction is over."""
        connection.execute(
            "SELECT pg_advisory_xact_lock(%s::int, %s::int)", (self.schema, _REGISTRY)
        )

    def keep(self, connection: psycopg.Connection, number: int) -> None:
        """Be alive, for as long as the connection is; an older one by the same number ends."""
        lock = (self.schema, number)
        tried = connection.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", lock)
        if tried.fetchone() == (False,):
            # The network broke, and PostgreSQL would find out in half a minute.
            connection.execute(_END_HOLDER, lock)
            connection.execute("SELECT pg_advisory_lock(%s::int, %s::int)", lock)

    def fence_off(self, tx: Reading, process: int) -> bool:
        """Let a process commit nothing before the transaction is over; False where it just does."""
        query = "SELECT pg_try_advisory_xact_lock(?::int, ?::int)"
        return bool(tx.value(query, self.schema, _fence(process)))


def _fence(process: int) -> int:
    return -process


def own_name() -> str:
    """Give what an administrator finds a process by in `superlink_process`; no two are equal."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def register(tx: Transaction, name: str, number: int | None) -> int:
    """Add a process to those over the database; give its id, which no other had before.

    `number`: by which it is alive; None: by its id.
    """
    me = sweeping.register(tx, name)
    tx.execute("UPDATE superlink_process SET alive_by = ? WHERE process_id = ?", number or me, me)
    tx.execute("INSERT INTO superlink_present VALUES (?)", me)
    return me


@attrs.frozen
class Member:
    """A process over the database. `oldest_news`: the number of the first that it has not read."""

    process: int
    alive: bool
    oldest_news: int | None


def members(tx: Reading, locks: Locks) -> list[Member]:
    """Look at every process. One that is not alive stays so until the transaction is over."""
    # Shared: who looks at the same time finds the same.
    found = tx.execute(
        "SELECT process_id, NOT pg_try_advisory_xact_lock_shared(?::int, alive_by),"
        " (SELECT min(number) FROM superlink_news AS n WHERE n.process_id = p.process_id)"
        " FROM superlink_process AS p",
        locks.schema,
    )
    return [Member(*columns) for columns in found.fetchall()]


@attrs.define
class Watch:
    """What of other processes is as it was when this one last looked, and since when."""

    locks: Locks
    grace: float = GRACE
    stalled: float = STALLED
    _seen: dict[int, tuple[Member, float]] = attrs.field(factory=dict)

    def evict_ended(self, tx: Transaction) -> None:
        """Evict the processes that have been without a connection, or stood still, for too long."""
        now = time.monotonic()
        seen = {each.process: each for each in members(tx, self.locks) if each.process != tx.me}
        self._seen = {process: (each, self._since(each, now)) for process, each in seen.items()}
        for process, (each, since) in self._seen.items():
            if self._is_over(each, now - since) and self.locks.fence_off(tx, process):
                sweeping.evict(tx, [process])

    def _since(self, other: Member, now: float) -> float:
        before, since = self._seen.get(other.process, (None, now))
        if before is None or before.alive != other.alive:
            return now
        return now if other.alive and before.oldest_news != other.oldest_news else since

    def _is_over(self, other: Member, seconds: float) -> bool:
        if not other.alive:
            return seconds >= self.grace
        return other.oldest_news is not None and seconds >= self.stalled
