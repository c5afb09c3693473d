"""Which nodes of Flower 1.23 and later are there, and what they work on.

Such a node says when it is started, and asks for the next message while it works on others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Container, Sequence

import trio

from superlink_trio.fleet.attendance import MOST_VIEWS, Attendance
from superlink_trio.fleet.nodes import NodeView
from superlink_trio.state.interface import Clock
from superlink_trio.wire.messages import Envelope, NodeRecord

_LOOK_EVERY = 5.0  # seconds between two looks at whose runs are over


class SuperNodes:
    """The nodes that called, over whatever transport, those heard of last.

    It outlives the APIs: what is known of nodes is true still when those are served again.
    """

    def __init__(
        self,
        most: Callable[[], int],
        runs: Callable[[], Container[int]],
        clock: Clock = time.time,
        known: Callable[[int], NodeRecord | None] = lambda _: None,
    ) -> None:
        """`most` gives how many nodes are remembered, `runs` the runs that are not over.

        `known` gives a node as the state knows it: another process may have heard of it since.
        """
        self._runs = runs
        self._known = known
        self._now = clock
        self._attendance = Attendance(most, clock, work="message")

    @property
    def attendance(self) -> Attendance:
        """What is known of these nodes, and concerns other processes that serve them."""
        return self._attendance

    def activated(self, node_id: int, interval: float) -> None:
        """Note that a node was started, and how often it will send a heartbeat, in seconds."""
        self._attendance.renew(node_id)
        self._attendance.finish(node_id)
        self.heard(node_id, interval)

    def heard(self, node_id: int, interval: float) -> None:
        """Note a heartbeat, or what is taken for one."""
        node = self._attendance.renew(node_id)
        until = max(node.until, node.last_heartbeat + 2 * interval)
        self._attendance.keep_online(node_id, until)

    def called(self, node_id: int) -> bool:
        """Note any call: by itself it keeps a node online no longer than it is.

        Say whether nothing was known of the node, which was started before this SuperLink then, or
        was forgotten meanwhile. Others that serve together with this process may know of it.
        """
        unknown = node_id not in self._attendance
        self._attendance.renew(node_id)
        return unknown and not (self._attendance.shared and self._is_online(node_id))

    def _is_online(self, node_id: int) -> bool:
        """Say whether the state knows that a node is there: another process has heard of it."""
        record = self._known(node_id)
        return record is not None and record.online_until > self._now()

    def given(self, node_id: int, instruction: Envelope) -> None:
        """Note that a node was given a message."""
        meta = instruction.message.metadata
        node = self._attendance.renew(node_id)
        node.lacks_part = False
        if meta.message_id not in node.works:
            self._attendance.begin(
                *(node_id, meta.message_id, meta.run_id, meta.group_id, meta.message_type)
            )

    def refused_part(self, node_id: int) -> None:
        """Note that a part of the message that a node was given last was refused to it."""
        self._attendance.renew(node_id).lacks_part = True

    def has_all(self, node_id: int) -> bool:
        """Say whether no part was."""
        node = self._attendance.get(node_id)
        return node is None or not node.lacks_part

    def replied(self, node_id: int, instruction_id: str) -> None:
        """Note that a node has begun to send a reply: all of it is there a moment later."""
        self._attendance.finish(node_id, [instruction_id])

    def left(self, node_id: int) -> None:
        """Note that a node has signed off."""
        self._attendance.leave(node_id)

    def views(self, most: int = MOST_VIEWS) -> Sequence[NodeView]:
        """Show those that work, then the others; of both those heard of last come first."""
        return self._attendance.views(most)

    def under_way(self) -> Counter[tuple[int, str, str]]:
        """Count what nodes work on, by run, group and kind.

        Nobody waits for one that is offline: an error stands in.
        """
        now = trio.current_time()
        return Counter(
            (work.run_id, work.group_id, work.kind)
            for _, node in self._attendance.working()
            for work in node.works.values()
            if node.until > now
        )

    async def report(self) -> None:
        """Log which nodes go offline, and which are back, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._attendance.report)
            while True:
                await trio.sleep(_LOOK_EVERY)
                self._look_elsewhere()
                runs = self._runs()
                for node_id, node in self._attendance.working():
                    over = [work.id for work in node.works.values() if work.run_id not in runs]
                    self._attendance.finish(node_id, over)

    def _look_elsewhere(self) -> None:
        """Keep those online that have not called here for long, and did so elsewhere."""
        now = trio.current_time()
        offset = self._now() - now
        for node_id in self._attendance.ending(now + 2 * _LOOK_EVERY):
            record = self._known(node_id)
            if record is not None and record.online_until - offset > now + 2 * _LOOK_EVERY:
                self._attendance.keep_online(node_id, record.online_until - offset)
