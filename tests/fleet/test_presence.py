"""Which nodes are there: what operators are shown, and what the log says."""

from __future__ import annotations

import logging
import tracemalloc

import pytest
import trio
from builders import EPOCH, pb_node, task_ins
from siblings import exchange, exchange_always
from trio.testing import MockClock, wait_all_tasks_blocked

from examples import fewer
from superlink_trio.fleet import Presence, absences, fleet_api
from superlink_trio.fleet.nodes import NodeView
from superlink_trio.rpc import Caller
from superlink_trio.state import MemoryState
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.runs import Run

HOLD = 20.0


def now() -> float:
    return EPOCH + trio.current_time()


@pytest.fixture
async def presence() -> Presence:
    return Presence(lambda: HOLD, most=lambda: 1000, clock=now)


@pytest.fixture
async def log(
    presence: Presence,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, absences.__name__)
    nursery.start_soon(presence.report)
    return caplog


def only(presence: Presence) -> NodeView:
    [view] = presence.views()
    return view


async def test_a_node_is_online_for_as_long_as_it_said(
    presence: Presence, autojump_clock: MockClock
) -> None:
    presence.joined(7, 30.0)
    began = now()
    autojump_clock.jump(10)
    presence.pinged(7, 40.0)
    view = only(presence)
    assert (view.node_id, view.heard, view.online_until) == (7, began + 10, began + 50)
    autojump_clock.jump(39)
    assert only(presence).online
    autojump_clock.jump(2)
    assert not only(presence).online


async def test_a_held_node_is_online_and_one_whose_connection_broke_is_not(
    presence: Presence, autojump_clock: MockClock
) -> None:
    presence.joined(7, 0.0)
    assert presence.pulls(7, has_key=False) == HOLD
    autojump_clock.jump(HOLD)
    assert only(presence).online_until == now() + 30
    presence.answered(7, None)
    assert only(presence).online_until == now() + 30
    presence.pinged(7, 3600.0)
    presence.pulls(7, has_key=False)
    presence.broke_off(7)
    assert only(presence).online_until == now() + 5


async def test_a_node_works_from_its_task_to_its_answer(
    presence: Presence, autojump_clock: MockClock
) -> None:
    presence.joined(7, 30.0)
    presence.pulls(7, has_key=False)
    task = task_ins(3, 7, group_id="2", task_type="y" * 1000)
    presence.answered(7, task)
    began = now()
    autojump_clock.jump(5)
    work = only(presence).work
    assert work is not None
    assert (work.id, work.run_id, work.group_id) == (task.task_id, 3, "2")
    assert work.since == began
    assert len(work.kind) < 100
    presence.worked(7)
    assert only(presence).work is None


async def test_a_node_that_asks_again_has_no_task(
    presence: Presence, autojump_clock: MockClock
) -> None:
    presence.joined(7, 30.0)
    presence.answered(7, task_ins(3, 7))
    presence.pulls(7, has_key=False)
    assert only(presence).work is None


async def test_those_at_work_are_shown_first(presence: Presence, autojump_clock: MockClock) -> None:
    for node_id in range(300):
        presence.joined(node_id, 30.0)
        autojump_clock.jump(0.001)
    presence.answered(5, task_ins(3, 5))
    autojump_clock.jump(1)
    presence.answered(4, task_ins(3, 4))
    assert [view.node_id for view in presence.views()] == [4, 5, *range(299, 101, -1)]


async def test_who_has_left_or_gave_way_is_not_shown() -> None:
    presence = Presence(lambda: HOLD, most=lambda: 2)
    for node_id in (1, 2, 3):
        presence.joined(node_id, 30.0)
    presence.left(3)
    assert [view.node_id for view in presence.views()] == [2]


