"""One listener for many nodes: who of them may have a task to take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

import trio

Survey = Callable[[], Awaitable[Iterable[int]]]
"""Asks the store for the nodes that have a task to take."""


class Arrivals:
    """The nodes among many that may have a task to take, for one listener.

    A node that is told of twice before the listener asks is given once. What a store tells costs
    the same whatever the number of nodes.
    """

    def __init__(self, node_ids: Collection[int], survey: Survey) -> None:
        self._node_ids = frozenset(node_ids)
        self._survey = survey
        self._unsure = True
        self._waiting: dict[int, None] = {}
        self._something = trio.Event()

    def __len__(self) -> int:
        """How many nodes are known to wait for the listener."""
        return len(self._waiting)

    def tell(self, node_id: int) -> None:
        """Say that a node may have a task. The listener may say so too, to be told later."""
        if node_id in self._node_ids:
            self._waiting[node_id] = None
            self._something.set()

    def look_again(self) -> None:
        """Say that nobody knows what was missed: the store is asked anew."""
        self._unsure = True
        self._something.set()

    async def next(self) -> int:
        """Wait for a node that may have a task, and give it: who has waited longest comes first.

        If cancelled, nothing is lost. Raises StateUnavailable.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._unsure:
                await self._ask()
            if self._waiting:
                node_id = next(iter(self._waiting))
                del self._waiting[node_id]
                return node_id
            self._something = trio.Event()
            await self._something.wait()

    async def _ask(self) -> None:
        # Whatever is told while the store looks counts as well.
        self._unsure = False
        try:
            queued = await self._survey()
        except BaseException:
            self._unsure = True
            raise
        for node_id in queued:
            self.tell(node_id)
