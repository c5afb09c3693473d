"""A table that fits a terminal, however narrow: ids stay whole there, everything else gives way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from superlink_trio.logs.wording import harmless

_GAP = 2  # cells behind each column

# What is as long as a number of 64 bits, with a sign before it, or a comma behind.
_ID = re.compile(r"\S*\d{15}\S*")
_LONGEST_ID = 21

# Most words that are not an app's or a person's fit into so many cells.
_SHORT = 8


def _harmless(rows: Iterable[Iterable[str]]) -> Sequence[Sequence[str]]:
    return [[harmless(cell) for cell in row] for row in rows]


@attrs.frozen
class Columns:
    """Rows of text below headings. `styles`: how cells are drawn that hold just that word."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]] = attrs.field(converter=_harmless)
    styles: Mapping[str, str] = attrs.field(factory=dict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = fitted(columns, options.max_width - _GAP * len(columns))
        table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
        for heading, width in zip(self.headings, widths, strict=True):
            table.add_column(heading, overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*(Text(cell, style=self.styles.get(cell, "")) for cell in row))
        yield table


def fitted(columns: Sequence[Sequence[str]], room: int) -> Sequence[int]:
    """Give the width of each column: as many cells as it needs, less where there is no room.

    The widest give way first, and none so far that an id in it is broken: they may be wider in all
    than the room then.
    """
    widths = [max(map(cell_len, cells)) for cells in columns]
    least = [_least(cells, width) for cells, width in zip(columns, widths, strict=True)]
    while sum(widths) > room:
        wider = [number for number, width in enumerate(widths) if width > least[number]]
        if not wider:
            break
        widths[max(wider, key=widths.__getitem__)] -= 1
    return widths


def _least(cells: Sequence[str], width: int) -> int:
    ids = [len(word) for cell in cells for word in _ID.findall(cell)]
    return min(width, max([_SHORT, *ids]), _LONGEST_ID)
