"""Steps about nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from superlink_trio.state import rules
from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.durable.heartbeats import Alive, Heartbeat
from superlink_trio.state.ids import draw_id
from superlink_trio.state.interface import MAX_PING_INTERVAL, Admission
from superlink_trio.state.rules import Phase
from superlink_trio.state.sql import runs
from superlink_trio.state.sql.transaction import Reading, Transaction


def create(tx: Transaction, heartbeat: Heartbeat, public_key: bytes) -> int:
    """Register a new node, or give the one that the key has, online anew."""
    own = of_key(tx, public_key) if public_key else None
    if own is not None:
        write_heartbeats(tx, {own: heartbeat})
        tx.notify(ChangeKind.KNOWN, own, heartbeat.until)
        return own
    node_id = _create(tx, heartbeat)
    if public_key:
        _bind(tx, node_id, public_key)
    return node_id


def _create(tx: Transaction, heartbeat: Heartbeat) -> int:
    _evict_offline(tx)
    # That 64 random bits are taken already is no case to plan for.
    node_id = draw_id()
    _insert(tx, node_id, heartbeat)
    return node_id


def create_simulated(tx: Transaction, heartbeat: Heartbeat) -> int:
    """Register a new node that goes with this process."""
    node_id = _create(tx, heartbeat)
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
        tx.notify(ChangeKind.GONE, node_id)


def of_key(tx: Reading, public_key: bytes) -> int | None:
    """Give the node that is bound to a key."""
    query = "SELECT node_id FROM superlink_node_key WHERE public_key = ?"
    node_id: int | None = tx.value(query, public_key)
    return node_id


def bind(tx: Transaction, node_id: int, public_key: bytes, *, readmit: bool) -> Admission:
    """Say whether a node is the key's, and make it so where it may be."""
    bound = "SELECT 1 FROM superlink_node_key WHERE node_id = ?"
    admission = rules.bind(
        node_id,
        node_of_key=of_key(tx, public_key),
        has_key=tx.exists(bound, node_id),
        deleted=_was_deleted(tx, node_id),
        readmit=readmit,
    )
    if admission is Admission.KNOWN:
        tx.notify(ChangeKind.BOUND, node_id, public_key)
    if admission is not Admission.READMITTED:
        return admission
    if not exists(tx, node_id):
        _evict_offline(tx)
        _insert(tx, node_id, Heartbeat(tx.now))
    _bind(tx, node_id, public_key)
    return Admission.READMITTED


def _bind(tx: Transaction, node_id: int, public_key: bytes) -> None:
    tx.execute(
        "INSERT INTO superlink_node_key(public_key, node_id) VALUES (?, ?)",
        *(public_key, node_id),
    )
    # Nodes of Flower 1.8 have no keys there.
    if tx.has_column("node", "public_key"):
        tx.execute("UPDATE node SET public_key = ? WHERE node_id = ?", public_key, node_id)
    tx.notify(ChangeKind.BOUND, node_id, public_key)


def _was_deleted(tx: Transaction, node_id: int) -> bool:
    return tx.exists("SELECT 1 FROM superlink_deleted_node WHERE node_id = ?", node_id)


def _insert(tx: Transaction, node_id: int, heartbeat: Heartbeat) -> None:
    tx.execute(
        # Another process may be admitting it at the same moment.
        "INSERT INTO node(node_id, online_until, ping_interval) VALUES (?, ?, ?)"
        " ON CONFLICT(node_id) DO NOTHING",
        *(node_id, heartbeat.until, heartbeat.interval or 0.0),
    )
    tx.notify(ChangeKind.KNOWN, node_id, heartbeat.until)
    # One that comes back may take now what could not be taken before.
    queued = f"SELECT 1 FROM superlink_task WHERE node_id = ? AND phase = {Phase.QUEUED}"
    for _ in tx.execute(queued, node_id).fetchall():
        tx.notify(ChangeKind.QUEUED, node_id)


def _evict_offline(tx: Transaction) -> None:
    if _count(tx) >= tx.limits.nodes:
        forget(tx, tx.now)
        tx.limits.check_node(_count(tx))


def _count(tx: Transaction) -> int:
    return int(tx.value("SELECT nodes FROM superlink_total") or 0)


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
        tx.notify(ChangeKind.GONE, node_id)


