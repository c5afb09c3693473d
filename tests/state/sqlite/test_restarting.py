"""What a file remembers when the process that wrote it has ended, one way or another."""

from __future__ import annotations

import gc
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import answer_to, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import Admission, SqliteState
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import TaskError

LARGE = bytes(range(256)) * 1024


async def collect(state: SqliteState, *task_ids: str) -> list[Any]:
    answers = await state.take_task_res(task_ids, 2**29)
    await state.confirm_task_res(answers)
    return [answer.content for answer in answers]


async def crashed(program: Any) -> Any:
    names = await program.told()
    await trio.to_thread.run_sync(program.process.wait)
    return names


async def test_nothing_acknowledged_is_lost_in_a_crash(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    names = await crashed(start("crash.py", file))
    node_id, other, gone = names["nodes"]
    async with serving() as state:
        run = await state.get_run(names["run"])
        assert run.override_config == {"lr": 0.1, "key": b"\x00\xff"}
        assert run.fab_id == "f"
        assert await state.get_fab("h") == Fab(hash="h", content=b"bundle")
        assert sorted(await state.online_nodes(names["run"])) == sorted([node_id, other])
        assert await state.ping(gone, 30.0, readmit=True) is Admission.UNKNOWN
        assert await collect(state, names["answered"]) == [LARGE]
        assert await collect(state, names["last"]) == [b"result"], "it may not have arrived"
        assert await collect(state, names["failed"]) == [TaskError(2, "ValueError:<'x'>")]


async def test_what_was_under_way_goes_to_its_node_after_a_crash(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    names = await crashed(start("crash.py", file))
    node_id, other, _ = names["nodes"]
    async with serving() as state:
        # The name of the connection is the same by chance: it is another connection.
        taken = [await state.take_task_ins(node_id, "c1") for _ in range(3)]
        assert [task and task.task_id for task in taken] == [
            names["handed_over"],
            names["under_way"],
            None,
        ]
        large = await state.take_task_ins(other, "c1")
        assert large is not None
        assert (large.task_id, large.content) == (names["queued"], LARGE)


async def test_simulated_nodes_do_not_come_back_after_a_crash(
    serving: Any, start: Callable[..., Any], file: Path
) -> None:
    async with serving(clock=time.time) as state:
        real = await state.create_node(30.0)
    simulation = start("simulate.py", file)
    assert len(await simulation.told()) == 5
    simulation.kill()
    async with serving(clock=time.time) as state:
        assert await state.online_nodes(await state.create_run(Run())) == [real]


async def test_simulated_nodes_do_not_come_back_after_a_stop(serving: Any) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_simulated_node()
        assert await state.online_nodes(run_id) == [node_id]
    async with serving() as state:
        assert await state.online_nodes(run_id) == []


async def test_a_clean_stop_leaves_nothing_under_way(serving: Any) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task, answered = task_ins(run_id, node_id), task_ins(run_id, node_id)
        await state.store_task_ins([answered, task])
        assert await state.take_task_ins(node_id) == answered
        await state.store_task_res(answer_to(answered))
        assert await state.take_task_ins(node_id) == task
        assert len(await state.take_task_res([answered.task_id], 1)) == 1
        collected = task_ins(run_id, 4711)
        await state.store_task_ins([collected])
        assert len(await collect(state, collected.task_id)) == 1
    async with serving() as state:
        assert await state.take_task_ins(node_id) == task
        assert await collect(state, answered.task_id) == [b"result"]
        assert await collect(state, collected.task_id) == []


async def test_a_restart_gives_nodes_time_to_report(serving: Any, mock_clock: MockClock) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        short, long = await state.create_node(1.0), await state.create_node(120.0)
    mock_clock.jump(1000)
    async with serving() as state:
        mock_clock.jump(29)
        assert sorted(await state.online_nodes(run_id)) == sorted([short, long])
        mock_clock.jump(2)
        assert await state.online_nodes(run_id) == [long]
        mock_clock.jump(90)
        assert await state.online_nodes(run_id) == []


@pytest.mark.parametrize("while_open", [False, True])
async def test_a_node_that_is_online_for_ever_in_the_file_is_so_for_an_hour(
    serving: Any, file: Path, mock_clock: MockClock, while_open: bool
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        await state.create_node(30.0)
    async with serving() as state:
        await settle(state)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE node SET online_until = 1e300, ping_interval = 1e300")
        if while_open:
            mock_clock.jump(61)
            await settle(state)
            mock_clock.jump(3601)
            assert await state.online_nodes(run_id) == []
    if not while_open:
        async with serving() as state:
            mock_clock.jump(3599)
            assert len(await state.online_nodes(run_id)) == 1
            mock_clock.jump(2)
            assert await state.online_nodes(run_id) == []


async def test_heartbeats_are_written_behind(serving: Any, mock_clock: MockClock) -> None:
    async with serving() as state, serving() as beside:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        await state.heartbeat(node_id, readmit=False)
        await settle(state, beside)  # no commit is under way that began before the ping
        commits = state.commits
        mock_clock.jump(20)
        await state.ping(node_id, 30.0, readmit=False)
        await state.heartbeat(node_id, readmit=False)
        assert state.commits == commits
        mock_clock.jump(1)
        while state.commits == commits:
            await beside.get_run(run_id)
        mock_clock.jump(20)
        assert await beside.online_nodes(run_id) == [node_id]


async def test_an_idle_pull_costs_no_commit(serving: Any) -> None:
    async with serving() as state:
        node_id = await state.create_node(30.0)
        assert await state.take_task_ins(node_id, "c1") is None
        commits = state.commits
        for _ in range(10):
            assert await state.take_task_ins(node_id, "c1") is None
        assert state.commits == commits


async def test_pulls_of_unknown_nodes_leave_nothing_in_memory(serving: Any) -> None:
    async def size() -> int:
        await settle(state)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async with serving() as state:
        await state.take_task_ins(1, "c1")
        tracemalloc.start()
        try:
            before = await size()
            for node_id in range(2, 1002):
                assert await state.take_task_ins(node_id, "a connection of some length") is None
            assert await size() - before < 40_000
        finally:
            tracemalloc.stop()


async def test_calls_that_wait_share_a_commit(serving: Any, nursery: Any) -> None:
    async with serving() as state:
        commits = state.commits
        for _ in range(100):
            nursery.start_soon(state.create_node, 30.0)
        run_id = await state.create_run(Run())
        while len(await state.online_nodes(run_id)) < 100:
            pass
        assert state.commits - commits < 10


async def test_a_node_is_still_its_keys(serving: Any, file: Path) -> None:
    async with serving() as state:
        node_id = await state.create_node(30.0, b"key")
    with closing(sqlite3.connect(file)) as connection:
        named = connection.execute("SELECT public_key FROM node").fetchall()
    assert named == [(b"key",)], "where the reference looks for it"
    async with serving() as state:
        assert await state.node_of_key(b"key") == node_id
        assert await state.bind_node(node_id, b"key", readmit=False) is Admission.KNOWN
        assert await state.bind_node(node_id, b"key", readmit=False) is Admission.KNOWN
        assert await state.bind_node(node_id, b"other", readmit=True) is Admission.FOREIGN
        assert await state.create_node(30.0, b"key") == node_id
        await state.delete_node(node_id)
        assert await state.node_of_key(b"key") is None
        assert await state.bind_node(node_id, b"key", readmit=True) is Admission.UNKNOWN


async def test_keys_that_the_reference_wrote_are_known(serving: Any, file: Path) -> None:
    async with serving() as state:
        node_id = await state.create_node(30.0)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE node SET public_key = ?", (b"key",))
    async with serving() as state:
        assert await state.node_of_key(b"key") == node_id
