"""What a process knows of the database without asking it, as far as the last commit."""

from __future__ import annotations

from collections.abc import Sequence

from superlink_trio.state.durable.engine import Change, ChangeKind, Committed
from superlink_trio.state.durable.heartbeats import Heartbeats
from superlink_trio.state.interface import Clock
from superlink_trio.state.waiting import Waiting


class Known:
    """Caches, and those who wait: every change that is committed comes by here, in commit order."""

    def __init__(self, clock: Clock) -> None:
        self.heartbeats = Heartbeats()
        self.waiting = Waiting(clock)
        self.others: Sequence[str] = ()
        """The names of the other processes over the database."""
        # Nodes for which nothing can be taken, and over which connection (None: over any).
        self._empty: dict[int, str | None] = {}
        # Nodes that have pulled from no other process since they pulled from this one.
        self._pulled_here: set[int] = set()
        # Nodes of which it is certain that they are bound to a key.
        self._keys: dict[int, bytes] = {}

    def is_bound(self, node_id: int, public_key: bytes) -> bool:
        """Whether a node is bound to a key for certain."""
        return self._keys.get(node_id) == public_key

    def has_none(self, node_id: int) -> bool:
        """Whether there is certainly no task for a node, but for what it may have lost."""
        return node_id in self._empty

    def cannot_take(self, node_id: int, connection: str) -> bool:
        """Whether there is certainly nothing to take for a node over a connection."""
        return node_id in self._empty and self._empty[node_id] in (None, connection)

    def pulls_elsewhere(self, node_id: int) -> bool:
        """Whether a node may have a pull that waits at another process."""
        return bool(self.others) and node_id not in self._pulled_here

    def pulls_here(self, node_id: int) -> None:
        """Note that a node has pulled from this process, and the others know."""
        self._pulled_here.add(node_id)

    def committed(self, committed: Committed) -> bool:
        """Take note of a commit; say whether the other processes have to be notified of it."""
        self.others = committed.others
        if committed.missed_news:
            self.look_again()
        own = [change for performed in committed.performed for change in performed.changes]
        for change in (*committed.news, *own):
            self._note(change)
        return committed.told_others

    def _note(self, change: Change) -> None:
        match change.kind:
            case ChangeKind.QUEUED:
                self._empty.pop(change.key, None)
                self.waiting.notify_queued(change.key)
            case ChangeKind.HANDED_OVER:
                self._empty.pop(change.key, None)
                self.waiting.notify_handed_over(change.key)
            case ChangeKind.EMPTY:
                self._empty[change.key] = change.value
            case ChangeKind.SETTLED:
                self.waiting.drivers.settle(change.key, change.value)
            case ChangeKind.KNOWN:
                self.heartbeats.register(change.key, change.value)
            case ChangeKind.BOUND:
                self._keys[change.key] = change.value
            case ChangeKind.PULLED:
                self._pulled_here.discard(change.key)
                self.waiting.pulls.replace(change.key)
            case ChangeKind.GONE:
                self._empty.pop(change.key, None)
                self._keys.pop(change.key, None)
                self._pulled_here.discard(change.key)
                self.heartbeats.forget(change.key)
                self.waiting.pulls.wake_all(change.key)
                self.waiting.drivers.look_again()

    def look_again(self) -> None:
        """Take nothing for certain any more, and let everybody look again."""
        self._empty.clear()
        self._keys.clear()
        self._pulled_here.clear()
        self.heartbeats.forget_all()
        self.waiting.look_again()
