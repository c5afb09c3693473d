"""What the state may ask of PostgreSQL, by name."""

from __future__ import annotations

from typing import NoReturn

import attrs

from superlink_trio.state.interface import StateUnavailable
from superlink_trio.state.postgres.processes import Watch
from superlink_trio.state.postgres.transaction import Reading, Transaction
from superlink_trio.state.sql import steps as sql


class Queries(sql.Queries, Reading):
    """See `durable.engine.Queries`."""

    @property
    def messages(self) -> NoReturn:
        """Say that there is no place yet for nodes of Flower 1.23 and later."""
        raise _no_messages()


@attrs.define(eq=False, slots=False)
class Steps(sql.Steps, Queries, Transaction):
    """See `durable.engine.Transaction`."""

    watch: Watch

    @property
    def messages(self) -> NoReturn:
        """Say that there is no place yet for nodes of Flower 1.23 and later."""
        raise _no_messages()

    def give_back_space(self) -> bool:
        """Leave this to PostgreSQL, which does so by itself (autovacuum)."""
        return False

    def evict_ended(self) -> None:
        """See `durable.engine.Transaction`."""
        self.watch.evict_ended(self)


def _no_messages() -> StateUnavailable:
    return StateUnavailable(
        "PostgreSQL keeps no nodes of Flower 1.23 and later in this version: use a file for them"
    )
