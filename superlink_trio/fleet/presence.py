"""Which nodes are there, and how long their pulls may be held by what is known of them.

A node of Flower 1.9 to 1.11 that is stopped signs off (DeleteNode) only if its last call, pings
aside, was answered. And one that has a key never ends if the signal finds it in the middle of a
call: it signs off and hangs until the next signal.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice

import trio

from superlink_trio.fleet.absences import Absences
from superlink_trio.fleet.nodes import Node, NodeView, Work
from superlink_trio.logs.throttle import shorten
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

MOST_VIEWS = 200
"""Nodes that are shown at most."""

_LONGEST_WORD = 40  # characters of what a driver calls a round, or a kind of task


class Presence:
    """The nodes that called this API, `most` of them at most: those heard of last.

    It outlives the API: what is known of nodes is true still when that is served again.
    """

    def __init__(self, hold: float, most: int, clock: Clock = time.time) -> None:
        """`hold`: seconds for which a pull is held where nothing speaks against it."""
        self.hold = hold
        self._most = most
        self._now = clock
        self._nodes: OrderedDict[int, Node] = OrderedDict()
        self._working: set[int] = set()
        self._absences = Absences(self._nodes)
        self._signed_off = trio.Event()

    def joined(self, node_id: int, ping_interval: float) -> None:
        """Note that a node was given its id, and says how often it will ping, in seconds."""
        node = self._renew(node_id)
        node.answered = True
        self._pinged(node_id, node, bounded_interval(ping_interval))

    def pinged(self, node_id: int, ping_interval: float) -> None:
        """Note that a node is still there, and will ping again after so many seconds."""
        self._pinged(node_id, self._renew(node_id), bounded_interval(ping_interval))

    def pulls(self, node_id: int, *, has_key: bool) -> float:
        """Note that a node asks for a task; say for how many seconds it may be held."""
        node = self._renew(node_id)
        if has_key:
            hold = min(self.hold, AFTER_WORK) if node.worked else 0.0
        else:
            hold = self.hold if node.answered else 0.0
        node.answered = node.worked = False
        # Who asks for work has none, whatever became of what it had.
        self._finish(node_id, node)
        # It is online for as long as it is held.
        self._pulled(node_id, node, hold + HEARTBEAT_TIMEOUT)
        return hold

    def answered(self, node_id: int, task: Task | None) -> None:
        """Note that a node which asked for a task has got an answer: one, or that there is none."""
        if node_id not in self._nodes:
            return
        node = self._renew(node_id)
        node.answered = True
        self._pulled(node_id, node, HEARTBEAT_TIMEOUT)
        if task is not None:
            node.work = Work(
                task_id=task.task_id,
                run_id=task.run_id,
                group_id=shorten(task.group_id, _LONGEST_WORD),
                kind=shorten(task.task_type, _LONGEST_WORD),
                since=self._now(),
            )
            self._working.add(node_id)

    def broke_off(self, node_id: int) -> None:
        """Note that the connection of a node that was held is gone."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.until = node.pinged_until = trio.current_time() + COME_BACK
            self._absences.renewed(node_id, node.until)

    def worked(self, node_id: int) -> None:
        """Note that a task was answered in the name of a node: a stranger may have used it."""
        if node_id in self._nodes:
            node = self._renew(node_id)
            node.answered = node.worked = True
            self._finish(node_id, node)
            self._drain_goes_on()

    def left(self, node_id: int) -> None:
        """Note that a node has signed off."""
        self._forget(node_id)
        self._drain_goes_on()

    def views(self, most: int = MOST_VIEWS) -> Sequence[NodeView]:
        """Show those that have a task, then the others; of both those heard of last come first."""
        trio_now = trio.current_time()
        offset = self._now() - trio_now
        return [
            NodeView(
                node_id=node_id,
                heard=node.last_heartbeat + offset,
                online_until=node.until + offset,
                online=node.until > trio_now,
                work=node.work,
            )
            for node_id, node in islice(self._in_order(), most)
        ]

    async def report(self) -> None:
        """Log which nodes go offline, and which are back, until cancelled."""
        await self._absences.report()

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

    def _in_order(self) -> Iterator[tuple[int, Node]]:
        working = sorted(
            ((node_id, self._nodes[node_id]) for node_id in self._working),
            key=lambda item: -item[1].last_heartbeat,
        )
        yield from working
        for node_id, node in reversed(self._nodes.items()):
            if node_id not in self._working:
                yield node_id, node

    def _renew(self, node_id: int) -> Node:
        now = trio.current_time()
        node = self._nodes.get(node_id)
        if node is None:
            if len(self._nodes) >= self._most:
                self._forget(next(iter(self._nodes)))
            node = self._nodes[node_id] = Node(now)
        node.last_heartbeat = now
        self._nodes.move_to_end(node_id)
        return node

    def _forget(self, node_id: int) -> None:
        self._nodes.pop(node_id, None)
        self._working.discard(node_id)
        self._absences.forget(node_id)

    def _finish(self, node_id: int, node: Node) -> None:
        node.work = None
        self._working.discard(node_id)

    def _pinged(self, node_id: int, node: Node, seconds: float) -> None:
        node.until = node.pinged_until = node.last_heartbeat + seconds
        self._absences.renewed(node_id, node.until)

    def _pulled(self, node_id: int, node: Node, seconds: float) -> None:
        node.until = max(node.pinged_until, node.last_heartbeat + seconds)
        self._absences.renewed(node_id, node.until)
