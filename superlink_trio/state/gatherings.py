"""Drivers that wait for answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import trio


class Gathering:
    """A driver that waits for several answers."""

    def __init__(
        self, task_ids: Collection[str], enough: int, progress: Callable[[int], object] | None
    ) -> None:
        self.pending = set(task_ids)
        self._progress = progress
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
        elif self._progress is not None:
            self._progress(len(self.pending))

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
        """Subscribe a driver to its answers inside the block."""
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
