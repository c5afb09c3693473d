"""The nodes that are registered, and their keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import attrs
import trio

from superlink_trio.state import rules
from superlink_trio.state.ids import draw_id
from superlink_trio.state.interface import COME_BACK, FORGET, HEARTBEAT_TIMEOUT, Admission, Clock
from superlink_trio.state.limits import StateLimits

_FORGET_AGAIN_AFTER = 1.0  # while a flood of new nodes comes: each time looks at all nodes


@attrs.define(eq=False)
class Node:
    """One registered node."""

    online_until: float
    public_key: bytes = b""
    attended: int = 0

    def until(self, now: float) -> float:
        """Say when the node goes offline, if nothing else happens before."""
        return rules.online_until(self.online_until, attended=self.attended > 0, now=now)

    def online(self, now: float) -> bool:
        """Say whether the node is online."""
        return self.until(now) > now

    def renew(self, now: float) -> None:
        """Take a heartbeat: it only prolongs."""
        self.online_until = max(self.online_until, now + HEARTBEAT_TIMEOUT)


@attrs.frozen
class _Attendance(AbstractContextManager[None]):
    # Thousands of nodes are attended at a time: a generator would take several times the memory.

    node: Node
    now: Clock

    def __enter__(self) -> None:
        self.node.attended += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.node.attended -= 1
        if kind is trio.Cancelled and not self.node.attended:
            self.node.online_until = self.now() + COME_BACK
        else:
            self.node.renew(self.now())


class Nodes:
    """All nodes. `registered` is called with the id of each that is new, or has come back."""

    def __init__(self, clock: Clock, registered: Callable[[int], object]) -> None:
        self._now = clock
        self._registered = registered
        self._by_id: dict[int, Node] = {}
        self._by_key: dict[bytes, int] = {}
        self._deleted: dict[int, float] = {}
        self._forgot_at = -math.inf

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._by_id

    def get(self, node_id: int) -> Node | None:
        """Give a node, None when it is not registered."""
        return self._by_id.get(node_id)

    def of_key(self, public_key: bytes) -> int | None:
        """Give the node that is bound to a key."""
        return self._by_key.get(public_key)

    def online(self) -> Sequence[int]:
        """Give the ids of the nodes that are online now."""
        now = self._now()
        return [node_id for node_id, node in self._by_id.items() if node.online(now)]

    def create(self, online_until: float, public_key: bytes, limits: StateLimits) -> int:
        """Register a new node, or give the one that the key has, online anew."""
        own = self._by_key.get(public_key)
        if own is not None:
            self._by_id[own].online_until = online_until
            return own
        node_id = draw_id(self._by_id)
        self._register(node_id, online_until, limits)
        if public_key:
            self._bind(node_id, public_key)
        return node_id

    def bind(
        self, node_id: int, public_key: bytes, limits: StateLimits, *, readmit: bool
    ) -> Admission:
        """Say whether a node is the key's, and make it so where it may be."""
        node = self._by_id.get(node_id)
        admission = rules.bind(
            node_id,
            node_of_key=self._by_key.get(public_key),
            has_key=node is not None and bool(node.public_key),
            deleted=node_id in self._deleted,
            readmit=readmit,
        )
        if admission is Admission.READMITTED:
            if node is None:
                self._register(node_id, self._now(), limits)
            self._bind(node_id, public_key)
        return admission

    def _bind(self, node_id: int, public_key: bytes) -> None:
        self._by_id[node_id].public_key = public_key
        self._by_key[public_key] = node_id

    def admit(
        self, node_id: int, limits: StateLimits, *, readmit: bool
    ) -> tuple[Admission, Node | None]:
        """Say whether a node that calls is one of ours, register it where it may be; give both."""
        admission = rules.admit(
            node_id,
            registered=node_id in self._by_id,
            deleted=node_id in self._deleted,
            readmit=readmit,
        )
        if admission is Admission.READMITTED:
            self._register(node_id, -math.inf, limits)
        return admission, self._by_id.get(node_id)

    def _register(self, node_id: int, online_until: float, limits: StateLimits) -> None:
        self._evict_offline(limits)
        self._by_id[node_id] = Node(online_until)
        self._registered(node_id)

    def _evict_offline(self, limits: StateLimits) -> None:
        now = self._now()
        if len(self._by_id) >= limits.nodes and now >= self._forgot_at + _FORGET_AGAIN_AFTER:
            self._forgot_at = now
            self._forget(now)
        limits.check_node(len(self._by_id))

    def delete(self, node_id: int, limits: StateLimits) -> bool:
        """Forget a node and remember that it was deleted; say whether it was registered."""
        node = self._by_id.pop(node_id, None)
        if node is None:
            return False
        self._deleted[node_id] = self._now()
        while len(self._deleted) > limits.nodes:
            del self._deleted[next(iter(self._deleted))]
        self._by_key.pop(node.public_key, None)
        return True

    def attend(self, node_id: int) -> AbstractContextManager[None]:
        """See `State`."""
        node = self._by_id.get(node_id)
        return nullcontext() if node is None else _Attendance(node, self._now)

    async def sweep(self) -> None:
        """Forget what is old, now and then, until cancelled."""
        while True:
            await trio.sleep(FORGET / 24)
            old = self._now() - FORGET
            self._deleted = {node: when for node, when in self._deleted.items() if when > old}
            self._forget(old)

    def _forget(self, since: float) -> None:
        """Forget the nodes that were not online at any time since; those with a key stay."""
        self._by_id = {
            node_id: node
            for node_id, node in self._by_id.items()
            if not rules.gives_way(
                kept=bool(node.public_key), online_until=node.until(since), since=since
            )
        }
