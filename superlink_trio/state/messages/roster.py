"""Registered nodes, as a process knows them without asking anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from superlink_trio.state.messages.interface import MessagesCensus
from superlink_trio.wire.messages import NodeRecord, RunRecord, RunStatus


class Roster:
    """Nodes by their ids, and by their keys."""

    def __init__(self) -> None:
        self._by_id: dict[int, NodeRecord] = {}
        self._by_key: dict[bytes, int] = {}

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> Sequence[NodeRecord]:
        """Give every node."""
        return tuple(self._by_id.values())

    def get(self, node_id: int) -> NodeRecord | None:
        """Give a node."""
        return self._by_id.get(node_id)

    def of_key(self, public_key: bytes) -> NodeRecord | None:
        """Give the node of a key."""
        node_id = self._by_key.get(public_key)
        return None if node_id is None else self._by_id[node_id]

    def put(self, node: NodeRecord) -> None:
        """Note a node, or what became of one; its key stays."""
        self._by_id[node.node_id] = node
        self._by_key[node.public_key] = node.node_id

    def remove(self, node_id: int) -> bool:
        """Forget a node; say whether it was known."""
        node = self._by_id.pop(node_id, None)
        if node is None:
            return False
        del self._by_key[node.public_key]
        return True

    def clear(self) -> None:
        """Forget every node."""
        self._by_id.clear()
        self._by_key.clear()

    def online_until(self, node_id: int) -> float:
        """Say when a node goes offline, in Unix seconds; 0 for one that is not registered."""
        node = self._by_id.get(node_id)
        return 0.0 if node is None else node.online_until

    def census(self, runs: Iterable[RunRecord], now: float) -> MessagesCensus:
        """Count nodes, and runs that are not over."""
        counted = Counter(run.status for run in runs)
        return MessagesCensus(
            nodes=len(self),
            nodes_online=len(self.online(now)),
            runs={one: counted[one] for one in RunStatus if one is not RunStatus.FINISHED},
        )

    def online(self, now: float) -> Sequence[int]:
        """Give the ids of the nodes that are online."""
        return [node_id for node_id, node in self._by_id.items() if node.online_until > now]
