"""What a step notifies of, once it is committed."""

from __future__ import annotations

import enum
from typing import Any

import attrs


class ChangeKind(enum.IntEnum):
    """What may have changed. The numbers are stored: they keep their meaning for ever."""

    QUEUED = 1
    """A TaskIns can be taken; key: its node."""
    HANDED_OVER = 2
    """A TaskIns was handed over, so that it may turn out to be lost; key: its node."""
    SETTLED = 3
    """A TaskIns is answered or gone; key: its id, value: the size of the answer."""
    GONE = 4
    """A node is not registered any more; key: the node."""
    KNOWN = 5
    """A node is registered; key: the node, value: until when it is online."""
    EMPTY = 6
    """Nothing can be taken; key: the node, value: over which connection, None: over any."""
    BOUND = 7
    """A node belongs to a key; key: the node, value: the key."""
    PULLED = 8
    """A node came with a pull to another process than before; key: the node."""


_FOR_OTHERS = frozenset(
    {
        ChangeKind.QUEUED,
        ChangeKind.HANDED_OVER,
        ChangeKind.SETTLED,
        ChangeKind.GONE,
        ChangeKind.PULLED,
    }
)


@attrs.frozen
class Change:
    """One thing that changed."""

    kind: ChangeKind
    key: Any
    value: Any = None

    @property
    def concerns_others(self) -> bool:
        """Whether the other processes over the store have to know; the rest is our own cache."""
        return self.kind in _FOR_OTHERS