async def test_the_log_says_once_who_is_gone_and_who_is_back(
    presence: Presence, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    presence.joined(7, 30.0)
    await trio.sleep(29)
    assert log.messages == []
    await trio.sleep(1000)
    assert log.messages == ["Node 7 is offline (last heard of 31 s ago)"]
    presence.pinged(7, 30.0)
    await trio.sleep(5)
    assert log.messages[1:] == ["Node 7 is back"]
    presence.answered(7, task_ins(3, 7))
    await trio.sleep(50)
    assert log.messages[2:] == ["Node 7 is offline (last heard of 31 s ago, 1 task with it)"]


async def test_a_broken_connection_is_told_after_the_time_to_come_back(
    presence: Presence, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    presence.joined(7, 3600.0)
    presence.joined(8, 3600.0)
    await trio.sleep(100)
    for node_id in (7, 8):
        presence.pulls(node_id, has_key=False)
        presence.broke_off(node_id)
    await trio.sleep(3)
    presence.pulls(8, has_key=False)
    await trio.sleep(4)
    assert log.messages == ["Node 7 is offline (last heard of 6 s ago)"]


@pytest.fixture
async def both(presence: Presence) -> tuple[Presence, Presence]:
    """What two processes know of the same nodes; only the first one's log is looked at."""
    other = Presence(lambda: HOLD, most=lambda: 1000, clock=now)
    presence.attendance.share()
    other.attendance.share()
    return presence, other


async def test_who_calls_another_process_is_gone_for_that_one(
    both: tuple[Presence, Presence],
    log: pytest.LogCaptureFixture,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    here, there = both
    nursery.start_soon(exchange_always, here.attendance, there.attendance)
    for node_id in (7, 8):
        here.joined(node_id, 30.0)
    for _ in range(4):
        await trio.sleep(25)
        there.pinged(7, 30.0)
    assert log.messages == ["Node 8 is offline (last heard of 31 s ago)"]
    assert [view.node_id for view in here.views()] == [8]
    assert {view.node_id for view in there.views()} == {7}
    await trio.sleep(60)
    assert len(log.messages) == 1, "the other one says so"
    there.left(7)
    await trio.sleep(1)
    assert 7 not in {view.node_id for view in (*here.views(), *there.views())}


async def test_who_was_answered_by_another_process_is_held_by_this_one(
    both: tuple[Presence, Presence],
) -> None:
    here, there = both
    here.joined(7, 30.0)
    exchange(here.attendance, there.attendance)
    assert there.pulls(7, has_key=False) == HOLD


async def test_what_a_node_was_given_by_another_process_it_has_until_it_calls_for_more(
    both: tuple[Presence, Presence], autojump_clock: MockClock
) -> None:
    here, there = both
    here.joined(7, 30.0)
    here.answered(7, task_ins(3, 7))
    await trio.sleep(1)
    there.pinged(7, 30.0)
    exchange(here.attendance, there.attendance)
    assert [view.works for view in here.views()] == [1], "a ping says nothing of it"
    await trio.sleep(1)
    there.worked(7)
    exchange(here.attendance, there.attendance)
    assert here.views() == []
    assert [view.works for view in there.views()] == [0]


async def test_nothing_is_told_of_who_signs_off(
    presence: Presence, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    presence.joined(7, 30.0)
    presence.left(7)
    await trio.sleep(100)
    assert log.messages == []


async def test_a_fleet_that_goes_is_a_few_lines(
    presence: Presence, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for node_id in range(500):
        presence.joined(node_id, 30.0)
        presence.answered(node_id, task_ins(3, node_id))
    await trio.sleep(100)
    for node_id in range(500):
        presence.pinged(node_id, 30.0)
    await trio.sleep(5)
    assert log.messages == [
        "500 nodes (0, 1, 2 and 497 more) are offline (500 tasks with them)",
        "500 nodes (0, 1, 2 and 497 more) are back",
    ]


async def test_nodes_that_come_and_go_all_the_time_are_a_few_lines_a_minute(
    presence: Presence, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for node_id in range(1000):
        presence.joined(node_id, 30.0)
        await trio.sleep(0.5)
    assert 100 < len(log.messages) < 60 * 10


async def test_who_could_not_call_has_time_to_come_back(
    presence: Presence, autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    presence.joined(7, 30.0)
    await trio.sleep(1)
    autojump_clock.jump(100)  # the report begins anew, as its service does
    presence.pinged(7, 30.0)
    await trio.sleep(10)
    assert log.messages == []


async def test_a_hundred_thousand_nodes_fit() -> None:
    nodes = fewer(100_000, 10_000)
    presence = Presence(lambda: HOLD, most=lambda: nodes)
    tracemalloc.start()
    for node_id in range(2**60, 2**60 + nodes):
        presence.joined(node_id, 30.0)
        presence.pulls(node_id, has_key=False)
        presence.pinged(node_id, 30.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / nodes < 800


async def test_the_fleet_api_tells_what_its_nodes_do(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    state = MemoryState(clock=now)
    presence = Presence(lambda: HOLD, most=lambda: 10, clock=now)
    api = fleet_api(state, hold=lambda: HOLD, readmit=True, message_limit=2**20, presence=presence)
    caller = Caller("127.0.0.1:1")
    raw = await api.unary["CreateNode"](
        pb.CreateNodeRequest(ping_interval=30.0).SerializeToString(), caller
    )
    node = pb_node(pb.CreateNodeResponse.FromString(raw).node.node_id)
    request = pb.PullTaskInsRequest(node=node).SerializeToString()
    task = task_ins(await state.create_run(Run()), node.node_id)
    await state.store_task_ins([task])
    async with api.leased["PullTaskIns"](request, caller):
        assert only(presence).work is None
    work = only(presence).work
    assert work is not None
    assert work.id == task.task_id

    async def hold() -> None:
        async with api.leased["PullTaskIns"](request, caller):
            pass

    async with trio.open_nursery() as held:
        held.start_soon(hold)
        await wait_all_tasks_blocked()
        assert only(presence).online_until > now() + 30
        held.cancel_scope.cancel()
    assert only(presence).online_until == now() + 5
