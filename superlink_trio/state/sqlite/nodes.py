"""Steps about nodes."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence

import attrs

from superlink_trio.state import rules
from superlink_trio.state.ids import draw_id
from superlink_trio.state.interface import (
    MAX_PING_INTERVAL,
    Admission,
)
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.rules import Phase
from superlink_trio.state.sqlite import schema
from superlink_trio.state.sqlite.transaction import Kind, Transaction


@attrs.frozen
class Beat:
    """What is not written yet of how long a node is online.

    A ping rules (`over` is infinite), and says the node's interval; any other sign of life only
    prolongs. That a connection broke shortens, if what was known of the node is all that the file
    says: where that is later, another process has heard of it.
    """

    until: float
    interval: float | None = None
    over: float = -math.inf
    """What the file says up to this is replaced."""

    def applied(self, stored: float) -> float:
        """Say until when a node is online for which the file says `stored`."""
        return self.until if stored <= self.over else max(self.until, stored)


def pinged(until: float, interval: float) -> Beat:
    """Give what a ping says."""
    return Beat(until, interval, over=math.inf)


@attrs.frozen
class Alive:
    """What the file does not say yet about who is online."""

    beats: Mapping[int, Beat] = attrs.field(factory=dict)
    attended: Collection[int] = frozenset()

    def until(self, node_id: int, stored: float, now: float) -> float:
        """Say when a registered node goes offline, for which the file says `stored`."""
        beat = self.beats.get(node_id)
        until = stored if beat is None else beat.applied(stored)
        return rules.online_until(until, attended=node_id in self.attended, now=now)


def create(tx: Transaction, beat: Beat, public_key: bytes, now: float, limits: StateLimits) -> int:
    """Register a new node, or give the one that the key has, online anew."""
    own = of_key(tx.connection, public_key) if public_key else None
    if own is not None:
        write_beat(tx, own, beat)
        tx.tell(Kind.KNOWN, own, beat.until)
        return own
    node_id = _create(tx, beat, now, limits)
    if public_key:
        _bind(tx, node_id, public_key)
    return node_id


def _create(tx: Transaction, beat: Beat, now: float, limits: StateLimits) -> int:
    _make_room(tx, now, limits)
    # That 64 random bits are taken already is no case to plan for: the INSERT would fail.
    node_id = draw_id()
    _insert(tx, node_id, beat)
    return node_id


def create_simulated(tx: Transaction, beat: Beat, now: float, limits: StateLimits) -> int:
    """Register a new node that goes with this process."""
    node_id = _create(tx, beat, now, limits)
    tx.execute("INSERT INTO superlink_simulated_node VALUES (?, ?)", node_id, tx.me)
    return node_id


def forget_simulated(tx: Transaction, process: int) -> None:
    """Forget the nodes that an ended process simulated."""
    forgotten = tx.execute(
        "DELETE FROM node WHERE node_id IN (SELECT node_id FROM superlink_simulated_node"
        " WHERE process_id = ?) RETURNING node_id",
        process,
    ).fetchall()
    for (node_id,) in forgotten:
        tx.tell(Kind.GONE, node_id)


def of_key(connection: sqlite3.Connection, public_key: bytes) -> int | None:
    """Give the node that is bound to a key."""
    row = connection.execute(
        "SELECT node_id FROM superlink_node_key WHERE public_key = ?", (public_key,)
    ).fetchone()
    return None if row is None else int(row[0])


def bind(
    tx: Transaction,
    node_id: int,
    public_key: bytes,
    now: float,
    limits: StateLimits,
    *,
    readmit: bool,
) -> Admission:
    """Say whether a node is the key's, and make it so where it may be."""
    bound = "SELECT 1 FROM superlink_node_key WHERE node_id = ?"
    admission = rules.bind(
        node_id,
        node_of_key=of_key(tx.connection, public_key),
        has_key=tx.first(bound, node_id) is not None,
        deleted=_was_deleted(tx, node_id),
        readmit=readmit,
    )
    if admission is Admission.KNOWN:
        tx.tell(Kind.BOUND, node_id, public_key)
    if admission is not Admission.READMITTED:
        return admission
    if tx.first("SELECT 1 FROM node WHERE node_id = ?", node_id) is None:
        _make_room(tx, now, limits)
        _insert(tx, node_id, Beat(now))
    _bind(tx, node_id, public_key)
    return Admission.READMITTED


def _bind(tx: Transaction, node_id: int, public_key: bytes) -> None:
    tx.execute(
        "INSERT INTO superlink_node_key(public_key, node_id) VALUES (?, ?)",
        *(public_key, node_id),
    )
    if schema.names_keys(tx.connection):
        tx.execute("UPDATE node SET public_key = ? WHERE node_id = ?", public_key, node_id)
    tx.tell(Kind.BOUND, node_id, public_key)


def _was_deleted(tx: Transaction, node_id: int) -> bool:
    row = tx.first("SELECT 1 FROM superlink_deleted_node WHERE node_id = ?", node_id)
    return row is not None


