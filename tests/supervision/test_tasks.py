"""The tasks of a Trio run as text."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from superlink_trio.supervision import task_tree


async def park(event: trio.Event) -> None:
    await event.wait()


async def outer(event: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(park, event, name="inner")


def lines_about(name: str) -> list[str]:
    return [line for line in task_tree().splitlines() if f" {name}: " in line]


async def test_each_task_says_where_it_waits(nursery: trio.Nursery) -> None:
    event = trio.Event()
    nursery.start_soon(park, event, name="parked")
    await wait_all_tasks_blocked()
    line = park.__code__.co_firstlineno + 1
    [found] = lines_about("parked")
    assert found.endswith(f"parked: {__name__}.park:{line} (Event.wait)")
    event.set()


async def test_tasks_are_drawn_inside_one_another(nursery: trio.Nursery) -> None:
    event = trio.Event()
    nursery.start_soon(outer, event, name="outer")
    await wait_all_tasks_blocked()
    [parent], [child] = lines_about("outer"), lines_about("inner")
    assert child.index("inner") == parent.index("outer") + 4
    event.set()


async def test_equal_siblings_share_a_line(nursery: trio.Nursery) -> None:
    event = trio.Event()
    for _ in range(9_998):
        nursery.start_soon(park, event, name="call")
    nursery.start_soon(trio.sleep_forever, name="call")
    nursery.start_soon(outer, event, name="call")
    await wait_all_tasks_blocked()
    found = sorted(line.partition("  [")[2] for line in lines_about("call"))
    assert found == ["", "", "9,998 tasks like this one]"]
    assert len(task_tree()) < 10_000
    nursery.cancel_scope.cancel()


async def test_a_task_of_a_library_is_there_too(nursery: trio.Nursery) -> None:
    nursery.start_soon(trio.sleep_forever, name="sleeper")
    await wait_all_tasks_blocked()
    [found] = lines_about("sleeper")
    assert "trio._timeouts.sleep_forever:" in found
    nursery.cancel_scope.cancel()
