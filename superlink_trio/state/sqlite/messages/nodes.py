"""Steps about registered nodes of Flower 1.23 and later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.interface import Admission
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.ids import to_signed, to_unsigned
from superlink_trio.state.sqlite.transaction import Reading, Transaction
from superlink_trio.wire.messages import NodeRecord

_COLUMNS = (
    "node_id, public_key, registered_at, activated_at, deactivated_at, online_until,"
    " heartbeat_interval, name, location"
)


def everyone(tx: Reading) -> Sequence[NodeRecord]:
    """Give all nodes, in the order in which they were registered."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM superlink_supernode ORDER BY registered_at")
    return [_to_record(row) for row in rows.fetchall()]


def _to_record(row: Sequence[Any]) -> NodeRecord:
    node_id, public_key, registered_at, activated_at, deactivated_at, until, interval, *names = row
    name, location = names
    return NodeRecord(
        node_id=to_unsigned(node_id),
        public_key=public_key,
        registered_at=registered_at,
        activated_at=activated_at,
        deactivated_at=deactivated_at,
        online_until=until,
        heartbeat_interval=interval,
        name=name,
        location=location,
    )


def register(tx: Transaction, node: NodeRecord) -> None:
    """Store a new node. Raises NotPermitted where its key has one."""
    if _of_key(tx, node.public_key) is not None:
        raise rules.key_in_use()
    _insert(tx, node)


def admit(tx: Transaction, node: NodeRecord, *, readmit: bool) -> bool:
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
        _insert(tx, node)
    return admission in (Admission.KNOWN, Admission.READMITTED)


def _of_key(tx: Reading, public_key: bytes) -> int | None:
    query = "SELECT node_id FROM superlink_supernode WHERE public_key = ?"
    node_id = tx.value(query, public_key)
    return None if node_id is None else to_unsigned(node_id)


def exists(tx: Reading, node_id: int) -> bool:
    """Say whether a node is registered."""
    query = "SELECT 1 FROM superlink_supernode WHERE node_id = ?"
    return tx.exists(query, to_signed(node_id))


def _insert(tx: Transaction, node: NodeRecord) -> None:
    tx.limits.check_node(tx.value("SELECT count(*) FROM superlink_supernode"))
    tx.execute(
        f"INSERT INTO superlink_supernode({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(to_signed(node.node_id), node.public_key, node.registered_at, node.activated_at),
        *(node.deactivated_at, node.online_until, node.heartbeat_interval, node.name),
        node.location,
    )
    tx.notify(ChangeKind.SUPERNODE, node.node_id, node)


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


def write_heartbeats(tx: Transaction, nodes: Sequence[NodeRecord]) -> None:
    """Write down how long nodes are online, who are known to be."""
    tx.connection.executemany(
        "UPDATE superlink_supernode SET deactivated_at = ?, online_until = ?,"
        " heartbeat_interval = ? WHERE node_id = ?",
        [
            (
                node.deactivated_at,
                node.online_until,
                node.heartbeat_interval,
                to_signed(node.node_id),
            )
            for node in nodes
        ],
    )


def unregister(tx: Transaction, node_id: int) -> bool:
    """Forget a node, and remember that it was unregistered: as many of those as nodes may be."""
    signed = to_signed(node_id)
    if not tx.execute("DELETE FROM superlink_supernode WHERE node_id = ?", signed).rowcount:
        return False
    tx.execute("INSERT OR REPLACE INTO superlink_unregistered(node_id) VALUES (?)", signed)
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
