"""What processes that serve the same nodes tell each other of them.

Each takes notes of what happens to nodes here, and gives them to the others now and then. Their
clocks differ, so what is given says how long ago that was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs
import trio

from superlink_trio.fleet.nodes import Node


@attrs.frozen(kw_only=True)
class NodeCall:
    """A node's last call. Times are seconds from now on, so those of the past are negative."""

    heard: float
    """When that was."""
    until: float | None
    """When the node goes offline; None: it has signed off."""
    idle: float | None = None
    """When it was known to work on nothing; None: never."""
    finished: Collection[str] = ()
    """What it works on no more, by its ids, of what others may have given it."""


@attrs.define
class _Noted:
    """A node that called; times are those of Trio's clock."""

    node: Node
    left: bool = False
    idle: float | None = None
    finished: set[str] = attrs.field(factory=set)

    def call(self, now: float) -> NodeCall:
        return NodeCall(
            heard=self.node.last_heartbeat - now,
            until=None if self.left else self.node.until - now,
            idle=None if self.idle is None else self.idle - now,
            finished=tuple(self.finished),
        )


@attrs.define
class Notes:
    """What was noted of nodes, and is not given yet."""

    _nodes: dict[int, _Noted] = attrs.field(factory=dict)

    def called(self, node_id: int, node: Node) -> None:
        """Note that a node is as it is now."""
        self._of(node_id, node)

    def left(self, node_id: int, node: Node) -> None:
        """Note that a node has signed off."""
        self._nodes[node_id] = _Noted(node, left=True)

    def idle(self, node_id: int, node: Node) -> None:
        """Note that a node works on nothing at this moment."""
        self._of(node_id, node).idle = trio.current_time()

    def finished(self, node_id: int, node: Node, works: Collection[str]) -> None:
        """Note that a node works on these no more."""
        self._of(node_id, node).finished.update(works)

    def take(self) -> Mapping[int, NodeCall]:
        """Give what was noted."""
        nodes, self._nodes, now = self._nodes, {}, trio.current_time()
        return {node_id: noted.call(now) for node_id, noted in nodes.items()}

    def _of(self, node_id: int, node: Node) -> _Noted:
        noted = self._nodes.get(node_id)
        if noted is None or noted.node is not node:  # it came again since it has left
            noted = self._nodes[node_id] = _Noted(node)
        return noted
