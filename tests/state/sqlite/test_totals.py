"""What the file says is in it, against what is: triggers keep the totals."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders import answer_to, task_ins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state.sqlite.older import TO_SECOND
from stores import settle
from trio.testing import MockClock

from examples import at_most
from superlink_trio.state import State, StateLimits
from superlink_trio.state.interface import LINGER
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS

_COUNTED = """SELECT (SELECT count(*) FROM node),
    (SELECT coalesce(sum(size + coalesce(answer_size, 0)), 0) FROM superlink_task)
    + (SELECT coalesce(sum(length(content)), 0) FROM superlink_payload)
    + (SELECT coalesce(sum(length(content)), 0) FROM superlink_fab)"""
_UNANSWERED = "SELECT node_id, count(*) FROM superlink_task WHERE phase < 3 GROUP BY 1 ORDER BY 1"

_BEFORE = [
    *TO_SECOND,
    "DROP TRIGGER superlink_count_node",
    "DROP TRIGGER superlink_discount_node",
    "DROP TRIGGER superlink_count_payload",
    "DROP TRIGGER superlink_discount_payload",
    "DROP TRIGGER superlink_count_fab",
    "DROP TRIGGER superlink_count_task",
    "DROP TRIGGER superlink_recount_task",
    "DROP TRIGGER superlink_discount_task",
    "DROP TRIGGER superlink_close_task",
    "ALTER TABLE superlink_task DROP COLUMN size",
    "DROP TABLE superlink_total",
    "DROP TABLE superlink_unanswered",
    "UPDATE superlink_schema SET version = 1",
]


def check(file: Path) -> tuple[int, int]:
    """Compare the totals with what is there; give them."""
    with closing(sqlite3.connect(file)) as connection:
        (totals,) = connection.execute("SELECT nodes, stored FROM superlink_total").fetchall()
        assert totals == connection.execute(_COUNTED).fetchone()
        unanswered = connection.execute(
            "SELECT node_id, tasks FROM superlink_unanswered ORDER BY 1"
        ).fetchall()
        assert unanswered == connection.execute(_UNANSWERED).fetchall()
    return int(totals[0]), int(totals[1])


async def live(state: State, choices: list[int]) -> None:
    """Push tasks of two sizes to a few nodes, and let each choice decide what becomes of one."""
    run_id = await state.create_run(Run(), Fab(hash="hash", content=b"f" * 1000))
    nodes = [ANONYMOUS, *[await state.create_node(1e6) for _ in range(3)]]
    for choice in choices:
        node_id, size, fate = nodes[choice % 4], (100, 20_000)[choice % 2], choice % 7
        task = task_ins(run_id, node_id, content=bytes([choice % 3]) * size)
        await state.store_task_ins([task])
        if fate > 0 and (taken := await state.take_task_ins(node_id, "c")) is not None:
            await (state.put_back_task_ins if fate == 1 else state.confirm_task_ins)(taken)
        if fate > 2:
            await state.store_task_res(answer_to(task, content=b"a" * size))
        if fate > 3:
            answers = await state.take_task_res([task.task_id], 10**9)
            await (state.put_back_task_res if fate == 4 else state.confirm_task_res)(answers)
        if fate == 6 and node_id != ANONYMOUS:
            await state.delete_node(node_id)
            nodes[choice % 4] = await state.create_node(1e6)


@settings(
    max_examples=at_most(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(choices=st.lists(st.integers(0, 1000), min_size=5, max_size=30))
async def test_the_totals_are_right_after_any_history(
    serving: Any, tmp_path_factory: pytest.TempPathFactory, choices: list[int]
) -> None:
    file = tmp_path_factory.mktemp("totals") / "state.db"
    async with serving(file) as state:
        await live(state, choices)
        check(file)
    check(file)


async def test_nothing_is_left_when_all_is_swept(
    serving: Any, file: Path, mock_clock: MockClock
) -> None:
    async with serving() as state:
        await live(state, list(range(100)))
        for _ in range(3):
            mock_clock.jump(3600 + LINGER)
            await settle(state)
        assert check(file) == (3, 1000), "nodes that are online, and a bundle"


async def test_a_file_from_before_the_totals_is_counted(serving: Any, file: Path) -> None:
    async with serving() as state:
        await live(state, list(range(50)))
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in _BEFORE:
            connection.execute(statement)
    async with serving(limits=StateLimits(nodes=4)) as state:
        check(file)
        await state.create_node(30.0)
        nodes, _ = check(file)
        assert nodes == 4
