"""Heartbeats, kept in memory and written behind: a ping costs no transaction of its own."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import attrs
import trio

from superlink_trio.state import rules
from superlink_trio.state.interface import HEARTBEAT_TIMEOUT

WRITE_BEHIND = 0.5
"""Seconds after which a heartbeat is written at the latest, if the disk keeps up."""


@attrs.frozen
class Heartbeat:
    """What is not written yet of how long a node is online.

    A ping rules (`over` is infinite), and says the node's interval; any other heartbeat only
    prolongs. That a connection broke shortens, if what was known of the node is all that the
    database says: where that is later, another process has heard of it.
    """

    until: float
    interval: float | None = None
    over: float = -math.inf
    """What the database says up to this is replaced."""

    def applied(self, stored: float) -> float:
        """Say until when a node is online for which the database says `stored`."""
        return self.until if stored <= self.over else max(self.until, stored)


def pinged(until: float, interval: float) -> Heartbeat:
    """Give what a ping says."""
    return Heartbeat(until, interval, over=math.inf)


@attrs.frozen
class Alive:
    """What the database does not say yet about who is online."""

    heartbeats: Mapping[int, Heartbeat] = attrs.field(factory=dict)
    attended: Collection[int] = frozenset()

    def until(self, node_id: int, stored: float, now: float) -> float:
        """Say when a registered node goes offline, for which the database says `stored`."""
        heartbeat = self.heartbeats.get(node_id)
        until = stored if heartbeat is None else heartbeat.applied(stored)
        return rules.online_until(until, attended=node_id in self.attended, now=now)


class Heartbeats:
    """The nodes that this process knows, and what the database does not say yet about them."""

    def __init__(self) -> None:
        self._online_until: dict[int, float] = {}
        self._fresh: dict[int, Heartbeat] = {}
        self._being_written: Mapping[int, Heartbeat] = {}
        self._attended: dict[int, int] = {}
        self._changed = trio.Event()

    def knows(self, node_id: int) -> bool:
        """Whether the node is registered for certain; if not, the database may know it still."""
        return node_id in self._online_until

    def register(self, node_id: int, online_until: float) -> None:
        """Remember a registered node."""
        self._online_until[node_id] = online_until

    def forget(self, node_id: int) -> None:
        """Forget a node that is not registered any more."""
        self._online_until.pop(node_id, None)
        self._fresh.pop(node_id, None)

    def forget_all(self) -> None:
        """Take no node for registered without asking the database."""
        self._online_until.clear()

    def end_of_ping(self, node_id: int, now: float, interval: float) -> float:
        """Say until when a ping keeps a node online: one that is attended is, whatever it says."""
        return now + max(interval, HEARTBEAT_TIMEOUT if node_id in self._attended else 0.0)

    def ping(self, node_id: int, until: float, interval: float) -> None:
        """Keep a node that is known online until then."""
        self._online_until[node_id] = until
        self._keep(node_id, pinged(until, interval))

    def extend(self, node_id: int, until: float) -> None:
        """Keep a node online at least until then."""
        before = self._online_until.get(node_id, until)
        until = max(until, before)
        if self.knows(node_id):
            self._online_until[node_id] = until
        self._keep(node_id, attrs.evolve(self._fresh.get(node_id, Heartbeat(until)), until=until))

    def _keep(self, node_id: int, heartbeat: Heartbeat) -> None:
        self._fresh[node_id] = heartbeat
        self._changed.set()

    def attend(self, node_id: int, now: float) -> None:
        """Keep a node online, if it is registered, until `leave`."""
        self._attended[node_id] = self._attended.get(node_id, 0) + 1
        if self.knows(node_id):
            self._renew(node_id, now)

    def leave(self, node_id: int) -> bool:
        """End `attend`; say whether nobody else attends the node."""
        self._attended[node_id] -= 1
        if self._attended[node_id]:
            return False
        del self._attended[node_id]
        return True

    def shorten(self, node_id: int, until: float) -> None:
        """Keep a node online until then at most, unless another process hears of it."""
        if not self.knows(node_id):
            return
        known = self._online_until[node_id]
        interval = self._fresh[node_id].interval if node_id in self._fresh else None
        self._online_until[node_id] = until
        self._keep(node_id, Heartbeat(until, interval, over=known))

    def renew(self, now: float) -> None:
        """Let the database say for a while longer that attended nodes are online."""
        for node_id in self._attended:
            self._renew(node_id, now)

    def _renew(self, node_id: int, now: float) -> None:
        if self._online_until.get(node_id, 0.0) < now + HEARTBEAT_TIMEOUT / 2:
            self.extend(node_id, now + HEARTBEAT_TIMEOUT)

    def alive(self) -> Alive:
        """Give what the database does not say yet."""
        return Alive({**self._being_written, **self._fresh}, frozenset(self._attended))

    async def wait(self) -> None:
        """Return when there is something to write."""
        if not self._fresh:
            self._changed = trio.Event()
        await self._changed.wait()

    @contextmanager
    def written(self) -> Iterator[Mapping[int, Heartbeat]]:
        """Give what is to be written inside the block. An exception keeps it for the next time."""
        self._being_written, self._fresh = self._fresh, {}
        try:
            yield self._being_written
        except BaseException:
            self._fresh = {**self._being_written, **self._fresh}
            raise
        finally:
            self._being_written = {}
