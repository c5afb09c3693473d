"""Heartbeats that the database does not know of yet: they are written behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from superlink_trio.wire.messages import NodeRecord


@attrs.frozen
class Heartbeat:
    """When a node was heard of, and its interval; both in seconds."""

    at: float
    interval: float

    @property
    def until(self) -> float:
        """Until when it keeps the node online."""
        return self.at + 2 * self.interval


class Heartbeats:
    """Those of nodes, by their ids, and of runs, by the SHA-256 of their tokens."""

    def __init__(self) -> None:
        self._nodes: dict[int, Heartbeat] = {}
        self._runs: dict[bytes, float] = {}
        self._being_written: Mapping[int, Heartbeat] = {}
        self._some = trio.Event()

    def note_node(self, node_id: int, heartbeat: Heartbeat) -> None:
        """Note that a node was heard of."""
        self._nodes[node_id] = heartbeat
        self._some.set()

    def note_run(self, token: bytes, at: float) -> None:
        """Note that the process of a run was heard of."""
        self._runs[token] = at
        self._some.set()

    def forget(self, node_id: int) -> None:
        """Forget what was heard of a node: something else has happened to it since."""
        self._nodes.pop(node_id, None)
        if node_id in self._being_written:
            self._being_written = {
                one: each for one, each in self._being_written.items() if one != node_id
            }

    def nodes(self) -> Mapping[int, Heartbeat]:
        """Give the nodes that were heard of since the database was told."""
        return {**self._being_written, **self._nodes}

    def applied(self, node: NodeRecord) -> NodeRecord:
        """Give a node, as the database has it, after what was heard of it since."""
        heartbeat = self.nodes().get(node.node_id)
        if heartbeat is None:
            return node
        if heartbeat.at < (node.deactivated_at or 0.0):
            self.forget(node.node_id)
            return node
        until = max(node.online_until, heartbeat.until)
        return attrs.evolve(
            node,
            online_until=until,
            heartbeat_interval=heartbeat.interval,
            deactivated_at=None,
        )

    async def wait(self) -> None:
        """Return when there is something to write."""
        if not self._nodes and not self._runs:
            self._some = trio.Event()
        await self._some.wait()

    @contextmanager
    def written(self) -> Iterator[tuple[Mapping[int, Heartbeat], Mapping[bytes, float]]]:
        """Give what is to be written inside the block. An exception keeps it for the next time."""
        self._being_written, self._nodes = self._nodes, {}
        runs, self._runs = self._runs, {}
        try:
            yield self._being_written, runs
        except BaseException:
            self._nodes = {**self._being_written, **self._nodes}
            self._runs = {**runs, **self._runs}
            raise
        finally:
            self._being_written = {}
