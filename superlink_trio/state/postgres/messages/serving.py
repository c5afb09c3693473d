"""Which processes serve the nodes, runs and messages of a database: any number may."""

from __future__ import annotations

from superlink_trio.state.postgres.processes import Locks
from superlink_trio.state.postgres.transaction import Transaction


def serve(tx: Transaction, locks: Locks) -> bool:
    """Note that this process serves them; say whether no other does that lives."""
    others = tx.execute(
        "SELECT process_id FROM superlink_serving WHERE process_id != ?", tx.me
    ).fetchall()
    tx.execute("INSERT INTO superlink_serving VALUES (?) ON CONFLICT DO NOTHING", tx.me)
    return not any(locks.is_alive(tx, process) for (process,) in others)
