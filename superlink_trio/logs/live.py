"""A terminal that is watched: the log above, a line that moves below it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, TextIO, TypeAlias

import attrs
import trio
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_REDRAW_AFTER = 0.1
"""Seconds between two pictures: people cannot read faster, and drawing costs time."""


@attrs.frozen
class Gauge:
    """A bar, `width` characters long, that is full at `total`; None: nobody knows."""

    completed: int
    total: int | None
    width: int = 40


@attrs.frozen
class Styled:
    """A text that stands out, or back."""

    text: str
    style: Literal["red", "dim"]


Line: TypeAlias = Sequence[str | Gauge | Styled]
"""What a line shows, from left to right."""


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

    async def show(
        self,
        line: Callable[[], Line],
        changed: Callable[[], Awaitable[object]],
        *,
        leave: bool = True,
    ) -> None:
        """Show a line until cancelled; draw it again after `changed`, though not too often.

        With `leave` its last state stays. A terminal that is gone is no error.
        """
        with (
            suppress(OSError),
            Live(
                console=self._console,
                auto_refresh=False,
                transient=not leave,
                # What goes to a file or a pipe is not for the terminal.
                redirect_stdout=sys.stdout.isatty(),
            ) as live,
        ):
            try:
                while True:
                    live.update(_picture(line()), refresh=True)
                    await trio.sleep(_REDRAW_AFTER)
                    await changed()
            finally:
                live.update(_picture(line()), refresh=True)


def _picture(line: Line) -> Table:
    row = Table.grid(padding=(0, 2))
    for _ in line:
        row.add_column(no_wrap=True)
    row.add_row(*map(_cell, line))
    return row


def _cell(cell: str | Gauge | Styled) -> RenderableType:
    match cell:
        case Gauge(completed, total, width):
            return ProgressBar(total, completed, width=width, finished_style="bar.complete")
        case Styled(text, style):
            return Text(text, style=style)
    return Text(cell)
