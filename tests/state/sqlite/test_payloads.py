"""Large payloads lie in the file once, and go with the last task that needs them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from builders import answer_to, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state.interface import LINGER
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

MiB = 1024 * 1024


def payloads(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM superlink_payload").fetchone()
    return int(count)


async def test_equal_payloads_are_kept_once(serving: Any, file: Path) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        node_ids = [await state.create_node(30.0) for _ in range(20)]
        model = b"m" * MiB
        tasks = [task_ins(run_id, node_id, content=model) for node_id in node_ids]
        await state.store_task_ins(tasks[:10])
        await state.store_task_ins(tasks[10:])
        assert payloads(file) == 1
        for node_id, task in zip(node_ids, tasks, strict=True):
            assert await state.take_task_ins(node_id) == task
            await state.confirm_task_ins(task)
        for task in tasks[:-1]:
            await state.store_task_res(answer_to(task))
        assert payloads(file) == 1
        await state.store_task_res(answer_to(tasks[-1]))
        assert payloads(file) == 0


async def test_a_payload_goes_with_a_task_that_nobody_answers(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        tasks = [task_ins(run_id, 4711, content=bytes([each]) * MiB) for each in range(2)]
        await state.store_task_ins(tasks)
        answers = await state.take_task_res([tasks[0].task_id], MiB)
        await state.confirm_task_res(answers)
        for _ in range(3):
            mock_clock.jump(1)
            await settle(state)
        assert payloads(file) == 1
        mock_clock.jump(3600 + LINGER)
        await settle(state)
        assert payloads(file) == 0


async def test_a_task_whose_content_is_an_error_keeps_it(serving: Any) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task = task_ins(run_id, node_id, content=TaskError(2, "why"))
        await state.store_task_ins([task])
        assert await state.take_task_ins(node_id) == task


async def test_a_new_file_shrinks_again(serving: Any, file: Path, mock_clock: MockClock) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(1e6)
        tasks = [task_ins(run_id, node_id, content=bytes([each]) * 8 * MiB) for each in range(4)]
        await state.store_task_ins(tasks)
        for task in tasks:
            await state.store_task_res(answer_to(task))
        mock_clock.jump(61)
        await settle(state)
    assert os.path.getsize(file) < 20 * MiB
