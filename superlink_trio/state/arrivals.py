"""One listener for many nodes: who of them may have a task to take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeAlias

import trio

Survey: TypeAlias = Callable[[], Awaitable[Mapping[int, int]]]
"""Asks the store how many tasks there are to take, by node; those that have none are left out."""


class Arrivals:
    """The nodes among many that may have a task to take, for one listener.

    A node that was given is not given again before the listener is done with it, and then as often
    as it has got more tasks. What a store notifies of costs the same whatever the number of nodes.
    """

    def __init__(self, node_ids: Collection[int], survey: Survey) -> None:
        self._node_ids = frozenset(node_ids)
        self._survey = survey
        self._unsure = True
        # How many tasks each may have: never fewer than it has.
        self._waiting: dict[int, int] = {}
        self._given: dict[int, int] = {}
        self._something = trio.Event()

    def __len__(self) -> int:
        """How many nodes wait for the listener."""
        return len(self._waiting)

    def notify(self, node_id: int, tasks: int = 1) -> None:
        """Take note that a node may have got tasks."""
        if node_id in self._given:
            self._given[node_id] += tasks
        elif node_id in self._node_ids:
            self._waiting[node_id] = self._waiting.get(node_id, 0) + tasks
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
                self._given[node_id] = self._waiting.pop(node_id) - 1
                return node_id
            self._something = trio.Event()
            await self._something.wait()

    def done(self, node_id: int) -> None:
        """Say that a node that was given may be given again, for its next task."""
        more = self._given.pop(node_id)
        if more:
            self.notify(node_id, more)

    async def _ask(self) -> None:
        # Earlier notices are among what the store will find; those that come meanwhile may not be.
        self._unsure = False
        self._waiting.clear()
        self._given = dict.fromkeys(self._given, 0)
        try:
            queued = await self._survey()
        except BaseException:
            self._unsure = True
            raise
        for node_id, tasks in queued.items():
            self.notify(node_id, tasks)
