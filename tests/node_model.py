"""What a store has to say of nodes in any history of calls: the first half of the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import attrs
from builders import EPOCH
from hosts import Host
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from stores import STORES

from superlink_trio.state import Admission, LimitReached, StateLimits
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT, MAX_PING_INTERVAL
from superlink_trio.wire.runs import Run

BIG = 10**9
KEYS = (b"first", b"second")

intervals = st.sampled_from([0.0, 1.0, 30.0, 90.0, 1e300])


@attrs.define(eq=False)
class Node:
    """What the model knows of one registered node."""

    online_until: float
    key: bytes = b""
    attended: int = 0


class Nodes(RuleBasedStateMachine):
    """Rules are the calls; each compares what the store says with what the model expects."""

    store = "memory"

    nodes = Bundle("nodes")
    attendances = Bundle("attendances")

    def __init__(self) -> None:
        super().__init__()
        self.host = Host(STORES[self.store])
        self.state = self.host.state
        self.now = EPOCH
        self.known: dict[int, Node] = {}
        self.deleted: set[int] = set()

    def teardown(self) -> None:
        self.host.close()

    @initialize(nodes=st.sampled_from([2, 5, BIG]), tasks_per_node=st.sampled_from([2, 5, BIG]))
    def begin(self, nodes: int, tasks_per_node: int) -> None:
        self.state.limits = StateLimits(nodes=nodes, tasks_per_node=tasks_per_node)
        self.run_id = self.host.call(self.state.create_run, Run())

    # What the model expects

    def online(self, node_id: int) -> bool:
        node = self.known.get(node_id)
        return node is not None and (node.attended > 0 or node.online_until > self.now)

    def owner(self, key: bytes) -> int | None:
        return next((node_id for node_id, node in self.known.items() if node.key == key), None)

    def admission(self, node_id: int, readmit: bool) -> Admission:
        if node_id in self.known:
            return Admission.KNOWN
        if readmit and node_id not in self.deleted:
            return Admission.READMITTED
        return Admission.UNKNOWN

    def binding(self, node_id: int, key: bytes, readmit: bool) -> Admission:
        own, node = self.owner(key), self.known.get(node_id)
        if own is not None:
            return Admission.KNOWN if own == node_id else Admission.FOREIGN
        if node is not None and node.key:
            return Admission.FOREIGN
        return (
            Admission.READMITTED if readmit and node_id not in self.deleted else Admission.UNKNOWN
        )

    def register(
        self, function: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
    ) -> Any:
        """Make a call that registers a node: give its result, None where there is no room.

        Nodes that are offline and have no key give way; a store need not look for them every time.
        """
        full = len(self.known) >= self.state.limits.nodes
        offline = [id_ for id_, node in self.known.items() if not (node.key or self.online(id_))]
        try:
            result = self.host.call(function, *arguments, **options)
        except LimitReached:
            assert full
            assert not offline or self.store == "memory"
            return None
        if full:
            assert offline
            for node_id in offline:
                del self.known[node_id]
        return result

    # Rules

    @rule(target=nodes, interval=intervals, key=st.sampled_from([b"", b"", *KEYS]))
    def create_node(self, interval: float, key: bytes = b"") -> Any:
        until = self.now + min(interval, MAX_PING_INTERVAL)
        own = self.owner(key) if key else None
        if own is not None:
            assert self.host.call(self.state.create_node, interval, key) == own
            self.known[own].online_until = until
            return multiple()
        node_id = self.register(self.state.create_node, interval, key)
        if node_id is None:
            return multiple()
        assert node_id not in self.known
        assert node_id not in self.deleted
        self.known[node_id] = Node(until, key)
        return node_id

    @rule(target=nodes, node_id=st.sampled_from([7, -7]))
    def a_node_of_before(self, node_id: int) -> int:
        return node_id

    @rule(node_id=nodes, interval=intervals, readmit=st.booleans())
    def ping(self, node_id: int, interval: float, readmit: bool) -> None:
        if self.show_life(self.state.ping, node_id, interval, readmit=readmit):
            self.known[node_id].online_until = self.now + min(interval, MAX_PING_INTERVAL)

    @rule(node_id=nodes, readmit=st.booleans())
    def heartbeat(self, node_id: int, readmit: bool) -> None:
        if self.show_life(self.state.heartbeat, node_id, readmit=readmit):
            self.stay(self.known[node_id])

    def show_life(
        self,
        function: Callable[..., Awaitable[Admission]],
        node_id: int,
        *arguments: float,
        readmit: bool,
    ) -> bool:
        """Make a call that is a sign of life; say whether it counts."""
        expected = self.admission(node_id, readmit)
        if expected is Admission.READMITTED:
            admission = self.register(function, node_id, *arguments, readmit=readmit)
            if admission is None:
                return False
            self.known[node_id] = Node(0.0)
        else:
            admission = self.host.call(function, node_id, *arguments, readmit=readmit)
        assert admission is expected
        return expected is not Admission.UNKNOWN

    def stay(self, node: Node) -> None:
        node.online_until = max(node.online_until, self.now + HEARTBEAT_TIMEOUT)

    @rule(target=attendances, node_id=nodes, times=st.integers(1, 2))
    def attend(self, node_id: int, times: int) -> Any:
        node = self.known.get(node_id)
        if node is None:
            return multiple()
        attendances = [(node, self.state.attend(node_id)) for _ in range(times)]
        for _, attendance in attendances:
            self.host.enter(attendance)
            node.attended += 1
        return multiple(*attendances)

    @rule(attendance=consumes(attendances))
    def leave(self, attendance: tuple[Node, AbstractContextManager[None]]) -> None:
        node, manager = attendance
        self.host.exit(manager)
        node.attended -= 1
        self.stay(node)

    @rule(node_id=nodes, key=st.sampled_from(KEYS), readmit=st.booleans())
    def bind_node(self, node_id: int, key: bytes, readmit: bool) -> None:
        expected = self.binding(node_id, key, readmit)
        if expected is Admission.READMITTED and node_id not in self.known:
            admission = self.register(self.state.bind_node, node_id, key, readmit=readmit)
            if admission is None:
                return
            self.known[node_id] = Node(self.now)
        else:
            admission = self.host.call(self.state.bind_node, node_id, key, readmit=readmit)
        assert admission is expected
        if expected is Admission.READMITTED:
            self.known[node_id].key = key

    @rule(key=st.sampled_from(KEYS))
    def node_of_key(self, key: bytes) -> None:
        assert self.host.call(self.state.node_of_key, key) == self.owner(key)

    @rule(node_id=nodes)
    def delete_node(self, node_id: int) -> None:
        if node_id in self.known and len(self.deleted) >= self.state.limits.nodes:
            return  # the first of those that were deleted would be forgotten, but when is open
        known = self.known.pop(node_id, None) is not None
        assert self.host.call(self.state.delete_node, node_id) is known
        if known:
            self.deleted.add(node_id)

    @invariant()
    def who_is_online(self) -> None:
        online = self.host.call(self.state.online_nodes, self.run_id)
        assert sorted(online) == sorted(filter(self.online, self.known))
