"""Steps that keep the database small: what nobody can ask for any more, and ended processes."""

from __future__ import annotations

from collections.abc import Collection

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.interface import FORGET, LINGER
from superlink_trio.state.rules import Phase
from superlink_trio.state.sql import nodes, task_ins
from superlink_trio.state.sql.rows import Collected
from superlink_trio.state.sql.transaction import PORTION, Reading, Transaction


def sweep(tx: Transaction) -> bool:
    """Sweep a portion; say whether there may be more. As many deleted nodes stay as nodes may."""
    closed = task_ins.close(
        tx,
        f"number IN (SELECT number FROM superlink_task WHERE phase < {Phase.CLOSED}"
        " AND expires_at <= ? AND answer_holder IS NULL LIMIT ? FOR UPDATE SKIP LOCKED)",
        *(tx.now, PORTION),
    )
    dropped = tx.execute(
        "SELECT task_id FROM superlink_task WHERE expires_at <= ? AND answer_holder IS NULL"
        " LIMIT ? FOR UPDATE SKIP LOCKED",
        *(tx.now - LINGER, PORTION),
    ).fetchall()
    for (task_id,) in dropped:
        task_ins.drop(tx, task_id)
    tx.execute("DELETE FROM superlink_deleted_node WHERE deleted_at <= ?", tx.now - FORGET)
    unmarked = tx.execute(
        "DELETE FROM superlink_deleted_node WHERE node_id IN (SELECT node_id"
        " FROM superlink_deleted_node ORDER BY deleted_at DESC LIMIT ? OFFSET ?)",
        *(PORTION, tx.limits.nodes),
    )
    nodes.bound(tx)
    nodes.forget(tx, tx.now - FORGET)
    tx.sweep_rest()
    return PORTION in (len(closed), len(dropped), unmarked.rowcount)


def evict(tx: Transaction, processes: Collection[int]) -> None:
    """Queue again what ended processes had under way, and forget them and what they simulated."""
    for process in processes:
        # At first: it waits for what the process is just writing, if it lives against all belief.
        tx.execute("DELETE FROM superlink_process WHERE process_id = ?", process)
        nodes.forget_simulated(tx, process)
        queued = tx.execute(
            f"UPDATE superlink_task SET phase = {Phase.QUEUED}, holder = NULL,"
            " deliveries = deliveries - 1 WHERE holder = ? RETURNING node_id",
            process,
        ).fetchall()
        freed = tx.execute(
            f"UPDATE superlink_task SET answer_holder = NULL, collected = {Collected.NO}"
            " WHERE answer_holder = ? RETURNING node_id, phase",
            process,
        ).fetchall()
        able = [node_id for (node_id,) in queued]
        able += [node_id for node_id, phase in freed if phase == Phase.QUEUED]
        for node_id in able:
            tx.notify(ChangeKind.QUEUED, node_id)


def register(tx: Reading, name: str) -> int:
    """Add a process to those over the database; give its id, which no other had before."""
    query = "INSERT INTO superlink_process(socket) VALUES (?) RETURNING process_id"
    return int(tx.value(query, name))


def is_registered(tx: Reading, process: int) -> bool:
    """Say whether a process is among those over the database: nobody took it for ended.

    Nobody does before the transaction is over.
    """
    return tx.exists("SELECT 1 FROM superlink_process WHERE process_id = ? FOR KEY SHARE", process)


OTHERS = "SELECT process_id, socket FROM superlink_process WHERE process_id != ?"


def others(tx: Reading, me: int) -> list[tuple[int, str]]:
    """Give the ids and names of the other processes over the database."""
    return tx.execute(OTHERS, me).fetchall()
