"""Registered nodes, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import attrs

from superlink_trio.state.interface import Clock
from superlink_trio.state.limits import StateLimits
from superlink_trio.state.messages.ids import draw_new_id
from superlink_trio.state.messages.interface import NotFound, NotPermitted
from superlink_trio.wire.messages import NodeRecord


class Nodes:
    """Nodes by their ids, and by their keys."""

    def __init__(self, clock: Clock, limits: StateLimits) -> None:
        self._now = clock
        self._limits = limits
        self._by_id: dict[int, NodeRecord] = {}
        self._by_key: dict[bytes, int] = {}
        self._unregistered: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._by_id

    def all(self) -> Sequence[NodeRecord]:
        """Give every node."""
        return tuple(self._by_id.values())

    def register(self, public_key: bytes, name: str, location: str) -> int:
        """See `MessageState.register_node`."""
        if public_key in self._by_key:
            raise NotPermitted("the key has a node already: unregister that one first")
        node_id = draw_new_id(self._by_id)
        self._add(node_id, public_key, name, location)
        return node_id

    def _add(self, node_id: int, public_key: bytes, name: str = "", location: str = "") -> None:
        self._limits.check_node(len(self._by_id))
        self._by_key[public_key] = node_id
        self._by_id[node_id] = NodeRecord(
            node_id=node_id,
            public_key=public_key,
            registered_at=self._now(),
            name=name,
            location=location,
        )

    def admit(self, node_id: int, public_key: bytes, *, readmit: bool) -> bool:
        """See `MessageState.admit_node`."""
        known = self._by_key.get(public_key)
        if known is not None or node_id in self._by_id:
            return known == node_id
        if not readmit or node_id in self._unregistered:
            return False
        self._add(node_id, public_key)
        return True

    def activate(self, public_key: bytes, interval: float) -> int:
        """See `MessageState.activate_node`."""
        node_id = self._by_key.get(public_key)
        if node_id is None:
            raise NotFound("no node is registered with this key")
        self._change(
            node_id,
            activated_at=self._now(),
            deactivated_at=None,
            heartbeat_interval=interval,
            online_until=self._now() + 2 * interval,
        )
        return node_id

    def heartbeat(self, node_id: int, interval: float | None) -> bool:
        """See `MessageState.heartbeat`."""
        node = self._by_id.get(node_id)
        if node is None:
            return False
        interval = node.heartbeat_interval if interval is None else interval
        until = max(node.online_until, self._now() + 2 * interval)
        self._change(node_id, heartbeat_interval=interval, online_until=until, deactivated_at=None)
        return True

    def deactivate(self, node_id: int) -> bool:
        """See `MessageState.deactivate_node`."""
        if node_id not in self._by_id:
            return False
        self._change(node_id, deactivated_at=self._now(), online_until=0.0)
        return True

    def unregister(self, node_id: int) -> bool:
        """See `MessageState.unregister_node`."""
        node = self._by_id.pop(node_id, None)
        if node is None:
            return False
        del self._by_key[node.public_key]
        self._unregistered[node_id] = None
        if len(self._unregistered) > self._limits.nodes:
            self._unregistered.popitem(last=False)
        return True

    def online_until(self, node_id: int) -> float:
        """Say when a node goes offline, in Unix seconds; 0 for one that is not registered."""
        node = self._by_id.get(node_id)
        return 0.0 if node is None else node.online_until

    def online(self) -> Sequence[int]:
        """Give the ids of the nodes that are online."""
        now = self._now()
        return [node_id for node_id, node in self._by_id.items() if node.online_until > now]

    def _change(self, node_id: int, **changes: Any) -> None:
        self._by_id[node_id] = attrs.evolve(self._by_id[node_id], **changes)
