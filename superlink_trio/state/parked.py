"""Pulls that wait at their nodes until there is a task to take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

import attrs
import trio


class Parked:
    """Pulls that wait, woken one by one: of several at one node the one that came last.

    An older one may be over a connection that is dead without anybody knowing, and would take the
    task with it.
    """

    def __init__(self) -> None:
        # By node; the oldest first.
        self._places: dict[int, dict[Place, None]] = {}

    def at(self, node_id: int) -> Place:
        """Give a pull a place, which it has from entering to leaving it."""
        return Place(self, node_id)

    def wake_one(self, node_id: int) -> None:
        """Wake the one that came last to a node."""
        places = self._places.get(node_id)
        if places:
            place, _ = places.popitem()
            place.woken.set()

    def wake_all(self, node_id: int) -> None:
        """Wake everyone who waits at a node."""
        while self._places.get(node_id):
            self.wake_one(node_id)

    def wake_everyone(self) -> None:
        """Wake everyone at every node: nobody knows what they missed."""
        for node_id in tuple(self._places):
            self.wake_all(node_id)

    def replace(self, node_id: int) -> None:
        """Wake everyone who waits at a node, and let them know that another pull waits instead."""
        for place in self._places.get(node_id, ()):
            place.replaced = True
        self.wake_all(node_id)

    def enter(self, place: Place) -> None:
        """Let a pull be woken."""
        self._places.setdefault(place.node_id, {})[place] = None

    def leave(self, place: Place) -> None:
        """Let a pull be woken no more."""
        places = self._places.get(place.node_id, {})
        places.pop(place, None)
        if not places:
            self._places.pop(place.node_id, None)


@attrs.define(eq=False)
class Place(AbstractContextManager["Place"]):
    """Where one pull waits.

    If the block is left by an exception although its pull was woken, another one is woken.
    """

    # Thousands of pulls wait at a time: a generator would take several times the memory.

    parked: Parked
    node_id: int
    woken: trio.Event = attrs.field(factory=trio.Event)
    """Set when there may be a task for the node."""
    replaced: bool = False
    """Whether the node has come with a newer pull since, to which its tasks belong."""

    def __enter__(self) -> Place:
        self.parked.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.parked.leave(self)
        if kind is not None and self.woken.is_set():
            self.parked.wake_one(self.node_id)
