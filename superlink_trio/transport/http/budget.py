"""Bytes that calls share, and who gives way where there are not enough."""

from __future__ import annotations

from typing import Protocol

# Part of a budget that is made free in one go: who gives way is looked for among thousands.
_SLACK = 1 / 256


class Full(Exception):
    """There is no room for so many bytes."""


class Sender(Protocol):
    """Somebody whose request is on its way."""

    @property
    def seconds_left(self) -> float:
        """How long it will be on its way, as far as can be told."""

    def give_way(self) -> None:
        """End, and give back all that was taken."""


class Budget:
    """Room for so many bytes at the same time, and the senders that have some of it for now.

    They have taken no more than they have brought. Where that fills it, those give way that will
    have it for longest: whoever trickles, or has stalled, long before anybody who is fast, and a
    large request that has begun before one that will soon be here.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._slack = int(size * _SLACK)
        self._senders: set[Sender] = set()

    def add(self, sender: Sender) -> None:
        """Remember who may give way, until `discard`."""
        self._senders.add(sender)

    def discard(self, sender: Sender) -> None:
        """Forget a sender: its request is here, or never will be."""
        self._senders.discard(sender)

    def take(self, size: int, sender: Sender | None = None) -> None:
        """Keep room for `size` bytes until they are given back.

        Raises Full if there is none, or if it is the sender that takes it who has to give way.
        """
        if size > self._free:
            self._make_room(size, sender)
        self._free -= size

    def give_back(self, size: int) -> None:
        """Let others have the room of `size` bytes."""
        self._free += size

    def _make_room(self, size: int, sender: Sender | None) -> None:
        for other in sorted(self._senders, key=lambda other: -other.seconds_left):
            if other is sender:
                break
            other.give_way()
            if size + self._slack <= self._free:
                break
        if size > self._free:
            raise Full
