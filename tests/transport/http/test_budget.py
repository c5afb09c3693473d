from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.transport.http.budget import SMALL, Budget, Full


async def test_what_fits_gets_room_at_once_and_what_does_not_waits_its_turn() -> None:
    budget = Budget(10 * SMALL)
    order: list[int] = []

    async def use(size: int, until: trio.Event) -> None:
        async with budget.wait_for(size * SMALL):
            order.append(size)
            await until.wait()

    first, others = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, 6, first)
        await wait_all_tasks_blocked()
        nursery.start_soon(use, 9, others)
        await wait_all_tasks_blocked()
        # Would fit, but does not overtake.
        nursery.start_soon(use, 2, others)
        await wait_all_tasks_blocked()
        assert order == [6]
        first.set()
        await wait_all_tasks_blocked()
        assert order == [6, 9]
        others.set()
    assert order == [6, 9, 2]


async def test_what_is_larger_than_all_gets_all() -> None:
    budget = Budget(SMALL)
    async with budget.wait_for(100 * SMALL):
        with pytest.raises(Full), budget.take(SMALL):
            pass
    with budget.take(100 * SMALL):
        pass


async def test_who_gives_up_waiting_is_in_nobodys_way(autojump_clock: MockClock) -> None:
    budget = Budget(4 * SMALL)
    async with budget.wait_for(2 * SMALL):
        with trio.move_on_after(1) as patience:
            async with budget.wait_for(3 * SMALL):
                pytest.fail("there was no room")
        assert patience.cancelled_caught
        async with budget.wait_for(2 * SMALL):
            pass


async def test_small_sizes_are_not_counted() -> None:
    budget = Budget(SMALL)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(budget.take(SMALL - 1))
        stack.enter_context(budget.take(SMALL))
