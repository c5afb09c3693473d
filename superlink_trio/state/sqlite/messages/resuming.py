"""The step with which a process begins to serve Flower 1.23 and later."""

from __future__ import annotations

from superlink_trio.state.interface import CannotOpen
from superlink_trio.state.messages.durable.engine import Resumed
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sqlite import presence
from superlink_trio.state.sqlite.messages import nodes, runs
from superlink_trio.state.sqlite.transaction import Transaction


def resume(tx: Transaction) -> Resumed:
    """Give everybody time anew, who had nobody to talk to, and what is known at the start.

    Raises CannotOpen where another process serves these nodes.
    """
    _be_the_only_one(tx)
    nodes.give_time(tx)
    tx.execute("UPDATE superlink_tree SET heard_at = ? WHERE missing > 0", tx.now)
    arriving = f"phase = {Phase.ARRIVING}"
    tx.execute(f"UPDATE superlink_message SET heard_at = ? WHERE {arriving}", tx.now)
    return Resumed(nodes.everyone(tx), runs.live(tx))


def _be_the_only_one(tx: Transaction) -> None:
    others = tx.execute(
        "SELECT socket FROM superlink_serving JOIN superlink_process USING (process_id)"
        " WHERE process_id != ?",
        tx.me,
    ).fetchall()
    if any(presence.is_alive(tx.path, name) for (name,) in others):
        raise CannotOpen(
            f"The database {tx.path} is in use by another process that serves Flower 1.23 and "
            "later, which one at a time may: stop that one, use another file, or leave --port out"
        )
    tx.execute("DELETE FROM superlink_serving")
    tx.execute("INSERT INTO superlink_serving VALUES (?)", tx.me)
