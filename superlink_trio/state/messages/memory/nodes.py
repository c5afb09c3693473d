"""Registered nodes, in memory."""

from __future__ import annotations

from collections import OrderedDict

from superlink_trio.state.interface import Admission, Clock
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.ids import draw_new_id
from superlink_trio.state.messages.interface import NotFound
from superlink_trio.state.messages.roster import Roster
from superlink_trio.wire.messages import NodeRecord


class Nodes(Roster):
    """Nodes, and those that were unregistered."""

    def __init__(self, clock: Clock, limits: StateLimits) -> None:
        super().__init__()
        self._now = clock
        self._limits = limits
        self._unregistered: OrderedDict[int, None] = OrderedDict()

    def register(self, public_key: bytes, name: str, location: str) -> int:
        """See `MessageState.register_node`."""
        if self.of_key(public_key) is not None:
            raise rules.key_in_use()
        node_id = draw_new_id(self)
        self._add(node_id, public_key, name, location)
        return node_id

    def _add(self, node_id: int, public_key: bytes, name: str = "", location: str = "") -> None:
        self._limits.check_node(len(self))
        self.put(
            NodeRecord(
                node_id=node_id,
                public_key=public_key,
                registered_at=self._now(),
                name=name,
                location=location,
            )
        )

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
            self._add(node_id, public_key)
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
        if not self.remove(node_id):
            return False
        self._unregistered[node_id] = None
        if len(self._unregistered) > self._limits.nodes:
            self._unregistered.popitem(last=False)
        return True
