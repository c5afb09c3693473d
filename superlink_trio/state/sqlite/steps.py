"""What the state may ask of the file, by name."""

from __future__ import annotations

from superlink_trio.state.sql import steps as sql
from superlink_trio.state.sqlite import sweeping
from superlink_trio.state.sqlite.messages import MessageQueries, MessageSteps
from superlink_trio.state.sqlite.transaction import Reading, Transaction


class Queries(sql.Queries, Reading):
    """See `durable.engine.Queries`."""

    @property
    def messages(self) -> MessageQueries:
        """What there is to ask about Flower 1.23 and later."""
        return MessageQueries(self.connection, now=self.now, limits=self.limits)


class Steps(sql.Steps, Queries, Transaction):
    """See `durable.engine.Transaction`."""

    give_back_space = sweeping.give_back_space
    evict_ended = sweeping.evict_ended

    @property
    def messages(self) -> MessageSteps:
        """What may be done to nodes, runs and messages of Flower 1.23 and later."""
        return MessageSteps(
            *(self.connection, self.path),
            me=self.me,
            changes=self.changes,
            now=self.now,
            limits=self.limits,
        )
