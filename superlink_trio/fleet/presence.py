"""Which nodes are there, and how long their pulls may be held by what is known of them.

A node of Flower 1.9 to 1.11 that is stopped signs off (DeleteNode) only if its last call, pings
aside, was answered. And one that has a key never ends if the signal finds it in the middle of a
call: it signs off and hangs until the next signal.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio

from superlink_trio.state.interface import HEARTBEAT_TIMEOUT

AFTER_WORK = 4.0
"""Seconds for which a node with a key is held, and only after it has answered a task: its driver
may sleep for 3 s before it goes on to the next round."""

DRAIN_LIMIT = 1.0
"""Seconds for which nodes may sign off from a server that is stopping."""

SILENCE = 0.4
"""Seconds in which no node has signed off, so that none does any more."""


@attrs.define
class _Node:
    last_heartbeat: float
    """When, by Trio's clock."""
    answered: bool = False
    """Whether its last call, pings aside, has got its answer."""
    worked: bool = False
    """Whether that call brought the answer to a task."""


class Presence:
    """The nodes that called this API, those heard of last."""

    def __init__(self, hold: Callable[[], float], most: Callable[[], int]) -> None:
        """`hold` gives the seconds for which a pull is held where nothing speaks against it.

        `most` gives how many nodes are remembered. Both may change.
        """
        self.hold = hold
        self._most = most
        self._nodes: OrderedDict[int, _Node] = OrderedDict()
        self._signed_off = trio.Event()

    def joined(self, node_id: int) -> None:
        """Note that a node was given its id."""
        self._renew(node_id).answered = True

    def pinged(self, node_id: int) -> None:
        """Note that a node is still there."""
        self._renew(node_id)

    def pulls(self, node_id: int, *, has_key: bool) -> float:
        """Note that a node asks for a task; say for how many seconds it may be held."""
        node = self._renew(node_id)
        if has_key:
            hold = min(self.hold(), AFTER_WORK) if node.worked else 0.0
        else:
            hold = self.hold() if node.answered else 0.0
        node.answered = node.worked = False
        return hold

    def answered(self, node_id: int) -> None:
        """Note that a node which asked for a task has got an answer."""
        if node_id in self._nodes:
            self._renew(node_id).answered = True

    def worked(self, node_id: int) -> None:
        """Note that a task was answered in the name of a node: a stranger may have used it."""
        if node_id in self._nodes:
            node = self._renew(node_id)
            node.answered = node.worked = True
            self._drain_goes_on()

    def left(self, node_id: int) -> None:
        """Note that a node has signed off."""
        self._nodes.pop(node_id, None)
        self._drain_goes_on()

    async def drain(self) -> None:
        """Wait until no node signs off any more, but for `DRAIN_LIMIT` seconds at most.

        Returns at once where no node is there.
        """
        with trio.move_on_after(DRAIN_LIMIT):
            while self._anybody():
                with trio.move_on_after(SILENCE) as silence:
                    await self._signed_off.wait()
                if silence.cancelled_caught:
                    return

    def _drain_goes_on(self) -> None:
        self._signed_off.set()
        self._signed_off = trio.Event()

    def _anybody(self) -> bool:
        # The last of them was heard of last.
        newest = next(reversed(self._nodes.values()), None)
        until = -math.inf if newest is None else newest.last_heartbeat + HEARTBEAT_TIMEOUT
        return trio.current_time() < until

    def _renew(self, node_id: int) -> _Node:
        now = trio.current_time()
        node = self._nodes.get(node_id)
        if node is None:
            while self._nodes and len(self._nodes) >= self._most():
                self._nodes.popitem(last=False)
            node = self._nodes[node_id] = _Node(now)
        node.last_heartbeat = now
        self._nodes.move_to_end(node_id)
        return node
