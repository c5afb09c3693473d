"""Processes that serve the nodes, runs and messages of a database: any number may."""

from __future__ import annotations

from superlink_trio.state.messages.ids import to_signed
from superlink_trio.state.postgres.processes import Locks, members
from superlink_trio.state.postgres.transaction import Reading, Transaction


def serve(tx: Transaction, locks: Locks) -> bool:
    """Note that this process serves them; say whether no other does that lives."""
    alone = not is_served_elsewhere(tx, locks)
    tx.execute("INSERT INTO superlink_serving VALUES (?) ON CONFLICT DO NOTHING", tx.me)
    return alone


def is_served_elsewhere(tx: Transaction, locks: Locks) -> bool:
    """Say whether another process that lives serves them."""
    alive = {each.process for each in members(tx, locks) if each.alive} - {tx.me}
    serving = tx.execute("SELECT process_id FROM superlink_serving").fetchall()
    return not alive.isdisjoint(process for (process,) in serving)


def keep_run(tx: Transaction, token: bytes, heard_at: float) -> None:
    """Let other processes know when a run's process, by its token, was heard of last."""
    tx.execute(
        "UPDATE superlink_app_run SET heard_at = greatest(heard_at, ?) WHERE token = ?",
        *(heard_at, token),
    )


def run_heard_at(tx: Reading, run_id: int) -> float:
    """Say when any process has heard of a run's process last."""
    query = "SELECT heard_at FROM superlink_app_run WHERE run_id = ?"
    return float(tx.value(query, to_signed(run_id)) or 0.0)
