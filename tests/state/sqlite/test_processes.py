"""Several processes over one file. Two stores in one process are two processes to each other."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import answer_to, is_error, task_ins
from stores import settle

from superlink_trio.state import SqliteState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS

MiB = 1024 * 1024


@pytest.fixture
async def sides(serving: Any) -> Any:
    async with serving() as driver, serving() as fleet:
        yield driver, fleet


@pytest.fixture
def forgetful(file: Path) -> Callable[[], None]:
    """Make it as if very much happened after each thing that happens in the file."""

    def make() -> None:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(
                "CREATE TRIGGER forgetful AFTER INSERT ON superlink_news BEGIN"
                " DELETE FROM superlink_news; END"
            )

    return make


async def test_who_missed_news_looks_at_everything(
    sides: tuple[SqliteState, SqliteState], forgetful: Callable[[], None]
) -> None:
    driver, fleet = sides
    run_id, node_id = await driver.create_run(Run()), await fleet.create_node(30.0)
    assert await fleet.take_task_ins(node_id, "c1") is None
    await settle(driver, fleet)
    task = task_ins(run_id, node_id)
    forgetful()
    await driver.store_task_ins([task])
    await settle(driver, fleet)
    assert await fleet.take_task_ins(node_id, "c1") == task


async def test_who_listens_for_many_nodes_and_missed_news_looks_again(
    sides: tuple[SqliteState, SqliteState], forgetful: Callable[[], None]
) -> None:
    driver, fleet = sides
    run_id = await driver.create_run(Run())
    nodes = [await fleet.create_node(30.0) for _ in range(3)]
    await settle(driver, fleet)
    forgetful()
    with fleet.arrivals(nodes) as arrivals:
        for node_id in nodes:
            await driver.store_task_ins([task_ins(run_id, node_id)])
            with trio.fail_after(5):
                assert await arrivals.next() == node_id
            assert await fleet.take_task_ins(node_id, "c1") is not None


async def test_a_killed_process_holds_nothing(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    async with serving(clock=time.time) as driver:
        run_id = await driver.create_run(Run())
        fleet = start("fleet.py", file, "hold")
        node_id = await fleet.told()
        task = task_ins(run_id, node_id, now=time.time())
        await driver.store_task_ins([task])
        await fleet.told()
        assert await fleet.told() == task.task_id
        assert await driver.take_task_ins(node_id) is None
        fleet.kill()
        await driver.store_task_ins([task_ins(run_id, node_id, now=time.time())])
        await settle(driver)
        assert await driver.take_task_ins(node_id) == task


async def test_a_killed_process_simulates_no_nodes(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    simulation = start("simulate.py", file)
    nodes = await simulation.told()
    async with serving(clock=time.time) as driver:
        run_id = await driver.create_run(Run())
        assert sorted(await driver.online_nodes(run_id)) == sorted(nodes)
        task = task_ins(run_id, nodes[0], now=time.time())
        await driver.store_task_ins([task])
        simulation.kill()
        with trio.fail_after(20):
            await driver.await_task_res([task.task_id], MiB)
        [answer] = await driver.take_task_res([task.task_id], MiB)
        assert is_error(answer, 3)
        assert await driver.online_nodes(run_id) == []


@pytest.mark.alone
async def test_another_process_is_woken_at_once(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    async with serving(clock=time.time) as driver:
        run_id = await driver.create_run(Run())
        fleet = start("fleet.py", file, "finish")
        node_id = await fleet.told()
        task = task_ins(run_id, node_id, now=time.time())
        pushed = time.time()
        await driver.store_task_ins([task])
        await driver.await_task_res([task.task_id], MiB)
        answered = time.time()
        [answer] = await driver.take_task_res([task.task_id], MiB)
        assert answer.content == b"result"
        assert await fleet.told() - pushed < 1.0
        assert answered - pushed < 1.0
        fleet.tell()
        assert await trio.to_thread.run_sync(fleet.process.wait) == 0


async def test_who_cannot_take_leaves_it_to_another(serving: Any, nursery: trio.Nursery) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        took: list[object] = []

        async def hasty() -> None:
            await state.await_task_ins(ANONYMOUS)
            with trio.CancelScope() as scope:
                scope.cancel()
                await state.take_task_ins(ANONYMOUS)

        async def patient() -> None:
            await state.await_task_ins(ANONYMOUS)
            took.append(await state.take_task_ins(ANONYMOUS))

        for pull in (hasty, patient):
            nursery.start_soon(pull)
            await settle(state)
        task = task_ins(run_id, ANONYMOUS)
        await state.store_task_ins([task])
        await settle(state)
        assert took == [task]


async def test_those_who_wait_outlive_a_restart_of_their_store(
    file: Path, nursery: trio.Nursery
) -> None:
    state = SqliteState(str(file))
    got: list[object] = []

    async def pull(node_id: int) -> None:
        got.append(await state.await_task_ins(node_id))

    async def gather(task_id: str) -> None:
        await state.await_task_res([task_id], MiB)
        got.append(task_id)

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        stopping = trio.Event()
        async with trio.open_nursery() as life:
            await life.start(
                lambda task_status: state.serve(stopping=stopping, task_status=task_status)
            )
            yield
            stopping.set()

    async with serving():
        run_id = await state.create_run(Run())
        node_id, busy = await state.create_node(1e6), await state.create_node(1e6)
        asked = task_ins(run_id, busy, now=time.time())
        await state.store_task_ins([asked])
        nursery.start_soon(pull, node_id)
        nursery.start_soon(gather, asked.task_id)
        await settle(state)
    async with serving():
        await settle(state)
        assert got == []
        await state.store_task_ins([task_ins(run_id, node_id, now=time.time())])
        await state.store_task_res(answer_to(asked, now=time.time()))
        await settle(state)
        assert got == [True, asked.task_id]


async def test_a_process_that_ended_long_ago_is_forgotten(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    fleet = start("fleet.py", file, "hold")
    await fleet.told()
    fleet.kill()
    async with serving():
        with closing(sqlite3.connect(file)) as connection:
            query = "SELECT count(*) FROM superlink_process"
            assert connection.execute(query).fetchone() == (1,)
        assert len([name for name in os.listdir(file.parent) if ".superlink-" in name]) == 2
    assert os.listdir(file.parent) == [file.name]
