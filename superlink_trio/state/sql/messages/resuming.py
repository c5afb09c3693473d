"""Steps with which a process begins to serve Flower 1.23 and later, and looks at all of it."""

from __future__ import annotations

from superlink_trio.state.durable.engine import ChangeKind
from superlink_trio.state.messages.durable.engine import Resumed
from superlink_trio.state.messages.rules import Phase
from superlink_trio.state.sql.messages import nodes, runs
from superlink_trio.state.sql.messages.transaction import Transaction


def resume(tx: Transaction) -> Resumed:
    """Give everybody time anew, who had nobody to talk to, and what is known at the start.

    Raises CannotOpen where another process serves these nodes, and none may beside it.
    """
    if tx.serve():
        nodes.give_time(tx)
        arriving = f"phase = {Phase.ARRIVING}"
        tx.execute(f"UPDATE superlink_message SET heard_at = ? WHERE {arriving}", tx.now)
    return Resumed(nodes.everyone(tx), runs.live(tx))


def look_at_all(tx: Transaction) -> None:
    """Look up everything: nobody knows what this process has missed."""
    tx.serve()
    tx.notify(ChangeKind.ALL_SEEN, 0, Resumed(nodes.everyone(tx), runs.live(tx)))


def stop_serving(tx: Transaction) -> None:
    """Note that this process serves nodes, runs and messages no more."""
    tx.execute("DELETE FROM superlink_serving WHERE process_id = ?", tx.me)
