"""What the state may ask of PostgreSQL, by name."""

from __future__ import annotations

import attrs

from superlink_trio.state.postgres.messages import MessageQueries, MessageSteps
from superlink_trio.state.postgres.processes import Watch
from superlink_trio.state.postgres.transaction import Reading, Transaction
from superlink_trio.state.sql import steps as sql


class Queries(sql.Queries, Reading):
    """See `durable.engine.Queries`."""

    @property
    def messages(self) -> MessageQueries:
        """What there is to ask about Flower 1.23 and later."""
        return MessageQueries(self.connection, now=self.now, limits=self.limits)


@attrs.define(eq=False, slots=False)
class Steps(sql.Steps, Queries, Transaction):
    """See `durable.engine.Transaction`."""

    watch: Watch

    @property
    def messages(self) -> MessageSteps:
        """What may be done to nodes, runs and messages of Flower 1.23 and later."""
        return MessageSteps(
            *(self.connection, self.watch),
            me=self.me,
            changes=self.changes,
            now=self.now,
            limits=self.limits,
        )

    def give_back_space(self) -> bool:
        """Leave this to PostgreSQL, which does so by itself (autovacuum)."""
        return False

    def evict_ended(self) -> None:
        """See `durable.engine.Transaction`."""
        self.watch.evict_ended(self)
