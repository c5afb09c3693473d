"""Everybody who waits at a store, and what wakes them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from superlink_trio.state.arrivals import Arrivals, Survey
from superlink_trio.state.gatherings import Gatherings
from superlink_trio.state.parked import Parked


class Waiting:
    """Pulls of nodes, listeners for many nodes, and drivers."""

    def __init__(self) -> None:
        self.pulls = Parked()
        self.drivers = Gatherings()
        self._listeners: set[Arrivals] = set()

    @contextmanager
    def arrivals(self, node_ids: Collection[int], survey: Survey) -> Iterator[Arrivals]:
        """Let somebody listen inside the block for tasks of these nodes."""
        listener = Arrivals(node_ids, survey)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)

    def notify_queued(self, node_id: int) -> None:
        """Wake a pull: a task was queued for its node."""
        self.pulls.wake_one(node_id)
        self.notify_listeners(node_id)

    def notify_listeners(self, node_id: int, tasks: int = 1) -> None:
        """Tell listeners that a node may have got tasks."""
        for listener in self._listeners:
            listener.notify(node_id, tasks)

    def look_again(self) -> None:
        """Let everybody look again: nobody knows what they missed."""
        self.pulls.wake_everyone()
        self.drivers.look_again()
        for listener in self._listeners:
            listener.look_again()
