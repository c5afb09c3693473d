"""Deadlines of many connections, and one timer."""

from __future__ import annotations

import math

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.transport.http.watch import Watch


@attrs.define(eq=False)
class One:
    watch: Watch
    deadline: float = math.inf
    ended: float | None = None

    def wait(self, seconds: float) -> None:
        self.deadline = trio.current_time() + seconds
        if self.deadline < self.watch.until:
            self.watch.sooner(self.deadline)

    def abort(self) -> None:
        self.ended = trio.current_time()
        self.watch.watched.discard(self)


async def test_each_ends_at_its_deadline_and_not_before(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = Watch()
    late, early, moved, never = ones = [One(watch) for _ in range(4)]
    watch.watched.update(ones)
    late.wait(100)
    nursery.start_soon(watch.run)
    await wait_all_tasks_blocked()
    early.wait(10)
    moved.wait(20)
    await trio.sleep(15)
    moved.wait(30)
    await trio.sleep(1000)
    assert (early.ended, moved.ended, late.ended, never.ended) == (10, 45, 100, None)


async def test_it_looks_twice_a_second_at_most(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = Watch()
    ones = [One(watch) for _ in range(100)]
    watch.watched.update(ones)
    nursery.start_soon(watch.run)
    for number, one in enumerate(ones):
        one.wait(10 + number / 100)
    await trio.sleep(20)
    assert {one.ended for one in ones} == {10, 10.5, 11}


async def test_it_does_nothing_where_there_is_nothing_to_do(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = Watch()
    watch.watched.add(One(watch))
    nursery.start_soon(watch.run)
    await trio.sleep(1)
    assert watch.until == math.inf
