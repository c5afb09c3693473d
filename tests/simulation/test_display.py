from __future__ import annotations

import io
import re
import sys

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.logs.live import Terminal
from superlink_trio.simulation.display import show
from superlink_trio.simulation.progress import Progress


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


@pytest.fixture
def screen() -> Screen:
    return Screen()


async def test_the_line_moves_with_the_counts(
    screen: Screen, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    progress = Progress(nodes=10, capacity=2)
    nursery.start_soon(show, screen.terminal, progress)
    await wait_all_tasks_blocked()
    assert "0/2 running  0/10 nodes waiting  0 done  0.0/s  0 failed" in screen.rows[-1]
    progress.running, progress.queue = 2, [1, 2, 3]
    for _ in range(4):
        progress.answered(failed=False)
    progress.answered(failed=True)
    mock_clock.jump(1)
    await wait_all_tasks_blocked()
    assert "2/2 running  3/10 nodes waiting  5 done  5.0/s  1 failed" in screen.rows[-1]
    assert len(screen.rows) == 1


async def test_the_rate_falls_to_nothing_and_then_nothing_is_drawn(
    screen: Screen, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    progress = Progress(nodes=10, capacity=2)
    nursery.start_soon(show, screen.terminal, progress)
    await wait_all_tasks_blocked()
    progress.answered(failed=False)
    for _ in range(20):
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
    assert "1 done  0.0/s" in screen.rows[-1]
    drawn = len(screen.out.getvalue())
    mock_clock.jump(3600)
    await wait_all_tasks_blocked()
    assert len(screen.out.getvalue()) == drawn


async def test_log_lines_stand_above_the_line(
    screen: Screen, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    long = "Node 1 [red]left[/red] " + "a" * 200
    nursery.start_soon(show, screen.terminal, Progress(nodes=10, capacity=2))
    await wait_all_tasks_blocked()
    for line in ("one", long, "two\nand a half"):
        screen.terminal.write(line + "\n")
    assert screen.rows[:-1] == ["one", long, "two", "and a half"]
    assert "0 done" in screen.rows[-1]


async def test_the_last_state_stays(screen: Screen, mock_clock: MockClock) -> None:
    progress = Progress(nodes=10, capacity=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, screen.terminal, progress)
        await wait_all_tasks_blocked()
        progress.answered(failed=False)
        nursery.cancel_scope.cancel()
    screen.terminal.write("after\n")
    assert "1 done" in screen.rows[-2]
    assert screen.out.getvalue().count("\x1b[?25h") == 1, "the cursor is shown again"
    assert screen.rows[-1] == "after"


async def test_a_terminal_that_is_gone_ends_nothing(mock_clock: MockClock) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(5, "Input/output error")

    out = Gone()
    await show(Terminal(out, Console(force_terminal=True, file=out)), Progress())


async def test_what_goes_to_a_file_is_not_shown(
    screen: Screen,
    mock_clock: MockClock,
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nursery.start_soon(show, screen.terminal, Progress(nodes=10, capacity=2))
    await wait_all_tasks_blocked()
    sys.stdout.write("a result\n")
    assert capsys.readouterr().out == "a result\n"
    assert len(screen.rows) == 1
