"""Which nodes are there, and how long their pulls may be held by what is known of them.

A node of Flower 1.9 to 1.11 that is stopped signs off (DeleteNode) only if its last call, pings
aside, was answered. And one that has a key never ends if the signal finds it in the middle of a
call: it signs off and hangs until the next signal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import trio

from superlink_trio.fleet.attendance import MOST_VIEWS, Attendance
from superlink_trio.fleet.nodes import Node, NodeView
from superlink_trio.state.interface import COME_BACK, HEARTBEAT_TIMEOUT, Clock
from superlink_trio.state.rules import bounded_interval
from superlink_trio.wire.tasks import Task

AFTER_WORK = 4.0
"""Seconds for which a node with a key is held, and only after it has answered a task: its driver
may sleep for 3 s before it goes on to the next round."""

DRAIN_LIMIT = 1.0
"""Seconds for which nodes may sign off from a server that is stopping."""

SILENCE = 0.4
"""Seconds in which no node has signed off, so that none does any more."""


class Presence:
    """The nodes that called this API, those heard of last.

    It outlives the API: what is known of nodes is true still when that is served again.
    """

    def __init__(
        self, hold: Callable[[], float], most: Callable[[], int], clock: Clock = time.time
    ) -> None:
        """`hold` gives the seconds for which a pull is held where nothing speaks against it.

        `most` gives how many nodes are remembered. Both may change.
        """
        self.hold = hold
        self._attendance = Attendance(most, clock, work="task")
        self._signed_off = trio.Event()

    @property
    def attendance(self) -> Attendance:
        """What is known of these nodes, and concerns other processes that serve them."""
        return self._attendance

    def joined(self, node_id: int, ping_interval: float) -> None:
        """Note that a node was given its id, and says how often it will ping, in seconds."""
        node = self._attendance.renew(node_id)
        node.answered = True
        self._pinged(node_id, node, bounded_interval(ping_interval))

    def pinged(self, node_id: int, ping_interval: float) -> None:
        """Note that a node is still there, and will ping again after so many seconds."""
        self._pinged(node_id, self._attendance.renew(node_id), bounded_interval(ping_interval))

    def pulls(self, node_id: int, *, has_key: bool) -> float:
        """Note that a node asks for a task; say for how many seconds it may be held."""
        node = self._attendance.renew(node_id)
        if has_key:
            hold = min(self.hold(), AFTER_WORK) if node.worked else 0.0
        else:
            hold = self.hold() if node.answered else 0.0
        node.answered = node.worked = False
        # Who asks for work has none, whatever became of what it had.
        self._attendance.finish(node_id)
        # It is online for as long as it is held.
        self._pulled(node_id, node, hold + HEARTBEAT_TIMEOUT)
        return hold

    def answered(self, node_id: int, task: Task | None) -> None:
        """Note that a node which asked for a task has got an answer: one, or that there is none."""
        if node_id not in self._attendance:
            return
        node = self._attendance.renew(node_id)
        node.answered = True
        self._pulled(node_id, node, HEARTBEAT_TIMEOUT)
        if task is not None:
            self._attendance.begin(
                *(node_id, task.task_id, task.run_id, task.group_id, task.task_type)
            )

    def broke_off(self, node_id: int) -> None:
        """Note that the connection of a node that was held is gone."""
        node = self._attendance.get(node_id)
        if node is not None:
            node.pinged_until = trio.current_time() + COME_BACK
            self._attendance.keep_online(node_id, node.pinged_until)

    def worked(self, node_id: int) -> None:
        """Note that a task was answered in the name of a node: a stranger may have used it."""
        if node_id in self._attendance:
            node = self._attendance.renew(node_id)
            node.answered = node.worked = True
            self._attendance.finish(node_id)
            self._drain_goes_on()

    def left(self, node_id: int) -> None:
        """Note that a node has signed off."""
        self._attendance.leave(node_id)
        self._drain_goes_on()

    def views(self, most: int = MOST_VIEWS) -> Sequence[NodeView]:
        """Show those that have a task, then the others; of both those heard of last come first."""
        return self._attendance.views(most)

    async def report(self) -> None:
        """Log which nodes go offline, and which are back, until cancelled."""
        await self._attendance.report()

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
        newest = self._attendance.newest
        until = -math.inf if newest is None else newest.last_heartbeat + HEARTBEAT_TIMEOUT
        return trio.current_time() < until

    def _pinged(self, node_id: int, node: Node, seconds: float) -> None:
        node.pinged_until = node.last_heartbeat + seconds
        self._attendance.keep_online(node_id, node.pinged_until)

    def _pulled(self, node_id: int, node: Node, seconds: float) -> None:
        until = max(node.pinged_until, node.last_heartbeat + seconds)
        self._attendance.keep_online(node_id, until)
