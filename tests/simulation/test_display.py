from __future__ import annotations

import pytest
import trio
from screens import Screen
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.simulation.display import show
from superlink_trio.simulation.progress import Progress


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
