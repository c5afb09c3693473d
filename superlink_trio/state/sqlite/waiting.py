"""Who waits for what: nodes parked for a task, drivers gathering answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import trio


class Parked:
    """Nodes that wait for a task, woken one by one, first come first served."""

    def __init__(self) -> None:
        self._waiters: dict[int, dict[trio.Event, None]] = {}

    @contextmanager
    def at(self, node_id: int) -> Iterator[trio.Event]:
        """Wait inside the block: the event is set when there may be a task for the node.

        If the block is left by an exception although it was woken, another one is woken.
        """
        waiter = trio.Event()
        self._waiters.setdefault(node_id, {})[waiter] = None
        try:
            yield waiter
        except BaseException:
            if waiter.is_set():
                self.wake_one(node_id)
            raise
        finally:
            waiters = self._waiters.get(node_id, {})
            waiters.pop(waiter, None)
            if not waiters:
                self._waiters.pop(node_id, None)

    def wake_one(self, node_id: int) -> None:
        """Wake the one that has waited longest at a node."""
        waiters = self._waiters.get(node_id)
        if waiters:
            waiter = next(iter(waiters))
            del waiters[waiter]
            waiter.set()

    def wake_all(self, node_id: int) -> None:
        """Wake everyone who waits at a node."""
        while self._waiters.get(node_id):
            self.wake_one(node_id)

    def wake_everyone(self) -> None:
        """Wake everyone at every node: nobody knows what they missed."""
        for node_id in tuple(self._waiters):
            self.wake_all(node_id)


class Gathering:
    """A driver that waits for several answers."""

    def __init__(self, task_ids: Collection[str], enough: int) -> None:
        self.pending = set(task_ids)
        self.over = trio.Event()
        self._sizes: dict[str, int] = {}
        self._missing_bytes = enough

    def settle(self, settled: Mapping[str, int]) -> None:
        """Take note of answers, by the ids of what they answer, and of their sizes."""
        for task_id, size in settled.items():
            self.pending.discard(task_id)
            self._missing_bytes -= size - self._sizes.get(task_id, 0)
            self._sizes[task_id] = size
        if self.done:
            self.over.set()

    @property
    def done(self) -> bool:
        """Whether the driver has waited long enough."""
        return not self.pending or self._missing_bytes <= 0


class Gatherings:
    """All drivers that wait."""

    def __init__(self) -> None:
        self._by_task: dict[str, set[Gathering]] = {}
        self._all: set[Gathering] = set()

    @contextmanager
    def joined(self, gathering: Gathering) -> Iterator[None]:
        """Let a driver hear of its answers inside the block."""
        task_ids = tuple(gathering.pending)
        self._all.add(gathering)
        for task_id in task_ids:
            self._by_task.setdefault(task_id, set()).add(gathering)
        try:
            yield
        finally:
            self._all.remove(gathering)
            for task_id in task_ids:
                self._by_task[task_id].discard(gathering)
                if not self._by_task[task_id]:
                    del self._by_task[task_id]

    def settle(self, task_id: str, size: int) -> None:
        """Tell those who wait for this answer that it is there, or will never be."""
        for gathering in self._by_task.get(task_id, ()):
            gathering.settle({task_id: size})

    def look_again(self) -> None:
        """Let every driver look again: a node is gone, or nobody knows what they missed."""
        for gathering in self._all:
            gathering.over.set()
