"""Another program has the file, for longer than anybody could wait: who has to end does so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import task_ins
from stores import settle
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.state import SqliteState, StateUnavailable
from superlink_trio.wire.runs import Run

_FOR_EVER = 3600.0


async def until_busy(state: SqliteState) -> None:
    while not state.busy:
        await trio.lowlevel.checkpoint()


async def test_a_stop_does_not_wait_for_another_program(
    file: Path, start: Callable[..., Any]
) -> None:
    state, stopping = SqliteState(str(file), patience=_FOR_EVER), trio.Event()
    told: list[str] = []

    async def call() -> None:
        with pytest.raises(StateUnavailable) as caught:
            await state.create_node(30.0)
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        await settle(state)
        await start("lock_writing.py", file).told()
        for _ in range(300):  # more than one commit takes
            nursery.start_soon(call)
        await until_busy(state)
        stopping.set()
    assert len(told) == 300
    assert all("is locked by another program" in text for text in told)


async def test_a_cancelled_call_does_not_wait_for_another_program(
    file: Path, serving: Any, start: Callable[..., Any]
) -> None:
    async with serving(patience=_FOR_EVER) as state:
        run_id = await state.create_run(Run())
        await settle(state)
        program = start("lock_writing.py", file)
        await program.told()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.create_node, 30.0)
            await until_busy(state)
            nursery.cancel_scope.cancel()
        program.tell()
        await program.told()
        assert await state.create_node(30.0)
        assert len(await state.online_nodes(run_id)) == 1, "what was cancelled did nothing"


@pytest.mark.parametrize("program", ["lock_writing.py", "lock.py"])
async def test_a_start_that_is_cancelled_does_not_wait_for_another_program(
    file: Path, serving: Any, start: Callable[..., Any], program: str
) -> None:
    async with serving():
        pass
    await start(program, file).told()
    state = SqliteState(str(file), patience=_FOR_EVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: state.serve(stopping=trio.Event()))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not [name for name in os.listdir(file.parent) if ".superlink-" in name]


async def test_what_was_taken_is_put_back_later_where_another_program_has_it(
    file: Path, serving: Any, start: Callable[..., Any], mock_clock: MockClock
) -> None:
    async with serving(patience=_FOR_EVER) as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task = task_ins(run_id, node_id)
        await state.store_task_ins([task])
        assert await state.take_task_ins(node_id) == task
        program = start("lock_writing.py", file)
        await program.told()
        await state.put_back_task_ins(task)
        program.tell()
        await program.told()
        mock_clock.jump(1)
        await settle(state)
        assert await state.take_task_ins(node_id) == task


async def test_a_commit_waits_until_another_program_is_done(
    file: Path, serving: Any, start: Callable[..., Any]
) -> None:
    async with serving(patience=_FOR_EVER) as state:
        await settle(state)
        program = start("lock_writing.py", file)
        await program.told()
        commits = state.commits
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(state.create_node, 30.0)
            await until_busy(state)
            while state.busy:
                await trio.lowlevel.checkpoint()
            await until_busy(state)
            program.tell()
        assert state.commits > commits
