"""Nodes, runs and messages of Flower 1.23 and later in the file. The tables are in `schema`."""

from __future__ import annotations

from superlink_trio.state.sql.messages import steps as sql
from superlink_trio.state.sqlite.messages import objects, serving
from superlink_trio.state.sqlite.transaction import Reading, Transaction


class MessageQueries(sql.MessageQueries, Reading):
    """See `messages.durable.engine.MessageQueries`."""


class MessageSteps(sql.MessageSteps, MessageQueries, Transaction):
    """See `messages.durable.engine.MessageTransaction`."""

    WHOLE = "tree.missing = 0"

    serve = serving.serve
    is_served_elsewhere = serving.is_served_elsewhere
    add_tree = objects.add_tree
    brought = objects.brought
    release = objects.release

    def collect(self, most: int) -> bool:
        """See `sql.messages.transaction.Transaction`: nothing was left."""
        return False

    def keep_run(self, token: bytes, heard_at: float) -> None:
        """See `sql.messages.transaction.Transaction`: nobody else has to know."""

    def run_heard_at(self, run_id: int) -> float:
        """See `sql.messages.transaction.Transaction`: nobody else has heard of it."""
        return 0.0
