"""What every store refuses, and that the room it had is there again afterwards."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from builders import answer_to, is_error, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.rpc import limit_in_words
from superlink_trio.state import Admission, LimitReached, State, StateLimits
from superlink_trio.state.interface import LINGER
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

MiB = 1024 * 1024


def model(size: int = MiB) -> bytes:
    """Give a payload that no other equals."""
    return os.urandom(size)


def fab(content: bytes) -> Fab:
    return Fab(hash=hashlib.sha256(content).hexdigest(), content=content)


async def collect(state: State, *task_ids: str) -> list[Task]:
    """Take and confirm answers, and wait until nothing of them is left."""
    answers = await state.take_task_res(task_ids, 512 * MiB)
    await state.confirm_task_res(answers)
    return list(answers)


async def forgotten(state: State, clock: MockClock) -> None:
    """Wait until what was collected is gone: a store on a disk keeps it for a moment."""
    for _ in range(3):
        clock.jump(1)
        await settle(state)


async def swept(state: State, clock: MockClock, seconds: float) -> None:
    """Let time pass, and let the store sweep what is over by then."""
    for step in (seconds, 61, 61):
        clock.jump(step)
        await settle(state)


@contextmanager
def limit_reached(words: str) -> Iterator[None]:
    """Expect that a limit is reached, and what its caller is told."""
    # Nothing may keep the error: it keeps the payloads that were refused.
    told = ""
    try:
        yield
    except LimitReached as error:
        told = limit_in_words(error)
    assert re.search(words, told)


# Nodes


async def test_no_more_nodes_than_allowed_are_registered(state: State) -> None:
    state.limits = StateLimits(nodes=3)
    run_id = await state.create_run(Run())
    nodes = [await state.create_node(30.0) for _ in range(3)]
    with limit_reached(r"3 nodes .* --max-nodes .* try again later"):
        await state.create_node(30.0)
    for admit in (state.ping(7, 30.0, readmit=True), state.heartbeat(7, readmit=True)):
        with pytest.raises(LimitReached):
            await admit
    with pytest.raises(LimitReached):
        await state.bind_node(7, b"key", readmit=True)
    assert await state.node_of_key(b"key") is None
    assert sorted(await state.online_nodes(run_id)) == sorted(nodes)


async def test_who_is_registered_is_not_refused(state: State) -> None:
    state.limits = StateLimits(nodes=2)
    first, second = await state.create_node(30.0, b"key"), await state.create_node(30.0)
    assert await state.create_node(30.0, b"key") == first
    assert await state.ping(second, 30.0, readmit=True) is Admission.KNOWN
    assert await state.heartbeat(first, readmit=True) is Admission.KNOWN
    assert await state.bind_node(second, b"other", readmit=True) is Admission.READMITTED
    assert await state.ping(7, 30.0, readmit=False) is Admission.UNKNOWN, "as without a limit"


async def test_a_node_that_leaves_makes_room(state: State) -> None:
    state.limits = StateLimits(nodes=2)
    nodes = [await state.create_node(30.0) for _ in range(2)]
    await state.delete_node(nodes[0])
    assert await state.heartbeat(7, readmit=True) is Admission.READMITTED
    with pytest.raises(LimitReached):
        await state.create_node(30.0)
    await state.delete_node(7)
    await state.create_node(30.0)


async def test_nodes_that_are_offline_give_way(state: State, mock_clock: MockClock) -> None:
    state.limits = StateLimits(nodes=3)
    run_id = await state.create_run(Run())
    bound = await state.create_node(30.0, b"key")
    attended, offline = await state.create_node(30.0), await state.create_node(30.0)
    with state.attend(attended):
        mock_clock.jump(31)
        await settle(state)
        new = await state.create_node(30.0)
        assert sorted(await state.online_nodes(run_id)) == sorted([attended, new])
        assert await state.node_of_key(b"key") == bound, "it could not come back otherwise"
        mock_clock.jump(5)
        with pytest.raises(LimitReached):
            await state.ping(offline, 30.0, readmit=True)
    await state.delete_node(new)
    assert await state.ping(offline, 30.0, readmit=True) is Admission.READMITTED


async def test_an_attended_node_never_gives_way(state: State, mock_clock: MockClock) -> None:
    state.limits = StateLimits(nodes=1)
    run_id = await state.create_run(Run())
    node_id = await state.create_node(1.0)
    mock_clock.jump(2)
    with state.attend(node_id):
        with pytest.raises(LimitReached):
            await state.create_node(30.0)
        assert list(await state.online_nodes(run_id)) == [node_id]


async def test_an_attended_node_stays_whatever_it_says_of_itself(state: State) -> None:
    state.limits = StateLimits(nodes=1)
    run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
    with state.attend(node_id):
        await state.ping(node_id, 0.0, readmit=False)
        with pytest.raises(LimitReached):
            await state.create_node(30.0)
        assert list(await state.online_nodes(run_id)) == [node_id]


async def test_no_node_keeps_its_place_for_ever(state: State, mock_clock: MockClock) -> None:
    state.limits = StateLimits(nodes=1)
    await state.create_node(1e300)
    with pytest.raises(LimitReached):
        await state.create_node(30.0)
    mock_clock.jump(3601)
    await settle(state)
    await state.create_node(30.0)


# Tasks for one node


@pytest.mark.parametrize("anonymous", [False, True])
async def test_a_node_has_no_more_unanswered_tasks_than_allowed(
    state: State, anonymous: bool
) -> None:
    state.limits = StateLimits(tasks_per_node=3)
    run_id = await state.create_run(Run())
    node_id = ANONYMOUS if anonymous else await state.create_node(30.0)
    other = await state.create_node(30.0)
    first, second = task_ins(run_id, node_id), task_ins(run_id, node_id)
    await state.store_task_ins([first, second])
    push = [task_ins(run_id, other), *(task_ins(run_id, node_id) for _ in range(2))]
    name = "anonymous nodes" if anonymous else f"node {node_id}"
    with limit_reached(rf"2 tasks for {name} .* 2 more .* the 3 that"):
        await state.store_task_ins(push)
    assert await state.take_task_ins(other) is None, "all or none"
    assert await state.take_task_ins(node_id, "c") == first
    await state.confirm_task_ins(first)
    with pytest.raises(LimitReached):
        await state.store_task_ins(push)
    await state.store_task_res(answer_to(first))
    assert len(await state.store_task_ins(push)) == 3
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, node_id)])
    assert await state.store_error(second.task_id, TaskError(0, "x"), producer=None)
    await state.store_task_ins([task_ins(run_id, node_id)])


async def test_tasks_out_of_time_count_no_more(state: State, mock_clock: MockClock) -> None:
    state.limits = StateLimits(tasks_per_node=2)
    run_id, node_id = await state.create_run(Run()), await state.create_node(1e6)
    await state.store_task_ins([task_ins(run_id, node_id, ttl=5.0) for _ in range(2)])
    await swept(state, mock_clock, 5)
    await state.store_task_ins([task_ins(run_id, node_id, ttl=3600.0) for _ in range(2)])


async def test_tasks_whose_errors_were_collected_count_no_more(state: State) -> None:
    state.limits = StateLimits(tasks_per_node=1)
    run_id, node_id = await state.create_run(Run()), await state.create_node(0.0)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    await state.confirm_task_res(await state.take_task_res([task.task_id], 10**6))
    await state.store_task_ins([task_ins(run_id, node_id)])


async def test_tasks_that_are_not_stored_count_for_nothing(state: State) -> None:
    state.limits = StateLimits(tasks_per_node=1, stored_size=2 * MiB)
    run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
    unknown = [task_ins(run_id + 1, node_id, content=model()) for _ in range(3)]
    pushed = await state.store_task_ins([*unknown, task_ins(run_id, node_id)])
    assert list(pushed[:3]) == ["", "", ""]


async def test_a_push_that_is_refused_takes_no_other_along(state: State) -> None:
    state.limits = StateLimits(tasks_per_node=1)
    run_id, nodes = await state.create_run(Run()), [await state.create_node(30.0) for _ in range(3)]
    pushes = [[task_ins(run_id, node_id)] for node_id in nodes]
    pushes[1] *= 2
    refused = []

    async def push(tasks: list[Task]) -> None:
        try:
            await state.store_task_ins(tasks)
        except LimitReached as error:
            refused.append(error.node_id)

    async with trio.open_nursery() as at_once:
        for tasks in pushes:
            at_once.start_soon(push, tasks)
    assert refused == [nodes[1]]
    taken = [await state.take_task_ins(node_id) for node_id in nodes]
    assert taken == [pushes[0][0], None, pushes[2][0]]


# Bytes


async def test_tasks_may_fill_half_and_answers_the_rest(
    state: State, mock_clock: MockClock
) -> None:
    state.limits = StateLimits(stored_size=4 * MiB)
    run_id, node_id = await state.create_run(Run()), await state.create_node(1e6)
    tasks = [task_ins(run_id, node_id, content=model(MiB - 10_000)) for _ in range(3)]
    await state.store_task_ins(tasks[:2])
    with limit_reached("the half of --max-stored-size that is for tasks"):
        await state.store_task_ins(tasks[2:])
    with pytest.raises(LimitReached):
        await state.create_run(Run(), fab(model()))
    assert await state.take_task_ins(node_id) == tasks[0]
    await state.confirm_task_ins(tasks[0])
    too_large = answer_to(tasks[0], content=model(2 * MiB + 30_000))
    with limit_reached("wait until results are collected"):
        await state.store_task_res(too_large)
    assert await collect(state, tasks[0].task_id) == [], "it is waited for as before"
    answer = answer_to(tasks[0], content=model(2 * MiB))
    assert await state.store_task_res(answer) == answer.task_id
    assert await state.store_task_res(answer) == answer.task_id, "it takes no more room"
    with pytest.raises(LimitReached):
        await state.store_task_ins(tasks[2:])
    assert await collect(state, tasks[0].task_id) == [answer]
    await forgotten(state, mock_clock)
    await state.store_task_ins(tasks[2:])
    assert await state.take_task_ins(node_id) == tasks[1]


async def test_equal_payloads_of_tasks_count_once(state: State) -> None:
    state.limits = StateLimits(stored_size=4 * MiB)
    run_id = await state.create_run(Run())
    nodes = [await state.create_node(30.0) for _ in range(40)]
    content = model()
    tasks = [task_ins(run_id, node_id, content=content) for node_id in nodes]
    await state.store_task_ins(tasks[:20])
    await state.store_task_ins(tasks[20:])
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, nodes[0], content=model())])
    for task in tasks[:-1]:
        await state.store_task_res(answer_to(task))
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, nodes[0], content=model())])
    await state.store_task_res(answer_to(tasks[-1]))
    await state.store_task_ins([task_ins(run_id, nodes[0], content=model())])


async def test_tasks_without_a_payload_take_room_too(state: State) -> None:
    state.limits = StateLimits(stored_size=200_000)
    run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, node_id, content=b"") for _ in range(100)])
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, node_id, group_id="g" * 100_000)])
    await state.store_task_ins([task_ins(run_id, node_id, content=b"") for _ in range(20)])


async def test_an_error_always_has_room(state: State) -> None:
    state.limits = StateLimits(stored_size=4096)
    run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
    task = task_ins(run_id, node_id, content=b"")
    await state.store_task_ins([task])
    with pytest.raises(LimitReached):
        await state.store_task_res(answer_to(task, content=model(4096)))
    assert await state.store_error(task.task_id, TaskError(0, "full"), producer=node_id)
    [answer] = await collect(state, task.task_id)
    assert is_error(answer, 0)


async def test_bundles_count_once(state: State) -> None:
    state.limits = StateLimits(stored_size=3 * MiB)
    bundle = fab(model())
    for _ in range(3):
        run_id = await state.create_run(Run(fab_hash=bundle.hash), bundle)
    with pytest.raises(LimitReached):
        await state.create_run(Run(), fab(model()))
    with pytest.raises(LimitReached):
        await state.store_task_ins([task_ins(run_id, content=model())])
    assert await state.get_fab(bundle.hash) == bundle


async def test_nothing_is_left_of_tasks_that_nobody_collects(
    state: State, mock_clock: MockClock
) -> None:
    state.limits = StateLimits(stored_size=4 * MiB)
    run_id, node_id = await state.create_run(Run()), await state.create_node(1e6)
    for _ in range(5):
        tasks = [task_ins(run_id, node_id, content=model(MiB - 10_000), ttl=60.0) for _ in "12"]
        now = state.now()
        tasks = [task_ins(run_id, node_id, content=t.content, now=now, ttl=60.0) for t in tasks]
        await state.store_task_ins(tasks)
        await state.store_task_res(answer_to(tasks[0], now=now, content=model(2 * MiB)))
        await swept(state, mock_clock, 60 + LINGER)
