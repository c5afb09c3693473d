"""The simulated nodes: registered once, online while they are attended, deleted at last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack, suppress

import trio

from superlink_trio.simulation.backend import Node
from superlink_trio.simulation.source import Source
from superlink_trio.state import StateUnavailable

_GRACE = 0.2
"""Seconds that deleting the nodes may take once there is no grace left."""

_AT_ONCE = 256
"""Nodes that are registered or deleted at once: as many steps as fit into one commit."""


class Nodes:
    """Up to `count` nodes of a source. Node i has the partition id i."""

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self._count = count
        self._nodes: dict[int, Node] = {}

    def __getitem__(self, node_id: int) -> Node:
        return self._nodes[node_id]

    @property
    def ids(self) -> Collection[int]:
        """Those that are registered."""
        return self._nodes.keys()

    def attend(self, online: ExitStack) -> None:
        """Keep the registered nodes online until the stack is closed."""
        for node_id in self._nodes:
            online.enter_context(self._source.attend(node_id))

    async def register(self, online: ExitStack) -> None:
        """Register the nodes that are not registered yet, and keep them online as well.

        Raises StateUnavailable.
        """

        async def register(partition_id: int) -> None:
            node_id = await self._source.create_node(partition_id)
            self._nodes[node_id] = Node(
                node_id=node_id,
                partition_id=partition_id,
                num_partitions=self._count,
            )
            online.enter_context(self._source.attend(node_id))

        known = {node.partition_id for node in self._nodes.values()}
        await _for_each(register, [one for one in range(self._count) if one not in known])

    async def delete(self) -> None:
        """Delete the nodes, within the grace if there is some left."""
        try:
            await self._delete()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE):
                await self._delete()
            # Whoever is left goes offline by itself.
            self._nodes.clear()

    async def _delete(self) -> None:
        async def delete(node_id: int) -> None:
            with suppress(StateUnavailable):
                await self._source.delete_node(node_id)
            del self._nodes[node_id]

        await _for_each(delete, tuple(self._nodes))


async def _for_each(call: Callable[[int], Awaitable[None]], items: Sequence[int]) -> None:
    for start in range(0, len(items), _AT_ONCE):
        async with trio.open_nursery() as nursery:
            for item in items[start : start + _AT_ONCE]:
                nursery.start_soon(call, item)
