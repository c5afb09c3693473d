"""A terminal that keeps what a person would see."""

from __future__ import annotations

import io
import re

from rich.console import Console

from superlink_trio.logs.live import Terminal


class Screen:
    """A terminal, and what it shows: rows are kept as they were drawn last."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.terminal = Terminal(
            self.out, Console(force_terminal=True, file=self.out, width=100, color_system=None)
        )

    @property
    def rows(self) -> list[str]:
        rows, row = [""], 0
        for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", self.out.getvalue()):
            if piece == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif piece == "\x1b[2K":
                rows[row] = ""
            elif up := re.fullmatch(r"\x1b\[(\d+)A", piece):
                row -= int(up[1])
            elif piece and piece[0] not in "\x1b\r":
                rows[row] += piece
        return [row.rstrip() for row in rows if row.strip()]
