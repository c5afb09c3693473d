"""What every store promises. Time stands still unless a test moves it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from builders import STRANGE_TEXTS, answer_to, is_error, task_ins
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import Admission, NotTaken, State
from superlink_trio.state.interface import COME_BACK, FORGET, LINGER, MAX_DELIVERIES
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

MiB = 1024 * 1024


@attrs.define
class Waiting:
    """A call that runs beside the test."""

    done: trio.Event
    result: object = None


class Beside:
    """Runs calls in the background of a test."""

    def __init__(self, nursery: trio.Nursery, state: State) -> None:
        self._nursery = nursery
        self._state = state

    async def start(
        self, function: Callable[..., Awaitable[object]], *arguments: object
    ) -> Waiting:
        """Start a call and let it get as far as it gets."""
        waiting = Waiting(trio.Event())

        async def run() -> None:
            waiting.result = await function(*arguments)
            waiting.done.set()

        self._nursery.start_soon(run)
        await settle(self._state)
        return waiting


@pytest.fixture
def beside(nursery: trio.Nursery, state: State) -> Beside:
    return Beside(nursery, state)


async def run_with_node(state: State) -> tuple[int, int]:
    return await state.create_run(Run()), await state.create_node(30.0)


async def hand_over(state: State, node_id: int, connection: str = "c1") -> Task:
    task = await state.take_task_ins(node_id, connection)
    assert task is not None
    await state.confirm_task_ins(task)
    return task


async def collect(state: State, *task_ids: str) -> list[Task]:
    answers = await state.take_task_res(task_ids, 512 * MiB)
    await state.confirm_task_res(answers)
    return list(answers)


# Nodes


async def test_ids_are_signed_64_bit_distinct_and_never_zero(state: State) -> None:
    node_ids = {await state.create_node(30.0) for _ in range(200)}
    assert len(node_ids) == 200
    assert all(-(2**63) <= node_id < 2**63 and node_id != 0 for node_id in node_ids)
    assert any(node_id < 0 for node_id in node_ids)
    assert await state.create_run(Run()) != 0


async def test_a_node_is_online_for_its_ping_interval(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(29)
    assert await state.ping(node_id, 30.0, readmit=False) is Admission.KNOWN
    mock_clock.jump(29)
    assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(2)
    assert list(await state.online_nodes(run_id)) == []


@pytest.mark.parametrize("interval", [7200.0, 1e300, math.inf])
async def test_a_ping_keeps_a_node_online_for_an_hour_at_most(
    state: State, mock_clock: MockClock, interval: float
) -> None:
    run_id = await state.create_run(Run())
    created, pinged = await state.create_node(interval), await state.create_node(30.0)
    keyed = await state.create_node(30.0, b"key")
    assert await state.create_node(interval, b"key") == keyed
    assert await state.ping(pinged, interval, readmit=False) is Admission.KNOWN
    assert await state.ping(7, interval, readmit=True) is Admission.READMITTED
    mock_clock.jump(3599)
    assert sorted(await state.online_nodes(run_id)) == sorted([created, pinged, keyed, 7])
    mock_clock.jump(2)
    assert list(await state.online_nodes(run_id)) == []


@pytest.mark.parametrize("interval", [-1.0, -math.inf, math.nan])
async def test_a_ping_interval_that_is_none_counts_as_nothing(
    state: State, interval: float
) -> None:
    run_id = await state.create_run(Run())
    node_id = await state.create_node(interval)
    assert list(await state.online_nodes(run_id)) == []
    await state.ping(node_id, 30.0, readmit=False)
    assert list(await state.online_nodes(run_id)) == [node_id]
    await state.ping(node_id, interval, readmit=False)
    assert list(await state.online_nodes(run_id)) == []


async def test_nodes_are_listed_for_known_runs_only(state: State) -> None:
    await state.create_node(30.0)
    assert list(await state.online_nodes(1)) == []


async def test_a_simulated_node_is_like_any_other(state: State, mock_clock: MockClock) -> None:
    run_id = await state.create_run(Run())
    node_id, other = [await state.create_simulated_node() for _ in range(2)]
    with state.attend(node_id):
        mock_clock.jump(31)
        assert list(await state.online_nodes(run_id)) == [node_id]
    task = task_ins(run_id, node_id, now=state.now())
    await state.store_task_ins([task])
    assert await state.take_task_ins(node_id) == task
    assert await state.delete_node(other)
    assert await state.ping(other, 30.0, readmit=True) is Admission.UNKNOWN


async def test_a_pull_is_a_sign_of_life_and_never_shortens_a_ping(
    state: State, mock_clock: MockClock
) -> None:
    run_id = await state.create_run(Run())
    node_id = await state.create_node(100.0)
    await state.heartbeat(node_id, readmit=False)
    mock_clock.jump(99)
    assert list(await state.online_nodes(run_id)) == [node_id]
    await state.heartbeat(node_id, readmit=False)
    mock_clock.jump(29)
    assert list(await state.online_nodes(run_id)) == [node_id]


async def test_an_attended_node_stays_online(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    with state.attend(node_id):
        mock_clock.jump(1000)
        assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(29)
    assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(2)
    assert list(await state.online_nodes(run_id)) == []


async def test_a_node_whose_connection_broke_is_offline_soon(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    with trio.CancelScope() as connection, state.attend(node_id):
        connection.cancel()
        await trio.lowlevel.checkpoint()
    mock_clock.jump(COME_BACK - 1)
    await settle(state)
    assert list(await state.online_nodes(run_id)) == [node_id]
    mock_clock.jump(2)
    assert list(await state.online_nodes(run_id)) == []


async def test_a_node_whose_connection_broke_may_come_back(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    with trio.CancelScope() as connection, state.attend(node_id):
        connection.cancel()
        await trio.lowlevel.checkpoint()
    await state.heartbeat(node_id, readmit=False)
    await settle(state)
    mock_clock.jump(29)
    assert list(await state.online_nodes(run_id)) == [node_id]


async def test_one_broken_connection_of_two_says_nothing(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    with state.attend(node_id), trio.CancelScope() as connection, state.attend(node_id):
        connection.cancel()
        await trio.lowlevel.checkpoint()
    await settle(state)
    mock_clock.jump(29)
    assert list(await state.online_nodes(run_id)) == [node_id]


async def test_a_node_stays_online_until_all_have_left_it(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    with state.attend(node_id):
        with state.attend(node_id):
            pass
        mock_clock.jump(1000)
        assert list(await state.online_nodes(run_id)) == [node_id]


async def test_attending_nobody_changes_nothing(state: State) -> None:
    run_id = await state.create_run(Run())
    with state.attend(12345):
        assert list(await state.online_nodes(run_id)) == []


async def test_an_unknown_node_is_readmitted_under_its_own_id(state: State) -> None:
    run_id = await state.create_run(Run())
    assert await state.ping(7, 30.0, readmit=False) is Admission.UNKNOWN
    assert await state.ping(7, 30.0, readmit=True) is Admission.READMITTED
    assert await state.heartbeat(-8, readmit=False) is Admission.UNKNOWN
    assert await state.heartbeat(-8, readmit=True) is Admission.READMITTED
    assert await state.heartbeat(-8, readmit=True) is Admission.KNOWN
    assert sorted(await state.online_nodes(run_id)) == [-8, 7]


async def test_anonymous_nodes_are_never_registered(state: State) -> None:
    run_id = await state.create_run(Run())
    assert await state.ping(ANONYMOUS, 30.0, readmit=True) is Admission.UNKNOWN
    assert await state.heartbeat(ANONYMOUS, readmit=True) is Admission.UNKNOWN
    assert await state.delete_node(ANONYMOUS) is False
    assert list(await state.online_nodes(run_id)) == []


async def test_a_deleted_node_is_not_readmitted(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    assert await state.delete_node(node_id) is True
    assert await state.delete_node(node_id) is False
    assert await state.ping(node_id, 30.0, readmit=True) is Admission.UNKNOWN
    assert await state.heartbeat(node_id, readmit=True) is Admission.UNKNOWN
    assert list(await state.online_nodes(run_id)) == []


# Nodes by their keys


async def test_a_key_has_one_node(state: State, mock_clock: MockClock) -> None:
    run_id = await state.create_run(Run())
    first = await state.create_node(30.0, b"first")
    second = await state.create_node(30.0, b"second")
    unbound = {await state.create_node(30.0), await state.create_node(30.0)}
    assert len({first, second, *unbound}) == 4
    mock_clock.jump(31)
    assert await state.create_node(60.0, b"first") == first
    assert list(await state.online_nodes(run_id)) == [first]
    mock_clock.jump(59)
    assert list(await state.online_nodes(run_id)) == [first]
    assert await state.node_of_key(b"second") == second
    assert await state.node_of_key(b"third") is None


async def test_a_key_is_bound_to_the_node_it_names(state: State) -> None:
    run_id = await state.create_run(Run())
    assert await state.bind_node(7, b"key", readmit=False) is Admission.UNKNOWN
    assert await state.node_of_key(b"key") is None
    assert await state.bind_node(7, b"key", readmit=True) is Admission.READMITTED
    assert await state.bind_node(7, b"key", readmit=True) is Admission.KNOWN
    assert await state.bind_node(7, b"key", readmit=False) is Admission.KNOWN
    assert await state.node_of_key(b"key") == 7
    assert list(await state.online_nodes(run_id)) == [], "it has shown no sign of life"
    assert await state.ping(7, 30.0, readmit=False) is Admission.KNOWN
    assert list(await state.online_nodes(run_id)) == [7]


async def test_a_node_that_has_no_key_can_be_bound(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    assert await state.bind_node(node_id, b"key", readmit=True) is Admission.READMITTED
    assert list(await state.online_nodes(run_id)) == [node_id]
    assert await state.create_node(30.0, b"key") == node_id


async def test_neither_a_node_nor_a_key_is_bound_twice(state: State) -> None:
    node_id = await state.create_node(30.0, b"first")
    for readmit in (True, False):
        assert await state.bind_node(node_id, b"other", readmit=readmit) is Admission.FOREIGN
        assert await state.bind_node(7, b"first", readmit=readmit) is Admission.FOREIGN
    assert await state.node_of_key(b"first") == node_id
    assert await state.node_of_key(b"other") is None


async def test_a_deleted_node_leaves_its_key_free(state: State) -> None:
    node_id = await state.create_node(30.0, b"key")
    assert await state.delete_node(node_id)
    assert await state.node_of_key(b"key") is None
    assert await state.bind_node(node_id, b"key", readmit=True) is Admission.UNKNOWN
    assert await state.bind_node(ANONYMOUS, b"key", readmit=True) is Admission.UNKNOWN
    assert await state.create_node(30.0, b"key") != node_id


async def test_a_bound_node_is_not_forgotten(state: State, mock_clock: MockClock) -> None:
    bound = await state.create_node(30.0, b"key")
    unbound = await state.create_node(30.0)
    for _ in range(2):
        await settle(state)
        mock_clock.jump(FORGET)
    await settle(state)
    assert await state.node_of_key(b"key") == bound
    assert await state.ping(bound, 30.0, readmit=False) is Admission.KNOWN
    assert await state.ping(unbound, 30.0, readmit=False) is Admission.UNKNOWN


# Runs


async def test_runs_and_bundles_are_kept(state: State) -> None:
    run = Run(fab_id="f", fab_version="1", override_config={"lr": 0.1}, fab_hash="h")
    run_id = await state.create_run(run, Fab(hash="h", content=b"bundle"))
    assert await state.get_run(run_id) == attrs.evolve(run, run_id=run_id)
    assert await state.get_fab("h") == Fab(hash="h", content=b"bundle")
    assert await state.get_run(run_id + 1) is None
    assert await state.get_fab("other") is None


# From the driver to the nodes


async def test_a_task_reaches_the_node_it_is_for(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    other = await state.create_node(30.0)
    task = task_ins(run_id, node_id)
    assert list(await state.store_task_ins([task])) == [task.task_id]
    assert await state.take_task_ins(other) is None
    assert await state.take_task_ins(ANONYMOUS) is None
    assert await state.take_task_ins(node_id, "c1") == task
    assert await state.take_task_ins(node_id, "c1") is None


async def test_the_oldest_task_comes_first_one_at_a_time(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(5)]
    await state.store_task_ins(tasks[:3])
    await state.store_task_ins(tasks[3:])
    assert [await hand_over(state, node_id) for _ in range(5)] == tasks


async def test_tasks_of_unknown_runs_get_no_id(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    known, unknown = task_ins(run_id, node_id), task_ins(run_id + 1, node_id)
    assert list(await state.store_task_ins([unknown, known])) == ["", known.task_id]
    assert await hand_over(state, node_id) == known
    assert await state.take_task_ins(node_id, "c1") is None


async def test_a_task_put_back_is_the_next_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    first, second = task_ins(run_id, node_id), task_ins(run_id, node_id)
    await state.store_task_ins([first, second])
    taken = await state.take_task_ins(node_id, "c1")
    assert taken == first
    await state.put_back_task_ins(taken)
    assert await hand_over(state, node_id) == first
    assert await hand_over(state, node_id) == second


async def test_what_a_lost_connection_swallowed_is_handed_out_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    first, second = task_ins(run_id, node_id), task_ins(run_id, node_id)
    await state.store_task_ins([first, second])
    assert await hand_over(state, node_id, "c1") == first
    assert await hand_over(state, node_id, "c1") == second
    assert await state.take_task_ins(node_id, "c1") is None
    assert await hand_over(state, node_id, "c2") == first
    assert await hand_over(state, node_id, "c2") == second
    assert await state.take_task_ins(node_id, "c2") is None


async def test_a_pull_that_waits_is_given_what_its_node_was_sent_elsewhere_meanwhile(
    state: State, beside: Beside
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    assert await state.take_task_ins(node_id, "c1") == task
    # Its connection broke, of which nobody knows yet.
    assert await state.take_task_ins(node_id, "c2") is None
    pull = await beside.start(state.await_task_ins, node_id)
    assert not pull.done.is_set()
    await state.confirm_task_ins(task)
    with trio.fail_after(5):
        await pull.done.wait()
    assert await hand_over(state, node_id, "c2") == task


async def test_a_task_that_is_lost_every_time_is_given_up(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    for delivery in range(MAX_DELIVERIES):
        await hand_over(state, node_id, f"c{delivery}")
    assert await state.take_task_ins(node_id, "another") is None


async def test_an_answered_task_is_not_handed_out_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    await hand_over(state, node_id, "c1")
    await state.store_task_res(answer_to(task))
    assert await state.take_task_ins(node_id, "c2") is None


async def test_anonymous_nodes_share_a_queue(state: State) -> None:
    run_id = await state.create_run(Run())
    tasks = [task_ins(run_id, ANONYMOUS) for _ in range(2)]
    await state.store_task_ins(tasks)
    assert await hand_over(state, ANONYMOUS, "c1") == tasks[0]
    assert await hand_over(state, ANONYMOUS, "c2") == tasks[1]
    assert await state.take_task_ins(ANONYMOUS, "c3") is None


async def test_a_task_past_its_ttl_is_not_handed_out(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id, ttl=10.0)])
    mock_clock.jump(10)
    assert await state.take_task_ins(node_id) is None


# Waiting for a task


async def test_a_waiting_node_is_woken_by_its_task_only(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    other = await state.create_node(30.0)
    waiting = await beside.start(state.await_task_ins, node_id)
    await state.store_task_ins([task_ins(run_id, other)])
    await settle(state)
    assert not waiting.done.is_set()
    await state.store_task_ins([task_ins(run_id, node_id)])
    await waiting.done.wait()
    assert waiting.result is True


async def test_a_task_that_is_there_is_not_waited_for(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    assert await state.await_task_ins(node_id) is True


async def test_a_task_put_back_wakes_too(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    taken = await state.take_task_ins(node_id, "c1")
    assert taken is not None
    waiting = await beside.start(state.await_task_ins, node_id)
    assert not waiting.done.is_set()
    await state.put_back_task_ins(taken)
    await waiting.done.wait()


async def test_an_unknown_node_does_not_wait_and_a_deleted_one_stops(
    state: State, beside: Beside
) -> None:
    assert await state.await_task_ins(123) is False
    _, node_id = await run_with_node(state)
    waiting = [await beside.start(state.await_task_ins, node_id) for _ in range(2)]
    await state.delete_node(node_id)
    for each in waiting:
        await each.done.wait()
        assert each.result is False


async def test_a_newer_pull_of_a_node_ends_the_older_one(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    older = await beside.start(state.await_task_ins, node_id)
    await state.heartbeat(node_id, readmit=False)
    newer = await beside.start(state.await_task_ins, node_id)
    assert older.done.is_set()
    assert older.result is False
    await state.store_task_ins([task_ins(run_id, node_id)])
    await newer.done.wait()
    assert newer.result is True


async def test_a_newer_pull_of_a_node_leaves_others_alone(state: State, beside: Beside) -> None:
    _, node_id = await run_with_node(state)
    other = await state.create_node(30.0)
    waiting = [await beside.start(state.await_task_ins, each) for each in (other, ANONYMOUS)]
    await state.heartbeat(node_id, readmit=False)
    await settle(state)
    assert not any(each.done.is_set() for each in waiting)


async def test_the_newest_of_anonymous_pulls_comes_first(state: State, beside: Beside) -> None:
    run_id = await state.create_run(Run())
    waiting = [await beside.start(state.await_task_ins, ANONYMOUS) for _ in range(3)]
    await state.store_task_ins([task_ins(run_id, ANONYMOUS)])
    await settle(state)
    assert [each.done.is_set() for each in waiting] == [False, False, True]


async def test_only_a_registered_node_is_given_tasks(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node) for node in (123, node_id)])
    assert await state.take_task_ins(123) is None, "it may be known later"
    await state.delete_node(node_id)
    assert await state.take_task_ins(node_id, "c1") is None
    await state.heartbeat(123, readmit=True)
    assert await state.take_task_ins(123) is not None


async def test_a_node_that_comes_back_is_told_of_its_tasks(state: State) -> None:
    run_id = await state.create_run(Run())
    bound, greeted = 7, 123
    with state.arrivals([bound, greeted]) as arrivals:
        await state.store_task_ins([task_ins(run_id, node) for node in (bound, greeted)])
        for _ in range(2):
            node_id = await arrivals.next()
            assert await state.take_task_ins(node_id) is None, "it is not known"
            arrivals.done(node_id)
        await state.heartbeat(greeted, readmit=True)
        await state.bind_node(bound, b"key", readmit=True)
        for expected in (greeted, bound):
            with trio.fail_after(5):
                assert await arrivals.next() == expected
            assert await state.take_task_ins(expected) is not None
            arrivals.done(expected)


async def test_one_task_wakes_one_of_many(state: State, beside: Beside) -> None:
    run_id = await state.create_run(Run())
    waiting = [await beside.start(state.await_task_ins, ANONYMOUS) for _ in range(3)]
    await state.store_task_ins([task_ins(run_id, ANONYMOUS)])
    await settle(state)
    assert sum(each.done.is_set() for each in waiting) == 1


async def test_a_wake_up_is_not_lost_with_the_one_it_woke(state: State, beside: Beside) -> None:
    run_id = await state.create_run(Run())
    scope = trio.CancelScope()

    async def impatient() -> None:
        with scope:
            await state.await_task_ins(ANONYMOUS)
            raise AssertionError("was cancelled before")

    await beside.start(impatient)
    patient = await beside.start(state.await_task_ins, ANONYMOUS)
    scope.cancel()
    await state.store_task_ins([task_ins(run_id, ANONYMOUS)])
    await patient.done.wait()


# Waiting for a task for any of many nodes


async def test_who_has_a_task_already_is_told_first(state: State) -> None:
    run_id = await state.create_run(Run())
    nodes = [await state.create_node(30.0) for _ in range(3)]
    await state.store_task_ins([task_ins(run_id, nodes[2]), task_ins(run_id, nodes[0])])
    with state.arrivals(nodes) as arrivals:
        assert {await arrivals.next(), await arrivals.next()} == {nodes[0], nodes[2]}
        await state.store_task_ins([task_ins(run_id, nodes[1])])
        assert await arrivals.next() == nodes[1]


async def test_who_has_no_task_any_more_is_not_told(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    await hand_over(state, node_id)
    with state.arrivals([node_id]) as arrivals:
        assert not (await beside.start(arrivals.next)).done.is_set()


async def test_a_listener_is_woken_by_tasks_for_its_nodes_only(
    state: State, beside: Beside
) -> None:
    run_id, mine = await run_with_node(state)
    foreign = await state.create_node(30.0)
    with state.arrivals([mine]) as arrivals:
        waiting = await beside.start(arrivals.next)
        await state.store_task_ins([task_ins(run_id, foreign), task_ins(run_id, ANONYMOUS)])
        await settle(state)
        assert not waiting.done.is_set()
        await state.store_task_ins([task_ins(run_id, mine)])
        await waiting.done.wait()
        assert waiting.result == mine


async def test_a_node_is_given_for_one_task_at_a_time(state: State, beside: Beside) -> None:
    run_id, busy = await run_with_node(state)
    other = await state.create_node(30.0)
    with state.arrivals([busy, other]) as arrivals:
        await state.store_task_ins([task_ins(run_id, busy), task_ins(run_id, busy)])
        assert await arrivals.next() == busy
        await state.store_task_ins([task_ins(run_id, busy), task_ins(run_id, other)])
        assert await arrivals.next() == other
        waiting = await beside.start(arrivals.next)
        assert not waiting.done.is_set()
        arrivals.done(busy)
        await waiting.done.wait()
        assert waiting.result == busy
        arrivals.done(busy)
        assert await arrivals.next() == busy
        arrivals.done(busy)
        arrivals.done(other)
        assert not (await beside.start(arrivals.next)).done.is_set()


async def test_whoever_has_waited_longest_is_given_first(state: State) -> None:
    run_id = await state.create_run(Run())
    one, two = await state.create_node(30.0), await state.create_node(30.0)
    with state.arrivals([one, two]) as arrivals:
        for node_id in (one, one, two):
            await state.store_task_ins([task_ins(run_id, node_id)])
        assert await arrivals.next() == one
        arrivals.done(one)
        assert [await arrivals.next(), await arrivals.next()] == [two, one]


async def test_a_task_put_back_arrives_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    with state.arrivals([node_id]) as arrivals:
        for _ in range(3):
            assert await arrivals.next() == node_id
            taken = await state.take_task_ins(node_id, "c1")
            assert taken is not None
            await state.put_back_task_ins(taken)
            arrivals.done(node_id)


async def test_an_arrival_is_not_lost_with_the_one_who_waited_for_it(
    state: State, beside: Beside
) -> None:
    run_id, node_id = await run_with_node(state)
    scope = trio.CancelScope()
    with state.arrivals([node_id]) as arrivals:

        async def impatient() -> None:
            with scope:
                await arrivals.next()
                raise AssertionError("was cancelled before")

        await beside.start(impatient)
        scope.cancel()
        await state.store_task_ins([task_ins(run_id, node_id)])
        assert await arrivals.next() == node_id


async def test_a_cancelled_first_look_is_taken_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    await state.store_task_ins([task_ins(run_id, node_id)])
    with state.arrivals([node_id]) as arrivals:
        with trio.CancelScope() as scope:
            scope.cancel()
            await arrivals.next()
        assert await arrivals.next() == node_id


# From the nodes to the driver


async def test_an_answer_reaches_the_driver_and_is_gone(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    await hand_over(state, node_id)
    assert await collect(state, task.task_id) == []
    answer = answer_to(task)
    assert await state.store_task_res(answer) == answer.task_id
    assert await collect(state, task.task_id) == [answer]
    assert await collect(state, task.task_id) == []


async def test_an_answer_put_back_is_there_again(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    answer = answer_to(task)
    await state.store_task_res(answer)
    taken = await state.take_task_res([task.task_id], MiB)
    assert await state.take_task_res([task.task_id], MiB) == []
    await state.put_back_task_res(taken)
    assert await collect(state, task.task_id, task.task_id) == [answer]


async def test_a_second_answer_is_acknowledged_and_not_stored(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    first, second = answer_to(task), answer_to(task, content=b"other")
    await state.store_task_res(first)
    assert await state.store_task_res(second) == first.task_id
    assert await collect(state, task.task_id) == [first]


async def test_answers_nobody_waits_for_are_not_taken(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id, ttl=10.0)
    await state.store_task_ins([task])
    with pytest.raises(NotTaken, match="is not known"):
        await state.store_task_res(answer_to(task, run_id=run_id + 1))
    with pytest.raises(NotTaken, match="not waited for"):
        await state.store_task_res(answer_to(task, ancestry=(str(uuid.uuid4()),)))
    with pytest.raises(NotTaken, match="was not for node 5"):
        await state.store_task_res(answer_to(task, producer=5))
    mock_clock.jump(11)
    with pytest.raises(NotTaken, match="not waited for"):
        await state.store_task_res(answer_to(task))


async def test_an_answer_for_the_wrong_run_is_not_taken(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    other_run = await state.create_run(Run())
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    with pytest.raises(NotTaken):
        await state.store_task_res(answer_to(task, run_id=other_run))


async def test_an_error_is_stored_once_for_who_was_asked(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    error = TaskError(0, "not valid")
    assert await state.store_error(task.task_id, error, producer=node_id + 1) is False
    assert await state.store_error(task.task_id, error, producer=node_id) is True
    assert await state.store_error(task.task_id, error, producer=None) is False
    assert await state.store_error(str(uuid.uuid4()), error, producer=None) is False
    (answer,) = await collect(state, task.task_id)
    assert answer.content == error
    assert answer.ancestry == (task.task_id,)


async def test_answers_come_in_portions(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(5)]
    await state.store_task_ins(tasks)
    task_ids = [task.task_id for task in tasks]
    for number, task in enumerate(tasks):
        await state.store_task_res(answer_to(task, content=bytes([number]) * MiB))
    portions = []
    while portion := await state.take_task_res(task_ids, int(2.5 * MiB)):
        await state.confirm_task_res(portion)
        portions.append(len(portion))
    assert portions == [2, 2, 1]


async def test_one_answer_is_given_even_over_the_limit(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    await state.store_task_res(answer_to(task))
    assert len(await state.take_task_res([task.task_id], 1)) == 1


# Errors that stand in


async def test_the_node_was_never_registered(state: State) -> None:
    run_id = await state.create_run(Run())
    task = task_ins(run_id, 4711)
    await state.store_task_ins([task])
    await state.await_task_res([task.task_id], MiB)
    (answer,) = await collect(state, task.task_id)
    assert is_error(answer, 3)
    assert (answer.producer, answer.run_id, answer.group_id) == (4711, run_id, task.group_id)
    assert await collect(state, task.task_id) == []


@pytest.mark.parametrize("handed_over", [False, True])
async def test_the_node_went_offline(
    state: State, mock_clock: MockClock, handed_over: bool
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    if handed_over:
        await hand_over(state, node_id)
    assert await collect(state, task.task_id) == []
    mock_clock.jump(31)
    (answer,) = await collect(state, task.task_id)
    assert is_error(answer, 3)
    assert answer.ttl == pytest.approx(3600 - 31)
    await state.ping(node_id, 30.0, readmit=False)
    assert await state.take_task_ins(node_id) is None
    with pytest.raises(NotTaken):
        await state.store_task_res(answer_to(task))


async def test_a_node_that_comes_back_before_it_is_given_up_still_works(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    mock_clock.jump(31)
    taken = await state.take_task_res([task.task_id], MiB)
    assert is_error(taken[0], 3)
    await state.ping(node_id, 30.0, readmit=False)
    assert await state.take_task_ins(node_id, "c1") is None, "its error is on the way"
    await state.put_back_task_res(taken)
    assert await hand_over(state, node_id) == task
    await state.store_task_res(answer_to(task))
    assert [answer.content for answer in await collect(state, task.task_id)] == [b"result"]


async def test_the_ttl_ran_out(state: State, mock_clock: MockClock) -> None:
    run_id = await state.create_run(Run())
    task = task_ins(run_id, ANONYMOUS, ttl=10.0)
    await state.store_task_ins([task])
    mock_clock.jump(11)
    (answer,) = await collect(state, task.task_id)
    assert is_error(answer, 0)
    assert isinstance(answer.content, TaskError)
    assert "ttl" in answer.content.reason
    assert answer.ttl == 0


async def test_a_stored_answer_outlives_node_and_ttl(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id, ttl=10.0)
    await state.store_task_ins([task])
    answer = answer_to(task)
    await state.store_task_res(answer)
    await state.delete_node(node_id)
    mock_clock.jump(11)
    assert await state.store_task_res(answer_to(task)) == answer.task_id
    assert await collect(state, task.task_id) == [answer]


# Waiting for answers


async def test_a_driver_waits_for_every_answer(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(3)]
    await state.store_task_ins(tasks)
    await state.store_task_res(answer_to(tasks[0]))
    ids = [task.task_id for task in tasks]
    waiting = await beside.start(state.await_task_res, ids, MiB)
    await state.store_task_res(answer_to(tasks[2]))
    await settle(state)
    assert not waiting.done.is_set()
    await state.store_task_res(answer_to(tasks[1]))
    await waiting.done.wait()
    assert len(await collect(state, *ids)) == 3


async def test_a_driver_is_told_how_many_answers_are_missing(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(3)]
    await state.store_task_ins(tasks)
    await state.store_task_res(answer_to(tasks[0]))
    missing: list[int] = []
    ids = [task.task_id for task in tasks]
    waiting = await beside.start(state.await_task_res, ids, MiB, missing.append)
    assert missing == [2]
    await state.store_task_res(answer_to(tasks[2]))
    await settle(state)
    assert missing == [2, 1]
    await state.delete_node(node_id)
    await waiting.done.wait()


async def test_enough_bytes_end_the_wait(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    tasks = [task_ins(run_id, node_id) for _ in range(3)]
    await state.store_task_ins(tasks)
    ids = [task.task_id for task in tasks]
    waiting = await beside.start(state.await_task_res, ids, 2 * MiB)
    await state.store_task_res(answer_to(tasks[0], content=b"a" * MiB))
    await settle(state)
    assert not waiting.done.is_set()
    await state.store_task_res(answer_to(tasks[1], content=b"b" * MiB))
    await waiting.done.wait()
    await state.await_task_res(ids, 2 * MiB)


async def test_nothing_to_wait_for(state: State) -> None:
    await state.await_task_res([], MiB)
    await state.await_task_res([str(uuid.uuid4())], MiB)


async def test_the_wait_ends_when_the_ttl_runs_out(
    state: State, mock_clock: MockClock, beside: Beside
) -> None:
    run_id = await state.create_run(Run())
    tasks = [task_ins(run_id, ANONYMOUS, ttl=ttl) for ttl in (5.0, 10.0)]
    await state.store_task_ins(tasks)
    waiting = await beside.start(state.await_task_res, [task.task_id for task in tasks], MiB)
    mock_clock.jump(6)
    await settle(state)
    assert not waiting.done.is_set()
    mock_clock.jump(5)
    await waiting.done.wait()


async def test_the_wait_ends_when_the_last_node_goes(
    state: State, mock_clock: MockClock, beside: Beside
) -> None:
    run_id, first = await run_with_node(state)
    second = await state.create_node(60.0)
    tasks = [task_ins(run_id, first), task_ins(run_id, second)]
    await state.store_task_ins(tasks)
    waiting = await beside.start(state.await_task_res, [task.task_id for task in tasks], MiB)
    mock_clock.jump(31)
    await settle(state)
    assert not waiting.done.is_set()
    await state.delete_node(second)
    await waiting.done.wait()


async def test_the_wait_ends_when_a_node_is_attended_no_more(
    state: State, beside: Beside, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    with state.attend(node_id):
        driver = await beside.start(state.await_task_res, [task.task_id], MiB)
        for _ in range(4):
            mock_clock.jump(25)
            await settle(state)
        assert not driver.done.is_set()
    mock_clock.jump(29)
    await settle(state)
    assert not driver.done.is_set()
    mock_clock.jump(2)
    await settle(state)
    assert driver.done.is_set()
    [answer] = await collect(state, task.task_id)
    assert is_error(answer, 3)


async def test_a_heartbeat_prolongs_the_wait(
    state: State, mock_clock: MockClock, beside: Beside
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    waiting = await beside.start(state.await_task_res, [task.task_id], MiB)
    mock_clock.jump(20)
    await state.ping(node_id, 30.0, readmit=False)
    mock_clock.jump(20)
    await settle(state)
    assert not waiting.done.is_set()
    mock_clock.jump(11)
    await waiting.done.wait()


async def test_a_driver_that_leaves_disturbs_nobody(state: State, beside: Beside) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    with trio.move_on_after(0):
        await state.await_task_res([task.task_id], MiB)
    waiting = await beside.start(state.await_task_res, [task.task_id], MiB)
    await state.store_task_res(answer_to(task))
    await waiting.done.wait()


# Handing over


async def test_handing_over_confirms(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    taken = await state.take_task_ins(node_id, "c1")
    assert taken is not None
    async with state.handing_over_task_ins(taken):
        pass
    assert await state.take_task_ins(node_id, "c1") is None
    await state.store_task_res(answer_to(task))
    async with state.handing_over_task_res(await state.take_task_res([task.task_id], MiB)):
        pass
    assert await collect(state, task.task_id) == []


async def test_what_was_not_handed_over_is_put_back(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    with trio.CancelScope() as scope:
        taken = await state.take_task_ins(node_id, "c1")
        assert taken is not None
        async with state.handing_over_task_ins(taken):
            scope.cancel()
            await trio.sleep_forever()
    assert await hand_over(state, node_id) == task
    answer = answer_to(task)
    await state.store_task_res(answer)
    with pytest.raises(ConnectionError):
        async with state.handing_over_task_res(await state.take_task_res([task.task_id], MiB)):
            raise ConnectionError
    assert await collect(state, task.task_id) == [answer]


async def test_a_task_may_be_answered_while_it_is_under_way(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task, task_ins(run_id, node_id, content=b"next")])
    taken = await state.take_task_ins(node_id, "c1")
    assert taken is not None
    answer = answer_to(task)
    async with state.handing_over_task_ins(taken):
        await state.store_task_res(answer)
    # It was not handed over without an answer: to ask over another connection brings the next.
    assert (await hand_over(state, node_id, "c2")).content == b"next"
    assert await collect(state, task.task_id) == [answer]


async def test_late_words_about_what_is_gone_are_ignored(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id)
    await state.store_task_ins([task])
    taken = await state.take_task_ins(node_id, "c1")
    assert taken is not None
    await state.store_task_res(answer_to(task))
    await state.put_back_task_ins(taken)
    assert await state.take_task_ins(node_id, "c2") is None
    answers = await state.take_task_res([task.task_id], MiB)
    await state.confirm_task_res(answers)
    await state.confirm_task_res(answers)
    await state.put_back_task_res(answers)
    await state.confirm_task_ins(taken)
    await state.put_back_task_ins(taken)
    assert await collect(state, task.task_id) == []
    assert await state.take_task_ins(node_id, "c2") is None


# Sweeping


async def test_what_nobody_can_ask_for_is_swept(state: State, mock_clock: MockClock) -> None:
    run_id, node_id = await run_with_node(state)
    unanswered, answered = task_ins(run_id, node_id, ttl=10.0), task_ins(run_id, node_id, ttl=10.0)
    await state.store_task_ins([unanswered, answered])
    answer = answer_to(answered)
    await state.store_task_res(answer)
    for _ in range(3):
        mock_clock.jump(LINGER / 2)
        await settle(state)
    assert await collect(state, unanswered.task_id, answered.task_id) == []


async def test_tasks_out_of_time_can_be_asked_for_a_while(
    state: State, mock_clock: MockClock
) -> None:
    run_id, node_id = await run_with_node(state)
    task = task_ins(run_id, node_id, ttl=10.0)
    await state.store_task_ins([task])
    mock_clock.jump(LINGER)
    await settle(state)
    assert len(await collect(state, task.task_id)) == 1


@pytest.mark.parametrize("text", STRANGE_TEXTS.values(), ids=STRANGE_TEXTS)
async def test_what_nobody_has_stored_is_not_there_whatever_it_is_called(
    state: State, text: str
) -> None:
    run_id, node_id = await run_with_node(state)
    asked = task_ins(run_id, node_id)
    await state.store_task_ins([asked])
    await state.await_task_res([text], 1)
    assert await state.take_task_res([text, asked.task_id], MiB) == []
    assert await state.get_fab(text) is None
    assert not await state.store_error(text, TaskError(0, text), producer=node_id)
    with pytest.raises(NotTaken):
        await state.store_task_res(answer_to(asked, ancestry=(text,)))
    assert await state.node_of_key(text.encode()) is None


async def test_an_error_says_what_a_client_may_say(state: State) -> None:
    run_id, node_id = await run_with_node(state)
    ins = task_ins(run_id, node_id, content=TaskError(2**63 - 1, "x" * 3000))
    await state.store_task_ins([ins])
    taken = await state.take_task_ins(node_id)
    assert taken == ins
    await state.confirm_task_ins(ins)
    res = answer_to(ins, content=TaskError(-(2**63), "y" * 3000))
    await state.store_task_res(res)
    assert await state.take_task_res([ins.task_id], MiB) == [res]
