"""Who is not known here is asked for in the database, where another process may have put it."""

from __future__ import annotations

from collections.abc import Callable

from superlink_trio.state.durable import DurableState
from superlink_trio.state.messages.durable.engine import MessageQueries, MessageTransaction
from superlink_trio.state.messages.durable.known import Known, LiveRun, digest_of
from superlink_trio.wire.messages import NodeRecord


class Lookups:
    """Finds nodes and runs, among what is known or else in the database."""

    def __init__(self, state: DurableState, known: Known) -> None:
        self._state = state
        self._known = known

    async def node(self, node_id: int) -> NodeRecord | None:
        """Find a node."""
        if node_id not in self._known.nodes:
            await self._look(
                lambda db: db.has_node(node_id), lambda tx: tx.look_at_nodes([node_id])
            )
        return self._known.nodes.get(node_id)

    async def node_of_key(self, public_key: bytes) -> NodeRecord | None:
        """Find the node of a key."""
        if self._known.nodes.of_key(public_key) is None:
            await self._look(
                lambda db: db.has_node_of_key(public_key),
                lambda tx: tx.look_at_node_of_key(public_key),
            )
        return self._known.nodes.of_key(public_key)

    async def look_at_run(self, run_id: int) -> None:
        """Let a run be known, if there is one that is not over."""
        if run_id not in self._known.runs:
            await self._look(lambda db: db.has_run(run_id), lambda tx: tx.look_at_runs([run_id]))

    async def run_of_token(self, token: str) -> LiveRun | None:
        """Find the run of a token, None if that is not valid (any more)."""
        if self._known.of_token(token) is None:
            digest = digest_of(token)
            await self._look(
                lambda db: db.has_token(digest), lambda tx: tx.look_at_run_of_token(digest)
            )
        return self._known.of_token(token)

    async def _look(
        self,
        is_there: Callable[[MessageQueries], bool],
        step: Callable[[MessageTransaction], None],
    ) -> None:
        # What strangers ask for is not there, and to see that they need not wait for a commit. What
        # is there is looked up in one, so that nothing newer is overwritten.
        if not self._state.shares_messages:
            return
        if await self._state.read(lambda db: is_there(db.messages)):
            await self._state.write(lambda tx: step(tx.messages), durable=False)
