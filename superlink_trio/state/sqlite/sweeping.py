"""Steps that keep the file small: what nobody can ask for any more goes."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.interface import FORGET, LINGER
from superlink_trio.state.rules import Phase
from superlink_trio.state.sqlite import nodes, presence, task_ins
from superlink_trio.state.sqlite.schema import Collected
from superlink_trio.state.sqlite.transaction import PORTION, Transaction

KEPT_NEWS = 10_000
"""Entries that are kept for processes that have not read them; who missed more looks anew."""

_SPARE_PAGES = 4096  # what the next round will use again anyway
_VACUUM_PAGES = 2048  # given back in one step


def sweep(tx: Transaction) -> bool:
    """Sweep a portion; say whether there may be more. As many deleted nodes stay as nodes may."""
    closed = task_ins.close(
        tx,
        f"number IN (SELECT number FROM superlink_task WHERE phase < {Phase.CLOSED}"
        " AND expires_at <= ? AND answer_holder IS NULL LIMIT ?)",
        *(tx.now, PORTION),
    )
    dropped = tx.execute(
        "SELECT task_id FROM superlink_task WHERE expires_at <= ? AND answer_holder IS NULL"
        " LIMIT ?",
        *(tx.now - LINGER, PORTION),
    ).fetchall()
    for (task_id,) in dropped:
        task_ins.drop(tx, task_id)
    tx.execute("DELETE FROM superlink_deleted_node WHERE deleted_at <= ?", tx.now - FORGET)
    tx.execute(
        "DELETE FROM superlink_deleted_node WHERE node_id IN (SELECT node_id"
        " FROM superlink_deleted_node ORDER BY deleted_at DESC LIMIT -1 OFFSET ?)",
        tx.limits.nodes,
    )
    nodes.bound(tx.connection, tx.now)
    nodes.forget(tx, tx.now - FORGET)
    tx.execute(
        "DELETE FROM superlink_news WHERE number <="
        " (SELECT seq - ? FROM sqlite_sequence WHERE name = 'superlink_news')",
        KEPT_NEWS,
    )
    return PORTION in (len(closed), len(dropped))


def give_back_space(tx: Transaction) -> bool:
    """Give a portion of the free pages back to the disk; say whether there may be more.

    It does nothing for a file that the reference made: such a file uses its free pages again,
    but never shrinks.
    """
    free, pages = tx.value("PRAGMA freelist_count"), tx.value("PRAGMA page_count")
    mode = tx.value("PRAGMA auto_vacuum")
    if mode != 2 or free <= max(_SPARE_PAGES, pages // 4):
        return False
    tx.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
    return True


def evict(tx: Transaction, processes: Collection[int]) -> None:
    """Queue again what ended processes had under way, and forget them and what they simulated."""
    for process in processes:
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
        tx.execute("DELETE FROM superlink_process WHERE process_id = ?", process)


def evict_ended(tx: Transaction) -> None:
    """Evict the processes that have ended, and remove what they left beside the file."""
    for process, name in others(tx.connection, tx.me):
        if not presence.is_alive(tx.path, name):
            evict(tx, [process])
            presence.forget(tx.path, name)


def register(connection: sqlite3.Connection, name: str) -> int:
    """Add a process to those over the file; give its id, which no other had before."""
    inserted = connection.execute("INSERT INTO superlink_process(socket) VALUES (?)", (name,))
    return int(inserted.lastrowid or 0)


def is_registered(connection: sqlite3.Connection, process: int) -> bool:
    """Say whether a process is among those over the file: nobody took it for ended."""
    query = "SELECT 1 FROM superlink_process WHERE process_id = ?"
    return connection.execute(query, (process,)).fetchone() is not None


def others(connection: sqlite3.Connection, me: int) -> list[tuple[int, str]]:
    """Give the ids and names of the other processes over the file."""
    return connection.execute(
        "SELECT process_id, socket FROM superlink_process WHERE process_id != ?", (me,)
    ).fetchall()
