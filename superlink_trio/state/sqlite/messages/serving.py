"""Which process serves the nodes, runs and messages of a file: one at a time may."""

from __future__ import annotations

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.sqlite import presence
from superlink_trio.state.sqlite.transaction import Transaction


def serve(tx: Transaction) -> bool:
    """Note that this process serves them, and is the only one. Raises CannotOpen if it is not."""
    if is_served_elsewhere(tx):
        raise CannotOpen(
            f"The database {tx.path} is in use by another process that serves Flower 1.23 and "
            "later, which one at a time may: stop that one, use another file, or leave --port out"
        )
    tx.execute("DELETE FROM superlink_serving")
    tx.execute("INSERT INTO superlink_serving VALUES (?)", tx.me)
    return True


def is_served_elsewhere(tx: Transaction) -> bool:
    """Say whether another process that lives serves them."""
    others = tx.execute(
        "SELECT socket FROM superlink_serving JOIN superlink_process USING (process_id)"
        " WHERE process_id != ?",
        tx.me,
    ).fetchall()
    return any(presence.is_alive(tx.path, name) for (name,) in others)
