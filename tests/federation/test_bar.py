from __future__ import annotations

import trio
from screens import Screen
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.federation.bar import Bar


async def test_the_round_and_its_answers_are_shown(
    mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    screen = Screen()
    bar = Bar(screen.terminal)

    async def shown() -> str:
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        [row] = screen.rows
        return row

    nursery.start_soon(bar.show)
    assert (await shown()).startswith("waiting for clients")
    bar.round_begins(2, 3)
    bar.phase_begins("fit", 20)
    assert (await shown()).startswith("round 2/3 fit")
    for _ in range(7):
        bar.answered()
    assert "  7/20  " in await shown()
    bar.phase_begins("evaluate", 5)
    row = await shown()
    assert row.startswith("round 2/3 evaluate")
    assert "  0/5  " in row