def _insert(tx: Transaction, node_id: int, beat: Beat) -> None:
    tx.execute(
        "INSERT INTO node(node_id, online_until, ping_interval) VALUES (?, ?, ?)",
        *(node_id, beat.until, beat.interval or 0.0),
    )
    tx.tell(Kind.KNOWN, node_id, beat.until)
    # One that comes back may take now what could not be taken before.
    queued = f"SELECT 1 FROM superlink_task WHERE node_id = ? AND phase = {Phase.QUEUED}"
    for _ in tx.execute(queued, node_id).fetchall():
        tx.tell(Kind.QUEUED, node_id)


def _make_room(tx: Transaction, now: float, limits: StateLimits) -> None:
    if _count(tx) >= limits.nodes:
        forget(tx, now)
        limits.check_node(_count(tx))


def _count(tx: Transaction) -> int:
    (count,) = tx.first("SELECT nodes FROM superlink_total") or (0,)
    return int(count)


def forget(tx: Transaction, since: float) -> None:
    """Forget the nodes that were not online at any time since.

    A node that is bound to a key is found again by it: it stays.
    """
    forgotten = tx.execute(
        "DELETE FROM node WHERE online_until <= ?"
        " AND node_id NOT IN (SELECT node_id FROM superlink_node_key) RETURNING node_id",
        since,
    ).fetchall()
    for (node_id,) in forgotten:
        tx.tell(Kind.GONE, node_id)


def admit(
    tx: Transaction, node_id: int, beat: Beat, now: float, limits: StateLimits, *, readmit: bool
) -> Admission:
    """Take a sign of life of a node that this process has not met."""
    row = tx.first("SELECT online_until FROM node WHERE node_id = ?", node_id)
    admission = rules.admit(
        node_id,
        registered=row is not None,
        deleted=row is None and _was_deleted(tx, node_id),
        readmit=readmit,
    )
    if row is not None:
        write_beat(tx, node_id, beat)
        tx.tell(Kind.KNOWN, node_id, Alive({node_id: beat}).until(node_id, row[0], now))
    elif admission is Admission.READMITTED:
        _make_room(tx, now, limits)
        _insert(tx, node_id, beat)
    return admission


def write_beat(tx: Transaction, node_id: int, beat: Beat) -> None:
    """Write down how long a node is online."""
    written = tx.execute(
        "UPDATE node SET ping_interval = coalesce(?, ping_interval), online_until ="
        " CASE WHEN online_until <= ? THEN ? ELSE max(online_until, ?) END WHERE node_id = ?",
        *(beat.interval, beat.over, beat.until, beat.until, node_id),
    )
    if not written.rowcount:
        tx.tell(Kind.GONE, node_id)


def delete(tx: Transaction, node_id: int, now: float) -> bool:
    """Forget a node and remember that it was deleted."""
    if not tx.execute("DELETE FROM node WHERE node_id = ?", node_id).rowcount:
        return False
    tx.execute("INSERT OR REPLACE INTO superlink_deleted_node VALUES (?, ?)", node_id, now)
    tx.tell(Kind.GONE, node_id)
    return True


def pull(tx: Transaction, node_id: int) -> None:
    """Tell the other processes where a node is now."""
    tx.tell(Kind.PULLED, node_id)


def meet(tx: Transaction, node_id: int) -> bool:
    """Say whether a node is registered."""
    row = tx.first("SELECT online_until FROM node WHERE node_id = ?", node_id)
    if row is not None:
        tx.tell(Kind.KNOWN, node_id, row[0])
    return row is not None


def online(connection: sqlite3.Connection, run_id: int, alive: Alive, now: float) -> Sequence[int]:
    """Give the nodes that are online now; none for an unknown run."""
    if connection.execute("SELECT 1 FROM run WHERE run_id = ?", (run_id,)).fetchone() is None:
        return ()
    stored: dict[int, float] = dict(
        connection.execute("SELECT node_id, online_until FROM node WHERE online_until > ?", (now,))
    )
    for node_id in {*alive.beats, *alive.attended} - stored.keys():
        row = connection.execute(
            "SELECT online_until FROM node WHERE node_id = ?", (node_id,)
        ).fetchone()
        if row is not None:
            stored[node_id] = row[0]
    return [node for node, until in stored.items() if alive.until(node, until, now) > now]


def give_time(connection: sqlite3.Connection, now: float, at_least: float) -> None:
    """Keep every node online for one ping interval: it could not report while we were away."""
    connection.execute(
        "UPDATE node SET online_until = max(online_until, ? + max(coalesce(ping_interval, 0), ?))",
        (now, at_least),
    )


def bound(connection: sqlite3.Connection, now: float) -> None:
    """Let no node be online for longer than after a ping.

    Flower keeps its simulated nodes online for ever, and the clock may have been set back.
    """
    connection.execute(
        "UPDATE node SET online_until = ? WHERE online_until > ?",
        (now + MAX_PING_INTERVAL, now + MAX_PING_INTERVAL),
    )
