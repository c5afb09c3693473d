"""Registered nodes, in memory."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import trio

from superlink_trio.state.interface import FORGET, Admission, Clock
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.ids import draw_new_id
from superlink_trio.state.messages.interface import EVICT_AFTER, NotFound
from superlink_trio.state.messages.roster import Roster
from superlink_trio.wire.messages import NodeRecord

_LOOK_AGAIN_AFTER = 1.0  # seconds between two looks at all nodes for those that give way


class Nodes(Roster):
    """Nodes, and those that were unregistered. `forgotten` is called with each that is gone."""

    def __init__(
        self, clock: Clock, limits: StateLimits, forgotten: Callable[[int], object]
    ) -> None:
        super().__init__()
        self._forgotten = forgotten
        self._now = clock
        self._limits = limits
        self._unregistered: OrderedDict[int, None] = OrderedDict()
        # Nodes that give way, and since when they are offline, the one first that is it longest:
        # to find them, all nodes have to be looked at.
        self._next_to_go: deque[tuple[float, int]] = deque()
        self._look_again_at = -math.inf

    def register(self, public_key: bytes, *, itself: bool, name: str, location: str) -> int:
        """See `MessageState.register_node`."""
        if self.of_key(public_key) is not None:
            raise rules.key_in_use()
        node = NodeRecord(
            node_id=draw_new_id(self),
            public_key=public_key,
            registered_at=self._now(),
            registered_itself=itself,
            name=name,
            location=location,
        )
        self._add(node)
        return node.node_id

    def _add(self, node: NodeRecord) -> None:
        if len(self) >= self._limits.nodes:
            self._evict_one()
        self._limits.check_node(len(self))
        self.put(node)

    def _evict_one(self) -> None:
        """Forget the node that is offline longest, if one gives way."""
        now = self._now()
        if not self._next_to_go and now >= self._look_again_at:
            self._look_again_at = now + _LOOK_AGAIN_AFTER
            offline = ((rules.offline_since(node), node) for node in self._offline(EVICT_AFTER))
            found = sorted((since, node.node_id) for since, node in offline)
            self._next_to_go = deque(found)
        while self._next_to_go:
            since, node_id = self._next_to_go.popleft()
            node = self.get(node_id)
            # Who is online again meanwhile is not, or no more, who is offline longest.
            if node is not None and rules.offline_since(node) == since:
                self._forget(node_id)
                return

    async def sweep(self) -> None:
        """Forget those who registered themselves and were not online for long, until cancelled."""
        while True:
            await trio.sleep(FORGET / 24)
            for node in self._offline(FORGET):
                self._forget(node.node_id)

    def _offline(self, seconds: float) -> Sequence[NodeRecord]:
        """Give the nodes that give way after so many seconds offline."""
        since = self._now() - seconds
        # Most are online, which is seen faster than the rule is asked.
        offline = (node for node in self.all() if node.online_until <= since)
        return [node for node in offline if rules.gives_way(node, since)]

    def _forget(self, node_id: int) -> bool:
        known = self.remove(node_id)
        if known:
            self._forgotten(node_id)
        return known

    def admit(self, node_id: int, public_key: bytes, *, readmit: bool) -> bool:
        """See `MessageState.admit_node`."""
        known = self.of_key(public_key)
        admission = rules.admit(
            node_id,
            node_of_key=None if known is None else known.node_id,
            registered=node_id in self,
            unregistered=node_id in self._unregistered,
            readmit=readmit,
        )
        if admission is Admission.READMITTED:
            self._add(
                NodeRecord(
                    node_id=node_id,
                    public_key=public_key,
                    registered_at=self._now(),
                    registered_itself=True,
                )
            )
        return admission in (Admission.KNOWN, Admission.READMITTED)

    def activate(self, public_key: bytes, interval: float) -> int:
        """See `MessageState.activate_node`."""
        node = self.of_key(public_key)
        if node is None:
            raise NotFound(rules.NO_NODE)
        self.put(rules.activated(node, interval, self._now()))
        return node.node_id

    def heartbeat(self, node_id: int, interval: float | None) -> bool:
        """See `MessageState.heartbeat`."""
        node = self.get(node_id)
        if node is not None:
            self.put(rules.heard_of(node, interval, self._now()))
        return node is not None

    def deactivate(self, node_id: int) -> bool:
        """See `MessageState.deactivate_node`."""
        node = self.get(node_id)
        if node is not None:
            self.put(rules.deactivated(node, self._now()))
        return node is not None

    def unregister(self, node_id: int) -> bool:
        """See `MessageState.unregister_node`."""
        if not self._forget(node_id):
            return False
        self._unregistered[node_id] = None
        if len(self._unregistered) > self._limits.nodes:
            self._unregistered.popitem(last=False)
        return True
