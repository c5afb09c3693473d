"""Which nodes of today's Flower are there: what operators are shown, and what the log says."""

from __future__ import annotations

import logging

import pytest
import trio
from builders import EPOCH
from peering.parcels import parcel
from siblings import exchange_always
from trio.testing import MockClock

from superlink_trio.fleet import NodeView, SuperNodes, absences, together
from superlink_trio.wire.messages import Envelope, NodeRecord

RUN = 7


def now() -> float:
    return EPOCH + trio.current_time()


def instruction(part: bytes = b"weights", run_id: int = RUN) -> Envelope:
    return parcel(run_id, to=1, parts=(part,), group_id="2").envelope


@pytest.fixture
def runs() -> set[int]:
    """Those that are not over."""
    return {RUN, RUN + 1}


@pytest.fixture
async def nodes(runs: set[int]) -> SuperNodes:
    return SuperNodes(most=lambda: 1000, runs=lambda: runs, clock=now)


@pytest.fixture
async def log(
    nodes: SuperNodes, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, absences.__name__)
    nursery.start_soon(nodes.report)
    return caplog


def only(nodes: SuperNodes) -> NodeView:
    [view] = nodes.views()
    return view


async def test_a_node_that_is_heard_elsewhere_does_not_go_offline(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    until = now() + 150
    record = NodeRecord(node_id=1, public_key=b"", registered_at=EPOCH, online_until=until)
    nodes = SuperNodes(most=lambda: 10, runs=set, clock=now, known={1: record}.get)
    caplog.set_level(logging.INFO, absences.__name__)
    nursery.start_soon(nodes.report)
    for node_id in (1, 2):
        nodes.activated(node_id, 30.0)
    await trio.sleep(100)
    assert [view.online for view in nodes.views() if view.node_id == 1] == [True]
    assert "Node 2 is offline" in caplog.text
    assert "Node 1" not in caplog.text
    await trio.sleep(60)
    assert "Node 1 is offline" in caplog.text


@pytest.fixture
async def both(nodes: SuperNodes, nursery: trio.Nursery) -> tuple[SuperNodes, SuperNodes]:
    """What two processes know of the same nodes, which tell each other every second."""
    record = NodeRecord(node_id=1, public_key=b"", registered_at=EPOCH, online_until=EPOCH + 60)
    other = SuperNodes(most=lambda: 10, runs=lambda: {RUN}, clock=now, known={1: record}.get)
    for each in (nodes, other):
        each.attendance.share()
    nursery.start_soon(exchange_always, nodes.attendance, other.attendance)
    return nodes, other


async def test_what_one_process_gave_a_node_may_be_answered_to_another(
    both: tuple[SuperNodes, SuperNodes], autojump_clock: MockClock
) -> None:
    here, there = both
    first, second = instruction(b"1"), instruction(b"2")
    here.activated(1, 30.0)
    here.given(1, first)
    await trio.sleep(2)
    there.heard(1, 30.0)
    there.given(1, second)
    there.replied(1, first.message_id)
    await trio.sleep(2)
    assert here.under_way() + there.under_way() == {(RUN, "2", "train"): 1}
    [view] = together([*here.views(), *there.views()])
    assert view.work is not None
    assert (view.work.id, view.works, view.online) == (second.message_id, 1, True)
    here.activated(1, 30.0)
    await trio.sleep(2)
    assert here.under_way() + there.under_way() == {}, "it was started anew"


async def test_one_process_tells_that_a_node_is_gone(
    both: tuple[SuperNodes, SuperNodes],
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: MockClock,
) -> None:
    caplog.set_level(logging.INFO, absences.__name__)
    here, there = both
    for each in both:
        nursery.start_soon(each.report)
    here.activated(1, 30.0)
    await trio.sleep(0.5)
    assert not there.called(1), "the state knows that it is here"
    there.heard(1, 30.0)
    await trio.sleep(100)
    assert [line.partition(" (")[0] for line in caplog.messages] == ["Node 1 is offline"]
    assert there.called(1) is False, "it was never forgotten"


async def test_a_node_is_online_for_twice_its_interval(
    nodes: SuperNodes, autojump_clock: MockClock
) -> None:
    nodes.activated(1, 30.0)
    autojump_clock.jump(40)
    assert only(nodes).online
    nodes.called(1)
    assert (only(nodes).heard, only(nodes).online_until) == (now(), now() + 20)
    nodes.heard(1, 30.0)
    assert only(nodes).online_until == now() + 60


async def test_a_node_works_on_all_that_it_has_not_answered(
    nodes: SuperNodes, autojump_clock: MockClock
) -> None:
    nodes.activated(1, 30.0)
    began = now()
    first, second = instruction(b"1"), instruction(b"2")
    nodes.given(1, first)
    autojump_clock.jump(5)
    nodes.given(1, second)
    nodes.given(1, first)  # it has not confirmed it
    view = only(nodes)
    assert view.work is not None
    assert (view.work.id, view.work.run_id, view.works) == (first.message_id, RUN, 2)
    assert (view.work.group_id, view.work.kind, view.work.since) == ("2", "train", began)
    assert nodes.under_way() == {(RUN, "2", "train"): 2}
    nodes.replied(1, first.message_id)
    view = only(nodes)
    assert view.work is not None
    assert (view.work.id, view.works) == (second.message_id, 1)
    nodes.replied(1, "nothing that it was given")
    autojump_clock.jump(60)
    assert nodes.under_way() == {}
    nodes.activated(1, 30.0)
    assert only(nodes).work is None, "who is started anew knows nothing of it"


async def test_nobody_works_for_a_run_that_is_over(
    nodes: SuperNodes, log: pytest.LogCaptureFixture, runs: set[int], autojump_clock: MockClock
) -> None:
    nodes.activated(1, 30.0)
    nodes.given(1, instruction())
    nodes.given(1, instruction(run_id=RUN + 1))
    runs.remove(RUN)
    await trio.sleep(6)
    view = only(nodes)
    assert view.work is not None
    assert (view.work.run_id, view.works) == (RUN + 1, 1)


async def test_the_log_says_who_is_gone_and_who_is_back(
    nodes: SuperNodes, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    nodes.activated(1, 30.0)
    nodes.activated(2, 30.0)
    nodes.given(1, instruction(b"1"))
    nodes.given(1, instruction(b"2"))
    await trio.sleep(40)
    nodes.left(2)
    await trio.sleep(30)
    assert log.messages == ["Node 1 is offline (last heard of 61 s ago, 2 messages with it)"]
    assert log.records[0].__dict__["message_id"] == instruction(b"1").message_id
    nodes.heard(1, 30.0)
    await trio.sleep(3)
    assert log.messages[1:] == ["Node 1 is back"]
