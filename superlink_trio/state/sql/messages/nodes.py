"""Steps about registered nodes of Flower 1.23 and later."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.interface import FORGET, Admission
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.durable.heartbeats import Heartbeat
from superlink_trio.state.messages.ids import to_signed, to_unsigned
from superlink_trio.state.messages.interface import EVICT_AFTER
from superlink_trio.state.sql.messages.transaction import Reading, Transaction
from superlink_trio.wire.messages import NodeRecord

_COLUMNS = (
    "node_id, public_key, registered_at, activated_at, deactivated_at, online_until,"
    " heartbeat_interval, registered_itself, name, location"
)

_ALL = 2**63 - 1  # what databases count up to

# See `rules.offline_since`, and `rules.gives_way`.
_OFFLINE_SINCE = "greatest(online_until, coalesce(deactivated_at, 0), registered_at)"
_GIVES_WAY = f"registered_itself AND {_OFFLINE_SINCE} <= ?"


def everyone(tx: Reading) -> Sequence[NodeRecord]:
    """Give all nodes, in the order in which they were registered."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM superlink_supernode ORDER BY registered_at")
    return [_to_record(row) for row in rows.fetchall()]


def _to_record(row: Sequence[Any]) -> NodeRecord:
    node_id, public_key, *times, registered_itself, name, location = row
    registered_at, activated_at, deactivated_at, until, interval = times
    return NodeRecord(
        node_id=to_unsigned(node_id),
        public_key=public_key,
        registered_at=registered_at,
        activated_at=activated_at,
        deactivated_at=deactivated_at,
        online_until=until,
        heartbeat_interval=interval,
        registered_itself=bool(registered_itself),
        name=name,
        location=location,
    )


def register(tx: Transaction, node: NodeRecord, heard: Collection[int]) -> None:
    """Store a new node. Raises NotPermitted where its key has one."""
    if _of_key(tx, node.public_key) is not None:
        raise rules.key_in_use()
    _insert(tx, node, heard)


def admit(tx: Transaction, node: NodeRecord, heard: Collection[int], *, readmit: bool) -> bool:
    """Say whether a node is its key's, and store it where it may be."""
    unregistered = "SELECT 1 FROM superlink_unregistered WHERE node_id = ?"
    admission = rules.admit(
        node.node_id,
        node_of_key=_of_key(tx, node.public_key),
        registered=exists(tx, node.node_id),
        unregistered=tx.exists(unregistered, to_signed(node.node_id)),
        readmit=readmit,
    )
    if admission is Admission.READMITTED:
        _insert(tx, node, heard)
    elif admission is Admission.KNOWN:
        look(tx, [node.node_id])
    return admission in (Admission.KNOWN, Admission.READMITTED)


def _of_key(tx: Reading, public_key: bytes) -> int | None:
    query = "SELECT node_id FROM superlink_supernode WHERE public_key = ?"
    node_id = tx.value(query, public_key)
    return None if node_id is None else to_unsigned(node_id)


def has_key(tx: Reading, public_key: bytes) -> bool:
    """Say whether a key has a node."""
    return _of_key(tx, public_key) is not None


def exists(tx: Reading, node_id: int) -> bool:
    """Say whether a node is registered."""
    query = "SELECT 1 FROM superlink_supernode WHERE node_id = ?"
    return tx.exists(query, to_signed(node_id))


def _insert(tx: Transaction, node: NodeRecord, heard: Collection[int]) -> None:
    if _count(tx) >= tx.limits.nodes:
        _forget(tx, tx.now - EVICT_AFTER, heard, most=1)
    tx.limits.check_node(_count(tx))
    tx.execute(
        f"INSERT INTO superlink_supernode({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(to_signed(node.node_id), node.public_key, node.registered_at, node.activated_at),
        *(node.deactivated_at, node.online_until, node.heartbeat_interval),
        *(node.registered_itself, node.name, node.location),
    )
    tx.notify(ChangeKind.SUPERNODE, node.node_id, node)


def _count(tx: Reading) -> int:
    return int(tx.value("SELECT count(*) FROM superlink_supernode"))


def forget(tx: Transaction, heard: Collection[int]) -> None:
    """Forget those who registered themselves and were not online for long."""
    _forget(tx, tx.now - FORGET, heard)


def _forget(tx: Transaction, since: float, heard: Collection[int], most: int = _ALL) -> None:
    """Forget nodes that give way, the one first that is offline longest.

    `heard`: nodes whose heartbeat is not written yet.
    """
    forgotten = tx.execute(
        "DELETE FROM superlink_supernode WHERE node_id IN (SELECT node_id FROM superlink_supernode"
        f" WHERE {_GIVES_WAY} AND node_id NOT IN (SELECT CAST(value AS BIGINT) FROM json_each(?))"
        f" ORDER BY {_OFFLINE_SINCE} LIMIT ?) RETURNING node_id",
        *(since, _listed(heard), most),
    ).fetchall()
    for (node_id,) in forgotten:
        tx.notify(ChangeKind.SUPERNODE, to_unsigned(node_id), None)