def admit(tx: Transaction, node_id: int, heartbeat: Heartbeat, *, readmit: bool) -> Admission:
    """Take a heartbeat of a node that this process does not know."""
    stored = _online_until(tx, node_id)
    admission = rules.admit(
        node_id,
        registered=stored is not None,
        deleted=stored is None and _was_deleted(tx, node_id),
        readmit=readmit,
    )
    if stored is not None:
        write_heartbeats(tx, {node_id: heartbeat})
        until = Alive({node_id: heartbeat}).until(node_id, stored, tx.now)
        tx.notify(ChangeKind.KNOWN, node_id, until)
    elif admission is Admission.READMITTED:
        _evict_offline(tx)
        _insert(tx, node_id, heartbeat)
    return admission


def write_heartbeats(tx: Transaction, heartbeats: Mapping[int, Heartbeat]) -> None:
    """Write down how long nodes are online."""
    # In one order everywhere: no two processes wait for each other.
    in_order = sorted(heartbeats.items())
    written = tx.execute_many(
        "UPDATE node SET ping_interval = coalesce(?, ping_interval), online_until ="
        " CASE WHEN online_until <= ? THEN ? ELSE online_until END WHERE node_id = ?",
        [
            (heard.interval, max(heard.over, heard.until), heard.until, node_id)
            for node_id, heard in in_order
        ],
    )
    if written < len(in_order):
        for node_id, _ in in_order:
            if not exists(tx, node_id):
                tx.notify(ChangeKind.GONE, node_id)


def delete(tx: Transaction, node_id: int) -> bool:
    """Forget a node and remember that it was deleted."""
    if not tx.execute("DELETE FROM node WHERE node_id = ?", node_id).rowcount:
        return False
    tx.execute(
        "INSERT INTO superlink_deleted_node VALUES (?, ?)"
        " ON CONFLICT(node_id) DO UPDATE SET deleted_at = excluded.deleted_at",
        *(node_id, tx.now),
    )
    tx.notify(ChangeKind.GONE, node_id)
    return True


def pulled(tx: Transaction, node_id: int) -> None:
    """Notify the other processes that a node pulls from this one now."""
    tx.notify(ChangeKind.PULLED, node_id)


def exists(tx: Reading, node_id: int) -> bool:
    """Say whether a node is registered."""
    return tx.exists("SELECT 1 FROM node WHERE node_id = ?", node_id)


def is_registered(tx: Transaction, node_id: int) -> bool:
    """Say whether a node is registered; it is known from then on."""
    until = _online_until(tx, node_id)
    if until is not None:
        tx.notify(ChangeKind.KNOWN, node_id, until)
    return until is not None


def online(tx: Reading, run_id: int, alive: Alive) -> Sequence[int]:
    """Give the nodes that are online now; none for an unknown run."""
    return all_online(tx, alive) if runs.exists(tx, run_id) else ()


def all_online(tx: Reading, alive: Alive) -> Sequence[int]:
    """Give the nodes that are online now."""
    online = "SELECT node_id, online_until FROM node WHERE online_until > ?"
    stored: dict[int, float] = dict(tx.execute(online, tx.now).fetchall())
    for node_id in {*alive.heartbeats, *alive.attended} - stored.keys():
        until = _online_until(tx, node_id)
        if until is not None:
            stored[node_id] = until
    return [node for node, until in stored.items() if alive.until(node, until, tx.now) > tx.now]


def _online_until(tx: Reading, node_id: int) -> float | None:
    until: float | None = tx.value("SELECT online_until FROM node WHERE node_id = ?", node_id)
    return until


def give_time(tx: Transaction, at_least: float) -> None:
    """Keep every node online for one ping interval: it could not report while we were away."""
    interval = "CASE WHEN ping_interval > ? THEN ping_interval ELSE ? END"
    tx.execute(
        f"UPDATE node SET online_until = ? + {interval} WHERE online_until < ? + {interval}",
        *(tx.now, at_least, at_least),
        *(tx.now, at_least, at_least),
    )


def bound(tx: Transaction) -> None:
    """Let no node be online for longer than after a ping.

    Flower keeps its simulated nodes online for ever, and the clock may have been set back.
    """
    latest = tx.now + MAX_PING_INTERVAL
    tx.execute("UPDATE node SET online_until = ? WHERE online_until > ?", latest, latest)
