from __future__ import annotations

import io
import sys

import pytest
import trio
from rich.console import Console
from screens import Screen
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.logs.live import Gauge, Terminal


@pytest.fixture
def screen() -> Screen:
    return Screen()


async def test_log_lines_stand_above_the_line(
    screen: Screen, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    long = "Node 1 [red]left[/red] " + "a" * 200
    nursery.start_soon(screen.terminal.show, lambda: ["0 done"], trio.sleep_forever)
    await wait_all_tasks_blocked()
    for line in ("one", long, "two\nand a half"):
        screen.terminal.write(line + "\n")
    assert screen.rows[:-1] == ["one", long, "two", "and a half"]
    assert "0 done" in screen.rows[-1]


async def test_what_goes_to_a_file_is_not_shown(
    screen: Screen,
    mock_clock: MockClock,
    nursery: trio.Nursery,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nursery.start_soon(screen.terminal.show, lambda: ["0 done"], trio.sleep_forever)
    await wait_all_tasks_blocked()
    sys.stdout.write("a result\n")
    assert capsys.readouterr().out == "a result\n"
    assert len(screen.rows) == 1


async def test_a_terminal_that_is_gone_ends_nothing(mock_clock: MockClock) -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(5, "Input/output error")

    out = Gone()
    terminal = Terminal(out, Console(force_terminal=True, file=out))
    await terminal.show(lambda: [Gauge(1, 2)], trio.sleep_forever)


async def test_a_line_is_drawn_ten_times_a_second_at_most(
    screen: Screen, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    drawn: list[float] = []

    def line() -> list[str]:
        drawn.append(trio.current_time())
        return [f"[{len(drawn)}]"]

    nursery.start_soon(screen.terminal.show, line, trio.lowlevel.checkpoint)
    await wait_all_tasks_blocked()
    for _ in range(8):
        mock_clock.jump(0.0625)
        await wait_all_tasks_blocked()
    assert drawn == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert screen.rows == ["[5]"], "words in brackets are no markup"


async def test_nothing_is_left_of_a_line_that_is_not_to_stay(
    screen: Screen, mock_clock: MockClock
) -> None:
    with trio.move_on_after(1):
        mock_clock.autojump_threshold = 0
        await screen.terminal.show(lambda: ["a line"], trio.sleep_forever, leave=False)
    screen.terminal.write("after\n")
    assert screen.rows == ["after"]
