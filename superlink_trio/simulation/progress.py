"""How a simulation gets on: counts that somebody shows, in the log or on a terminal."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sized
from typing import TypeAlias

import attrs
import trio

from superlink_trio.logs.wording import counted

_log = logging.getLogger(__name__)

_INTERVAL = 5.0
"""Seconds between two lines in the log."""


@attrs.define(eq=False)
class Progress:
    """Counts of one simulation, from its first start on."""

    nodes: int = 0
    capacity: int = 0
    """How many apps run at the same time."""
    running: int = 0
    done: int = 0
    """Tasks that were answered, failures included."""
    failed: int = 0
    """Tasks that were answered by an error."""
    queue: Sized = ()
    """Nodes that are known to have a task and wait for a worker."""
    _news: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    @property
    def waiting(self) -> int:
        """How many nodes wait for a worker."""
        return len(self.queue)

    def notify(self) -> None:
        """Wake who waits for `changed`."""
        self._news.set()

    async def changed(self) -> None:
        """Return when counts have changed since this returned last. For one task at a time."""
        await self._news.wait()
        self._news = trio.Event()

    def answered(self, *, failed: bool) -> None:
        """Count an answer."""
        self.done += 1
        self.failed += failed
        self.notify()


Display: TypeAlias = Callable[[Progress], Awaitable[None]]
"""Shows how a simulation gets on, until it is cancelled."""


async def log_progress(progress: Progress) -> None:
    """Log what was done, at most every few seconds and not while nothing is."""
    done, failed, since = progress.done, progress.failed, trio.current_time()
    try:
        while True:
            await progress.changed()
            # What comes after a pause begins now.
            since = trio.current_time() if progress.done == done else since
            await trio.sleep(_INTERVAL)
            _log_counts(progress, done, failed, since)
            done, failed, since = progress.done, progress.failed, trio.current_time()
    finally:
        _log_counts(progress, done, failed, since)


def _log_counts(progress: Progress, done: int, failed: int, since: float) -> None:
    tasks, failures = progress.done - done, progress.failed - failed
    if not tasks:
        return
    rate = tasks / max(trio.current_time() - since, 0.001)
    _log.info(
        "Simulation: %s done (%.1f/s), %d failed; %d running, %s waiting",
        *(counted(tasks, "task"), rate, failures),
        *(progress.running, counted(progress.waiting, "node")),
        extra={
            "tasks": tasks,
            "rate": round(rate, 1),
            "failures": failures,
            "running": progress.running,
            "waiting": progress.waiting,
        },
    )
