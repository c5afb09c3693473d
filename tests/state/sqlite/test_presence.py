"""Processes that see each other badly: what one holds stays its own, and nobody waits for ever."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import SqliteState
from superlink_trio.wire.runs import Run

# Seconds after which a process that nobody told anything has looked by itself.
LOOK = 2.0


def beside(file: Path) -> list[Path]:
    """Give what processes have beside their database."""
    return [path for path in file.parent.iterdir() if ".superlink-" in path.name]


def hide_sockets(file: Path) -> None:
    """Make it as if the sockets were in a place that others cannot see."""
    for path in beside(file):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()


async def later(clock: MockClock, *states: SqliteState) -> None:
    """Let stores do what they do by themselves in the next seconds."""
    await settle(*states)
    clock.jump(LOOK)
    await settle(*states)


@pytest.fixture
def pull(nursery: trio.Nursery) -> Callable[[SqliteState, int], list[object]]:
    """Start a pull that waits for its task; the list has it as soon as it is there."""

    def start(state: SqliteState, node_id: int) -> list[object]:
        got: list[object] = []

        async def wait() -> None:
            while not got and await state.await_task_ins(node_id):
                got.extend(filter(None, [await state.take_task_ins(node_id, "c1")]))

        nursery.start_soon(wait)
        return got

    return start


async def test_who_is_out_of_sight_keeps_what_it_holds(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as holder:
        run_id, node_id = await holder.create_run(Run()), await holder.create_node(1e3)
        task, more = task_ins(run_id, node_id), task_ins(run_id, 4711)
        await holder.store_task_ins([task])
        assert await holder.take_task_ins(node_id, "c1") == task
        hide_sockets(file)
        async with serving() as other:
            hide_sockets(file)
            await other.store_task_ins([more])
            for _ in range(3):
                await later(mock_clock, holder, other)
                assert await other.take_task_ins(node_id, "c2") is None


async def test_who_cannot_be_woken_looks_by_itself(
    serving: Any, file: Path, mock_clock: MockClock, pull: Callable[..., list[object]]
) -> None:
    async with serving() as fleet:
        run_id, node_id = await fleet.create_run(Run()), await fleet.create_node(1e3)
        got = pull(fleet, node_id)
        await settle(fleet)
        hide_sockets(file)
        async with serving() as driver:
            hide_sockets(file)
            task = task_ins(run_id, node_id)
            await driver.store_task_ins([task])
            await later(mock_clock, fleet, driver)
            assert got == [task]


async def test_who_was_taken_for_dead_registers_anew_and_looks_at_everything(
    serving: Any, file: Path, mock_clock: MockClock, pull: Callable[..., list[object]]
) -> None:
    async with serving() as fleet:
        run_id, node_id = await fleet.create_run(Run()), await fleet.create_node(1e3)
        got = pull(fleet, node_id)
        await settle(fleet)
        for path in beside(file):
            path.unlink()
        async with serving() as driver:
            task = task_ins(run_id, node_id)
            await driver.store_task_ins([task])
            await later(mock_clock, fleet, driver)
            assert got == [task], "it has looked"
            for _ in range(2):
                await later(mock_clock, fleet, driver)
                assert await driver.take_task_ins(node_id, "c2") is None, "it is seen again"
            with closing(sqlite3.connect(file)) as connection:
                query = "SELECT count(*) FROM superlink_process"
                assert connection.execute(query).fetchone() == (2,)


async def test_who_was_taken_for_dead_has_lost_what_it_held(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as holder:
        run_id, node_id = await holder.create_run(Run()), await holder.create_node(1e3)
        task = task_ins(run_id, node_id)
        await holder.store_task_ins([task])
        assert await holder.take_task_ins(node_id, "c1") == task
        for path in beside(file):
            path.unlink()
        async with serving() as other:
            assert await other.take_task_ins(node_id, "c2") == task
            await holder.put_back_task_ins(task)
            await later(mock_clock, holder, other)
            assert await holder.take_task_ins(node_id, "c1") is None


async def test_a_lock_that_somebody_removed_is_taken_again(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as holder:
        run_id, node_id = await holder.create_run(Run()), await holder.create_node(1e3)
        task = task_ins(run_id, node_id)
        await holder.store_task_ins([task])
        assert await holder.take_task_ins(node_id, "c1") == task
        for path in beside(file):
            path.unlink()
            path.write_text("restored from somewhere")
        await later(mock_clock, holder)
        async with serving() as other:
            assert await other.take_task_ins(node_id, "c2") is None


@pytest.mark.parametrize("name", ["a" * 40, "a" * 200], ids=["long path", "long name"])
async def test_long_names_are_no_obstacle(
    serving: Any, tmp_path: Path, name: str, mock_clock: MockClock
) -> None:
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    async with serving(folder / name) as driver, serving(folder / name) as fleet:
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(1e3)
        assert await fleet.take_task_ins(node_id, "c1") is None
        task = task_ins(run_id, node_id)
        await driver.store_task_ins([task])
        await later(mock_clock, fleet, driver)
        assert await fleet.take_task_ins(node_id, "c1") == task
        assert await driver.take_task_ins(node_id, "c1") is None
    assert os.listdir(folder) == [name]


async def test_one_file_by_two_paths_is_one_file(serving: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(file)
    async with serving() as driver, serving(link) as fleet:
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(1e3)
        task, other = task_ins(run_id, node_id), task_ins(run_id, node_id)
        await driver.store_task_ins([task, other])
        assert await driver.take_task_ins(node_id, "c1") == task
        await settle(driver, fleet)
        assert await fleet.take_task_ins(node_id, "c1") == other
