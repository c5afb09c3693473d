"""A simulation on a terminal: how many apps run, how many nodes wait, and how fast it goes."""

from __future__ import annotations

from collections import deque

import attrs
import trio

from superlink_trio.logs.live import Gauge, Line, Styled, Terminal
from superlink_trio.logs.wording import counted
from superlink_trio.simulation.progress import Progress

_WINDOW = 3.0
"""Seconds over which the rate is taken; it is 0 when nothing was done for as long."""

_SHORTEST = 0.1
"""Seconds over which it is taken at least."""


async def show(terminal: Terminal, progress: Progress) -> None:
    """Show how a simulation gets on until cancelled, and leave its last state standing."""
    rate = _Rate()

    async def changed() -> None:
        with trio.move_on_after(_WINDOW if rate.moving else float("inf")):
            await progress.changed()

    await terminal.show(lambda: _line(progress, rate.of(progress.done)), changed)


@attrs.define
class _Rate:
    """Tasks a second, over the last few seconds."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=deque)

    def of(self, done: int) -> float:
        """Take in how many tasks are done now; give the rate."""
        now = trio.current_time()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / max(now - since, _SHORTEST)

    @property
    def moving(self) -> bool:
        """Whether the rate changes even if nothing more is done."""
        return self._seen[0][1] != self._seen[-1][1]


def _line(progress: Progress, rate: float) -> Line:
    return (
        Gauge(progress.running, max(progress.capacity, 1), width=8),
        f"{progress.running}/{progress.capacity} running",
        f"{progress.waiting}/{counted(progress.nodes, 'node')} waiting",
        f"{progress.done} done",
        f"{rate:.1f}/s",
        Styled(f"{progress.failed} failed", "red" if progress.failed else "dim"),
    )
