"""A terminal on which a simulation is watched: the log above, a line that moves below it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TextIO

import attrs
import trio
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from superlink_trio.logs.wording import counted
from superlink_trio.simulation.progress import Progress

_REDRAW_AFTER = 0.1
"""Seconds between two pictures: people cannot read faster, and drawing costs time."""

_WINDOW = 3.0
"""Seconds over which the rate is taken; it is 0 when nothing was done for as long."""


class Terminal:
    """Standard error as both the log and a live line share it.

    It is a stream for whole lines of the log; each is written above the live line, and never
    broken to the terminal's width.
    """

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        self._console = console or Console(file=stream)

    def write(self, text: str) -> int:
        """Write whole lines, which may hold colours."""
        line = Text.from_ansi(text.removesuffix("\n"))
        self._console.print(line, soft_wrap=True, highlight=False)
        return len(text)

    def flush(self) -> None:
        """See `write`: nothing is kept back."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._console.is_terminal

    async def show(self, progress: Progress) -> None:
        """Show how a simulation gets on until cancelled, and leave its last state standing."""
        rate = Rate()
        # A terminal that is gone is no reason to end the simulation.
        with suppress(OSError), Live(console=self._console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(picture(progress, rate.of(progress.done)), refresh=True)
                    await trio.sleep(_REDRAW_AFTER)
                    with trio.move_on_after(_WINDOW if rate.moving else float("inf")):
                        await progress.changed()
            finally:
                live.update(picture(progress, rate.of(progress.done)), refresh=True)


@attrs.define
class Rate:
    """Tasks a second, over the last few seconds."""

    _seen: deque[tuple[float, int]] = attrs.field(factory=deque)

    def of(self, done: int) -> float:
        """Note how many tasks are done now; give the rate."""
        now = trio.current_time()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / max(now - since, _REDRAW_AFTER)

    @property
    def moving(self) -> bool:
        """Whether the rate changes even if nothing more is done."""
        return self._seen[0][1] != self._seen[-1][1]


def picture(progress: Progress, rate: float) -> Table:
    """Draw the line."""
    cells = (
        ProgressBar(
            total=max(progress.capacity, 1),
            completed=progress.running,
            width=8,
            finished_style="bar.complete",
        ),
        f"{progress.running}/{progress.capacity} running",
        f"{progress.waiting}/{counted(progress.nodes, 'node')} waiting",
        f"{progress.done} done",
        f"{rate:.1f}/s",
        Text(f"{progress.failed} failed", style="red" if progress.failed else "dim"),
    )
    row = Table.grid(padding=(0, 2))
    for _ in cells:
        row.add_column(no_wrap=True)
    row.add_row(*cells)
    return row
