"""What every store says is in it."""

from __future__ import annotations

import pytest
import trio
from builders import EPOCH, answer_to, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import Census, State, TaskState
from superlink_trio.state.census import Contents, Counted
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

MODEL = bytes(20_000)
LIMIT = 2**29


async def run_with_node(state: State) -> tuple[int, int]:
    return await state.create_run(Run()), await state.create_node(30.0)


async def take(state: State, node_id: int) -> Task:
    taken = await state.take_task_ins(node_id, "c1")
    assert taken is not None
    return taken


async def test_an_empty_store_has_nothing_in_it(state: State) -> None:
    census = await state.census()
    assert (census.nodes, census.nodes_online, census.runs) == (0, 0, 0)
    assert census.tasks == dict.fromkeys(TaskState, Counted(0, 0.0))
    assert census.payloads == Contents(0, 0)
    assert (census.shared_bytes, census.stored_bytes) == (0, 0)


async def test_nodes_are_counted_and_who_of_them_is_online(
    state: State, mock_clock: MockClock
) -> None:
    await state.create_run(Run())
    for interval in (10.0, 30.0, 30.0):
        await state.create_node(interval)
    attended = await state.create_node(10.0)
    mock_clock.jump(11.0)
    with state.attend(attended):
        census = await state.census()
    assert (census.nodes, census.nodes_online, census.runs) == (4, 3, 1)


async def test_tasks_are_counted_by_state_with_the_age_of_the_oldest(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    late = task_ins(run_id, node_id, ttl=10.0)
    early = [task_ins(run_id, node_id, now=EPOCH + age) for age in (1, 2, 3, 4, 5)]
    await state.store_task_ins([late, *early])
    await take(state, node_id)
    await state.put_back_task_ins(late)
    await state.confirm_task_ins(await take(state, node_id))
    await state.store_task_res(answer_to(early[0]))
    mock_clock.jump(10.0)
    await state.confirm_task_ins(await take(state, node_id))
    await take(state, node_id)
    await settle(state)
    assert (await state.census()).tasks == {
        TaskState.QUEUED: Counted(2, 6.0),
        TaskState.UNDER_WAY: Counted(1, 7.0),
        TaskState.HANDED_OVER: Counted(1, 8.0),
        TaskState.ANSWERED: Counted(1, 9.0),
        TaskState.OUT_OF_TIME: Counted(1, 10.0),
    }


async def test_what_is_answered_is_not_out_of_time_and_what_is_collected_is_gone(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id, ttl=10.0)
    await state.store_task_ins([task])
    await state.store_error(task.task_id, TaskError(0, "broken"), producer=None)
    mock_clock.jump(11.0)
    census = await state.census()
    assert census.tasks[TaskState.ANSWERED] == Counted(1, 11.0)
    assert census.tasks[TaskState.OUT_OF_TIME].count == 0
    await state.confirm_task_res(await state.take_task_res([task.task_id], LIMIT))
    census = await state.census()
    assert census.tasks == dict.fromkeys(TaskState, Counted(0, 0.0))


@pytest.mark.parametrize("answered", [1, 3])
async def test_equal_payloads_count_once(state: State, answered: int) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id, content=MODEL) for _ in range(3)]
    await state.store_task_ins(tasks)
    census = await state.census()
    assert census.payloads == Contents(1, len(MODEL))
    assert census.shared_bytes == 2 * len(MODEL)
    own = sum(task.size for task in tasks) - 3 * len(MODEL)
    assert census.stored_bytes == own + len(MODEL)
    for task in tasks[:answered]:
        await state.store_error(task.task_id, TaskError(0, ""), producer=None)
    census = await state.census()
    kept = 3 - answered
    assert census.payloads == Contents(min(1, kept), len(MODEL) * min(1, kept))
    assert census.shared_bytes == max(0, kept - 1) * len(MODEL)


async def test_what_is_gone_takes_no_bytes(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    before = await state.census()
    await state.create_run(Run(), Fab(hash="h", content=b"bundle"))
    tasks = [task_ins(run_id, node_id, content=MODEL) for _ in range(2)]
    await state.store_task_ins(tasks)
    for task in tasks:
        await state.store_task_res(answer_to(task, content=MODEL))
    answers = await state.take_task_res([task.task_id for task in tasks], LIMIT)
    await state.confirm_task_res(answers)
    for _ in range(3):
        mock_clock.jump(1.0)
        await settle(state)
    census = await state.census()
    assert census.payloads == Contents(0, 0)
    assert census.shared_bytes == 0
    assert census.stored_bytes == before.stored_bytes + len(b"bundle")


async def test_what_goes_while_others_are_counted_is_counted_as_it_was_or_not_at_all(
    state: State, nursery: trio.Nursery
) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(1200)]
    await state.store_task_ins(tasks)
    for task in tasks:
        await state.store_error(task.task_id, TaskError(0, ""), producer=None)
    answers = await state.take_task_res([task.task_id for task in tasks], LIMIT)
    found: list[Census] = []

    async def count() -> None:
        found.append(await state.census())

    nursery.start_soon(count)
    for _ in range(2):
        await trio.lowlevel.checkpoint()
    await state.confirm_task_res(answers)
    await settle(state)
    counts = {state: tasks.count for state, tasks in found[0].tasks.items() if tasks.count}
    assert set(counts) <= {TaskState.ANSWERED}
