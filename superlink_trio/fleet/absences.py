"""Nodes that go offline without a word, and come back: what the log says of them."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Mapping, Sequence
from itertools import islice

import attrs
import trio

from superlink_trio.fleet.nodes import Node
from superlink_trio.logs.throttle import Throttle
from superlink_trio.logs.wording import counted
from superlink_trio.state.interface import COME_BACK, HEARTBEAT_TIMEOUT

_log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds: what happens within them may share a line."""

_MOST_SINGLE = 3
"""Nodes that have lines of their own; where more go or come back within a second, they share one
that names as many."""

_MOST_LINES = 60  # a minute, about all nodes


@attrs.define(eq=False)
class Absences:
    """Tells of nodes among `nodes` whose time ran out.

    A heap holds a moment for each node at which to look at it: its calls, many a second in a
    large fleet, then need not touch more than their own node.
    """

    _nodes: Mapping[int, Node]
    _work: str
    """What a node's work is called."""
    _heap: list[tuple[float, int]] = attrs.field(factory=list, init=False)
    _due: dict[int, float] = attrs.field(factory=dict, init=False)
    """Which of a node's moments in the heap counts: the earliest."""
    _absent: set[int] = attrs.field(factory=set, init=False)
    _back: list[int] = attrs.field(factory=list, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
    _throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=_MOST_LINES), init=False)

    def renewed(self, node_id: int, until: float) -> None:
        """Note that a node is online, and until when by Trio's clock."""
        if node_id in self._absent:
            self._absent.discard(node_id)
            self._back.append(node_id)
            self._news.set()
        due = self._due.get(node_id)
        if due is None or until < due:
            self._look_at(node_id, until)

    def forget(self, node_id: int) -> None:
        """Tell nothing of a node any more."""
        self._due.pop(node_id, None)
        self._absent.discard(node_id)

    async def report(self) -> None:
        """Log which nodes go offline, and which are back, until cancelled."""
        # Where nobody could call for a while, those that are there still come first.
        await trio.sleep(COME_BACK)
        while True:
            self._news = trio.Event()
            self._tell_of_absent(self._newly_absent())
            self._tell_of_back()
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                await self._news.wait()
            await trio.sleep(_LOOK_EVERY)

    def _look_at(self, node_id: int, until: float) -> None:
        # A moment that is overtaken stays in the heap: it must not lie far ahead.
        due = min(until, trio.current_time() + HEARTBEAT_TIMEOUT)
        self._due[node_id] = due
        heapq.heappush(self._heap, (due, node_id))
        if self._heap[0][1] == node_id:
            self._news.set()

    def _newly_absent(self) -> Sequence[int]:
        now = trio.current_time()
        gone = []
        while self._heap and self._heap[0][0] <= now:
            due, node_id = heapq.heappop(self._heap)
            if self._due.get(node_id) != due:
                continue
            until = self._nodes[node_id].until
            if until > now:
                self._look_at(node_id, until)
            else:
                del self._due[node_id]
                if not self._nodes[node_id].elsewhere:  # it is told there
                    self._absent.add(node_id)
                    gone.append(node_id)
        return gone

    def _tell_of_absent(self, gone: Sequence[int]) -> None:
        nodes = [self._nodes[node_id] for node_id in gone]
        if len(gone) > _MOST_SINGLE:
            works = counted(sum(len(node.works) for node in nodes), self._work)
            self._tell(f"{_named(gone)} are offline ({works} with them)", nodes=len(gone))
            return
        for node_id, node in zip(gone, nodes, strict=True):
            silent = trio.current_time() - node.last_heartbeat
            fields: dict[str, object] = {"node_id": node_id, "silent_seconds": round(silent, 1)}
            works = ""
            for work in islice(node.works.values(), 1):
                fields |= {f"{self._work}_id": work.id, "run_id": work.run_id}
                works = f", {counted(len(node.works), self._work)} with it"
            self._tell(
                f"Node {node_id} is offline (last heard of {silent:.0f} s ago{works})", **fields
            )

    def _tell_of_back(self) -> None:
        back, self._back = [node_id for node_id in self._back if node_id in self._nodes], []
        if len(back) > _MOST_SINGLE:
            self._tell(f"{_named(back)} are back", nodes=len(back))
            return
        for node_id in back:
            self._tell(f"Node {node_id} is back", node_id=node_id)

    def _tell(self, line: str, **fields: object) -> None:
        self._throttle.log(logging.INFO, None, "%s", line, extra=fields)


def _named(node_ids: Sequence[int]) -> str:
    named = ", ".join(map(str, node_ids[:_MOST_SINGLE]))
    return f"{len(node_ids)} nodes ({named} and {len(node_ids) - _MOST_SINGLE} more)"
