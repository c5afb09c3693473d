"""Nodes, runs and messages of Flower 1.23 and later in PostgreSQL. The tables are in `schema`."""

from __future__ import annotations

import attrs

from superlink_trio.state.postgres.messages import objects, serving
from superlink_trio.state.postgres.processes import Watch
from superlink_trio.state.postgres.transaction import Reading, Transaction
from superlink_trio.state.sql.messages import steps as sql


class MessageQueries(sql.MessageQueries, Reading):
    """See `messages.durable.engine.MessageQueries`."""


@attrs.define(eq=False, slots=False)
class MessageSteps(sql.MessageSteps, MessageQueries, Transaction):
    """See `messages.durable.engine.MessageTransaction`."""

    WHOLE = objects.WHOLE

    watch: Watch

    add_tree = objects.add_tree
    brought = objects.brought
    release = objects.release
    collect = objects.collect
    keep_run = serving.keep_run
    run_heard_at = serving.run_heard_at

    def serve(self) -> bool:
        """See `sql.messages.transaction.Transaction`."""
        return serving.serve(self, self.watch.locks)

    def is_served_elsewhere(self) -> bool:
        """See `sql.messages.transaction.Transaction`."""
        return serving.is_served_elsewhere(self, self.watch.locks)
