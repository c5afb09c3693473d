"""Which nodes are there and what they work on, whatever release they are of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import attrgetter

import attrs
import trio

from superlink_trio.fleet.absences import Absences
from superlink_trio.fleet.elsewhere import NodeCall, Notes
from superlink_trio.fleet.nodes import Node, NodeView, Work
from superlink_trio.logs.throttle import shorten
from superlink_trio.state.interface import Clock

MOST_VIEWS = 200
"""Nodes that are shown at most."""

_LONGEST_WORD = 40  # characters of what a driver calls a round, or a kind of task


class Attendance:
    """The nodes that called, those heard of last, and what each was given and has not answered."""

    def __init__(self, most: Callable[[], int], clock: Clock, work: str) -> None:
        """`most` gives how many nodes are remembered; `work`: what one piece of it is called."""
        self._most = most
        self._now = clock
        self._nodes: OrderedDict[int, Node] = OrderedDict()
        self._working: set[int] = set()
        self._absences = Absences(self._nodes, work)
        self._notes: Notes | None = None

    @property
    def shared(self) -> bool:
        """Whether other processes that serve the same nodes tell of them."""
        return self._notes is not None

    def share(self) -> None:
        """Take notes for other processes from now on."""
        self._notes = Notes()

    def take(self) -> Mapping[int, NodeCall] | None:
        """Give what other processes have to be told and were not yet; None: nothing."""
        return None if self._notes is None else self._notes.take() or None

    def hear(self, told: Mapping[int, NodeCall]) -> None:
        """Take note of nodes that called another process."""
        now = trio.current_time()
        for node_id, call in told.items():
            if call.until is None:
                self.forget(node_id)
                continue
            self._note_elsewhere(node_id, now + call.heard, now + call.until)
            works = self._nodes[node_id].works
            over = [work_id for work_id in call.finished if work_id in works]
            if call.idle is not None:
                # By the clock of the state, as what was given is.
                before = self._now() + call.idle
                over += [work.id for work in works.values() if work.since <= before]
            self._finish(self._nodes[node_id], node_id, over)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    def get(self, node_id: int) -> Node | None:
        """Give a node, None when nothing is known of it."""
        return self._nodes.get(node_id)

    @property
    def newest(self) -> Node | None:
        """The node that was heard of last."""
        return next(reversed(self._nodes.values()), None)

    def renew(self, node_id: int) -> Node:
        """Note that a node was heard of."""
        node = self._nodes.get(node_id) or self._add(node_id)
        node.last_heartbeat = trio.current_time()
        node.elsewhere = False
        self._nodes.move_to_end(node_id)
        if self._notes is not None:
            self._notes.called(node_id, node)
        return node

    def _add(self, node_id: int) -> Node:
        while self._nodes and len(self._nodes) >= self._most():
            self.forget(next(iter(self._nodes)))
        node = self._nodes[node_id] = Node(trio.current_time())
        return node

    def keep_online(self, node_id: int, until: float) -> None:
        """Note when a node goes offline, by Trio's clock, if nothing else happens before."""
        self._keep_online(node_id, until)
        if self._notes is not None:
            self._notes.called(node_id, self._nodes[node_id])

    def _keep_online(self, node_id: int, until: float) -> None:
        self._nodes[node_id].until = until
        self._absences.renewed(node_id, until)

    def ending(self, before: float) -> Sequence[int]:
        """Give the nodes that are online, and go offline before a moment by Trio's clock."""
        now = trio.current_time()
        return [node_id for node_id, node in self._nodes.items() if now < node.until < before]

    def _note_elsewhere(self, node_id: int, heard: float, until: float) -> None:
        node = self._nodes.get(node_id)
        if node is None:
            node = self._add(node_id)
            node.last_heartbeat, node.elsewhere, node.answered = heard, True, True
        elif heard > node.last_heartbeat:
            node.elsewhere = True
        until = max(node.until, until)
        if until > trio.current_time():
            self._keep_online(node_id, until)

    def begin(self, node_id: int, work_id: str, run_id: int, group_id: str, kind: str) -> None:
        """Note that a node was given something to do."""
        self._nodes[node_id].works[work_id] = Work(
            id=work_id,
            run_id=run_id,
            group_id=shorten(group_id, _LONGEST_WORD),
            kind=shorten(kind, _LONGEST_WORD),
            since=self._now(),
        )
        self._working.add(node_id)

    def finish(self, node_id: int, work_ids: Collection[str] | None = None) -> None:
        """Note that a node works on these no more, or on nothing."""
        node = self._nodes.get(node_id)
        if node is None:
            return
        if self._notes is not None and work_ids is None:
            self._notes.idle(node_id, node)
        elif self._notes is not None and work_ids is not None:
            given_elsewhere = [each for each in work_ids if each not in node.works]
            self._notes.finished(node_id, node, given_elsewhere)
        self._finish(node, node_id, tuple(node.works) if work_ids is None else work_ids)

    def _finish(self, node: Node, node_id: int, work_ids: Collection[str]) -> None:
        for work_id in work_ids:
            node.works.pop(work_id, None)
        if not node.works:
            self._working.discard(node_id)

    def leave(self, node_id: int) -> None:
        """Note that a node has signed off."""
        if self._notes is not None:
            self._notes.left(node_id, self._nodes.get(node_id) or Node(trio.current_time()))
        self.forget(node_id)

    def forget(self, node_id: int) -> None:
        """Know nothing of a node any more."""
        self._nodes.pop(node_id, None)
        self._working.discard(node_id)
        self._absences.forget(node_id)

    def working(self) -> Sequence[tuple[int, Node]]:
        """Give the nodes that have something to do, those heard of last first."""
        nodes = ((node_id, self._nodes[node_id]) for node_id in self._working)
        return sorted(nodes, key=lambda item: -item[1].last_heartbeat)

    def views(self, most: int = MOST_VIEWS) -> Sequence[NodeView]:
        """Show those that work, then the others; of both those heard of last come first."""
        trio_now = trio.current_time()
        offset = self._now() - trio_now
        return [
            NodeView(
                node_id=node_id,
                heard=node.last_heartbeat + offset,
                online_until=node.until + offset,
                online=node.until > trio_now,
                work=next(iter(node.works.values()), None),
                works=len(node.works),
            )
            for node_id, node in islice(self._in_order(), most)
        ]

    async def report(self) -> None:
        """Log which nodes go offline, and which are back, until cancelled."""
        await self._absences.report()

    def _in_order(self) -> Iterator[tuple[int, Node]]:
        nodes = ((id, node) for id, node in reversed(self._nodes.items()) if not node.works)
        for node_id, node in chain(self.working(), nodes):
            # Who was heard of elsewhere is shown there; what it was given is known here alone.
            if node.works or not node.elsewhere:
                yield node_id, node


def together(views: Iterable[NodeView], most: int = MOST_VIEWS) -> list[NodeView]:
    """Put together what several processes show of nodes, in the order in which each shows them.

    Of a node what the last to hear of it says, and what all of them have given it.
    """
    latest: dict[int, NodeView] = {}
    for view in sorted(views, key=attrgetter("heard")):
        before = latest.get(view.node_id)
        latest[view.node_id] = view if before is None else _together(before, view)
    return sorted(latest.values(), key=lambda view: (view.work is None, -view.heard))[:most]


def _together(one: NodeView, later: NodeView) -> NodeView:
    works = [view.work for view in (one, later) if view.work is not None]
    first = min(works, key=attrgetter("since"), default=None)
    return attrs.evolve(later, work=first, works=one.works + later.works)
