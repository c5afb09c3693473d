"""What nobody can ask for any more leaves the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from builders import answer_to, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import Admission
from superlink_trio.state.interface import FORGET, LINGER
from superlink_trio.state.sql.transaction import PORTION
from superlink_trio.wire.runs import Run


def rows(file: Path, *tables: str) -> list[int]:
    with closing(sqlite3.connect(file)) as connection:
        return [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
        ]


async def test_tasks_and_answers_out_of_time_leave_the_file(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    tables = ("task_ins", "task_res", "superlink_task")
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        tasks = [task_ins(run_id, node_id, ttl=10.0) for _ in range(1200)]
        await state.store_task_ins(tasks)
        await state.store_task_res(answer_to(tasks[0]))
        assert rows(file, *tables) == [1200, 1, 1200]
        for _ in range(2):
            mock_clock.jump(LINGER)
            await settle(state)
        assert rows(file, *tables) == [0, 0, 0]


async def test_an_answer_under_way_is_not_swept(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        task = task_ins(run_id, 4711, ttl=10.0)
        await state.store_task_ins([task])
        answers = await state.take_task_res([task.task_id], 1)
        for _ in range(2):
            mock_clock.jump(LINGER)
            await settle(state)
        assert rows(file, "task_ins") == [1]
        await state.confirm_task_res(answers)
        for _ in range(3):
            mock_clock.jump(1)
            await settle(state)
        assert rows(file, "task_ins") == [0]


async def test_nodes_that_were_not_heard_of_are_forgotten(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as state:
        node_id, deleted = await state.create_node(30.0), await state.create_node(30.0)
        bound = await state.create_node(30.0, b"key")
        await state.delete_node(deleted)
        for _ in range(2):
            mock_clock.jump(FORGET)
            await settle(state)
        assert await state.ping(node_id, 30.0, readmit=False) is Admission.UNKNOWN
        assert await state.ping(bound, 30.0, readmit=False) is Admission.KNOWN, "it has a key"
        assert await state.ping(deleted, 30.0, readmit=True) is Admission.READMITTED


async def test_what_was_collected_is_deleted_in_portions(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        tasks = [task_ins(run_id, 4711) for _ in range(2 * PORTION)]
        await state.store_task_ins(tasks)
        await state.confirm_task_res(
            await state.take_task_res([task.task_id for task in tasks], 2**29)
        )
        await settle(state)
        mock_clock.jump(1)
        await settle(state)
        steps = state.steps
        mock_clock.jump(1)
        await settle(state)
        assert state.steps - steps > 3, "others may write between them"
        assert rows(file, "task_ins", "superlink_task") == [0, 0]
