"""Replicas whose PostgreSQL fails over to its standby."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio
from builders import answer_to, task_ins
from standby import Pair, pair_of_servers
from stores import hear, serving

from superlink_trio.state import StateUnavailable
from superlink_trio.state.postgres import PostgresState
from superlink_trio.wire.runs import Run

_LIMIT = 2**29


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_servers() as pair:
        yield pair


async def test_what_was_acknowledged_is_there_after_a_failover(pair: Pair) -> None:
    acknowledged: list[str] = []
    answered: dict[str, str] = {}
    async with (
        serving(driver := PostgresState(pair.url)),
        serving(fleet := PostgresState(pair.url)),
    ):
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(600.0)

        async def push() -> None:
            while True:
                task = task_ins(run_id, node_id, now=driver.now())
                acknowledged.extend(await driver.store_task_ins([task]))

        async def work() -> None:
            while True:
                task = await fleet.take_task_ins(node_id, "c")
                if task is None:
                    await fleet.await_task_ins(node_id)
                else:
                    await fleet.confirm_task_ins(task)
                    answer = answer_to(task, now=fleet.now())
                    answered[task.task_id] = await fleet.store_task_res(answer)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_refused, push)
                nursery.start_soon(_until_refused, work)
                while len(answered) < 20:
                    await trio.lowlevel.checkpoint()
                await trio.to_thread.run_sync(pair.fail_over)
            for state in (driver, fleet):
                await _served_again(state, run_id)
            assert await driver.online_nodes(run_id) == [node_id]
            # A node that is parked at one hears of what is pushed at another.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fleet.await_task_ins, node_id)
                await driver.store_task_ins([task_ins(run_id, node_id, now=driver.now())])
            given = await driver.take_task_res(acknowledged, _LIMIT)
            assert {each.ancestry[0]: each.task_id for each in given}.items() >= answered.items()
            missing = set(acknowledged) - {each.ancestry[0] for each in given}
            while missing:
                await fleet.await_task_ins(node_id)
                if (task := await fleet.take_task_ins(node_id, "d")) is not None:
                    missing.discard(task.task_id)
                    await fleet.confirm_task_ins(task)


async def _until_refused(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(StateUnavailable):
        await work()


async def _served_again(state: PostgresState, run_id: int) -> None:
    while True:
        with suppress(StateUnavailable):
            # Its connections are made anew one by one, when they are needed: to write, to read.
            await hear(state)
            assert await state.get_run(run_id) is not None
            return
        await trio.sleep(0.05)