def update(tx: Transaction, node: NodeRecord) -> bool:
    """Store what became of a node; say whether it is known."""
    updated = tx.execute(
        "UPDATE superlink_supernode SET activated_at = ?, deactivated_at = ?, online_until = ?,"
        " heartbeat_interval = ? WHERE node_id = ?",
        *(node.activated_at, node.deactivated_at, node.online_until, node.heartbeat_interval),
        to_signed(node.node_id),
    ).rowcount
    if updated:
        tx.notify(ChangeKind.SUPERNODE, node.node_id, node)
    return bool(updated)


def write_heartbeats(tx: Transaction, heard: Mapping[int, Heartbeat]) -> None:
    """Write down how long nodes are online: another process may have heard of them later."""
    # In one order everywhere: no two processes wait for each other.
    tx.execute_many(
        "UPDATE superlink_supernode SET deactivated_at = NULL, heartbeat_interval = ?,"
        " online_until = greatest(online_until, ?)"
        " WHERE node_id = ? AND coalesce(deactivated_at, 0) <= ?",
        [
            (each.interval, each.until, to_signed(node_id), each.at)
            for node_id, each in sorted(heard.items())
        ],
    )


def look(tx: Transaction, node_ids: Collection[int]) -> None:
    """Look up nodes that another process has changed, or may know of."""
    found = {node.node_id: node for node in _some(tx, node_ids)}
    for node_id in node_ids:
        tx.notify(ChangeKind.SUPERNODE_SEEN, node_id, found.get(node_id))


def look_by_key(tx: Transaction, public_key: bytes) -> None:
    """Look up the node of a key."""
    node_id = _of_key(tx, public_key)
    if node_id is not None:
        look(tx, [node_id])


def _some(tx: Reading, node_ids: Collection[int]) -> Sequence[NodeRecord]:
    rows = tx.execute(
        f"SELECT {_COLUMNS} FROM json_each(?) CROSS JOIN superlink_supernode"
        " ON node_id = CAST(value AS BIGINT)",
        _listed(node_ids),
    )
    return [_to_record(row) for row in rows.fetchall()]


def _listed(node_ids: Collection[int]) -> str:
    return json.dumps([to_signed(node_id) for node_id in node_ids])


def online_until(tx: Reading, node_ids: Collection[int]) -> Mapping[int, float]:
    """Say until when nodes are online, as far as it is written down."""
    rows = tx.execute(
        "SELECT node_id, online_until FROM json_each(?) CROSS JOIN superlink_supernode"
        " ON node_id = CAST(value AS BIGINT)",
        _listed(node_ids),
    )
    return {to_unsigned(node_id): until for node_id, until in rows.fetchall()}


def online(tx: Reading) -> Mapping[int, float]:
    """Give the nodes that are online, as far as it is written down, and until when they are."""
    query = "SELECT node_id, online_until FROM superlink_supernode WHERE online_until > ?"
    rows = tx.execute(query, tx.now)
    return {to_unsigned(node_id): until for node_id, until in rows.fetchall()}


def pulled(tx: Transaction, node_id: int) -> None:
    """Notify the other processes that a node pulls from this one now."""
    tx.notify(ChangeKind.SUPERNODE_PULLED, node_id)


def unregister(tx: Transaction, node_id: int) -> bool:
    """Forget a node, and remember that it was unregistered: as many of those as nodes may be."""
    signed = to_signed(node_id)
    if not tx.execute("DELETE FROM superlink_supernode WHERE node_id = ?", signed).rowcount:
        return False
    tx.execute("DELETE FROM superlink_unregistered WHERE node_id = ?", signed)
    tx.execute("INSERT INTO superlink_unregistered(node_id) VALUES (?)", signed)
    tx.execute(
        "DELETE FROM superlink_unregistered WHERE number <="
        " (SELECT max(number) FROM superlink_unregistered) - ?",
        tx.limits.nodes,
    )
    tx.notify(ChangeKind.SUPERNODE, node_id, None)
    return True


def give_time(tx: Transaction) -> None:
    """Keep every node online as after a heartbeat that has not left: it had no one to talk to."""
    tx.execute(
        "UPDATE superlink_supernode SET online_until = ? + 2 * heartbeat_interval"
        " WHERE deactivated_at IS NULL AND heartbeat_interval > 0",
        tx.now,
    )
