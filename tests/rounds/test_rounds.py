"""Rounds as the traffic of an API shows them: the timeline, and what the log says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from builders import EPOCH, answer_to, task_ins
from peering.parcels import parcel
from siblings import exchange
from trio.testing import MockClock

from superlink_trio.rounds import messages
from superlink_trio.rounds import rounds as module
from superlink_trio.rounds.rounds import MOST_MISSING, MOST_ROUNDS, Rounds, RoundView
from superlink_trio.rounds.tasks import answered, asked
from superlink_trio.state.messages import SERVER
from superlink_trio.wire.messages import Envelope
from superlink_trio.wire.tasks import Task, TaskError

RUN = 7


def now() -> float:
    return EPOCH + trio.current_time()


@pytest.fixture
async def rounds() -> Rounds:
    return Rounds(clock=now)


@pytest.fixture
async def log(
    rounds: Rounds,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, module.__name__)
    nursery.start_soon(rounds.report)
    return caplog


def push(rounds: Rounds, *node_ids: int, round: str = "2", **changes: Any) -> Sequence[Task]:
    tasks = [task_ins(RUN, node, now=now(), group_id=round, **changes) for node in node_ids]
    rounds.sent(asked(tasks))
    return tasks


def only(rounds: Rounds) -> RoundView:
    [view] = rounds.views()
    return view


async def test_a_round_goes_from_its_first_task_to_its_last_answer(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    began = now()
    one, two = push(rounds, 1, 2)
    autojump_clock.jump(3)
    rounds.collected(answered([answer_to(one)]))
    view = only(rounds)
    assert (view.run_id, view.group_id, view.kind) == (RUN, "2", "train")
    assert (view.began, view.ended, view.asked, view.answered) == (began, None, 2, 1)
    assert (view.missing, view.waiting_for) == (1, [(2, began)])
    autojump_clock.jump(3)
    rounds.collected(answered([answer_to(two, content=TaskError(0, "broken"))]))
    view = only(rounds)
    assert (view.ended, view.answered, view.errors) == (began + 6, 2, 1)
    assert (view.missing, view.waiting_for) == (0, [])


async def test_kinds_and_runs_have_rounds_of_their_own(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    push(rounds, 1)
    push(rounds, 1, task_type="evaluate")
    push(rounds, 1, round="3")
    rounds.sent(asked([task_ins(RUN + 1, group_id="2")]))
    assert [(view.run_id, view.group_id, view.kind) for view in rounds.views()] == [
        (RUN, "2", "train"),
        (RUN, "2", "evaluate"),
        (RUN, "3", "train"),
        (RUN + 1, "2", "train"),
    ]


async def test_tasks_that_are_pushed_one_by_one_are_one_round(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    for node_id in range(3):
        [task] = push(rounds, node_id)
        autojump_clock.jump(1)
        rounds.collected(answered([answer_to(task)]))
        autojump_clock.jump(3)
    view = only(rounds)
    assert (view.asked, view.answered, view.ended) == (3, 3, now() - 3)
    # A driver that calls every round alike.
    autojump_clock.jump(10)
    push(rounds, 1)
    assert [view.asked for view in rounds.views()] == [3, 1]


async def test_what_a_node_says_of_the_round_does_not_count(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    [task] = push(rounds, 1)
    rounds.collected(answered([answer_to(task, group_id="99", run_id=5, task_type="evaluate")]))
    assert only(rounds).answered == 1


async def test_answers_to_what_nobody_saw_are_none_of_a_round(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    rounds.collected(answered([answer_to(task_ins(RUN, 1))]))
    assert rounds.views() == []


async def test_only_the_latest_rounds_are_remembered(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    tasks = [push(rounds, 1, round=str(number))[0] for number in range(MOST_ROUNDS + 50)]
    rounds.collected(answered([answer_to(task) for task in tasks]))
    views = rounds.views()
    assert [view.group_id for view in views] == [str(n) for n in range(50, MOST_ROUNDS + 50)]
    assert all(view.answered == 1 for view in views)


async def test_of_many_nodes_those_are_named_that_were_asked_first(
    rounds: Rounds, autojump_clock: MockClock
) -> None:
    push(rounds, *range(1000))
    view = only(rounds)
    assert view.missing == 1000
    assert [node.node_id for node in view.waiting_for] == list(range(MOST_MISSING))


async def test_names_are_cut(rounds: Rounds, autojump_clock: MockClock) -> None:
    push(rounds, 1, round="x" * 10_000, task_type="y" * 10_000)
    view = only(rounds)
    assert len(view.group_id) < 100
    assert len(view.kind) < 100


async def test_a_round_that_waits_is_told_less_and_less_often(
    rounds: Rounds, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    one, _ = push(rounds, 1, 2)
    rounds.collected(answered([answer_to(one)]))
    await trio.sleep(59)
    assert log.messages == []
    await trio.sleep(30 * 60)
    assert log.messages == [
        f"Run {RUN}, round 2: train, 1 of 2 answered, waiting for node 2 since {minutes} min"
        for minutes in (1, 2, 4, 8, 16)
    ]


async def test_a_line_names_a_few_of_the_nodes(
    rounds: Rounds, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    push(rounds, *range(1, 6), round="")
    await trio.sleep(70)
    assert log.messages == [
        f"Run {RUN}: train, 0 of 5 answered, waiting for nodes 1, 2, 3 and 2 more since 1 min"
    ]


async def test_who_is_asked_later_is_waited_for_from_then_on(
    rounds: Rounds, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    [early] = push(rounds, 1)
    await trio.sleep(250)
    push(rounds, 2)
    rounds.collected(answered([answer_to(early)]))
    await trio.sleep(55)
    log.clear()
    await trio.sleep(10)
    assert log.messages == [
        f"Run {RUN}, round 2: train, 1 of 2 answered, waiting for node 2 since 1 min"
    ]


async def test_what_nobody_collects_is_given_up_with_its_ttl(
    rounds: Rounds, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    [task] = push(rounds, 1, ttl=60.0)
    await trio.sleep(3600)
    view = only(rounds)
    assert (view.missing, view.answered) == (0, 0)
    assert view.ended is not None
    rounds.collected(answered([answer_to(task)]))
    assert only(rounds).answered == 0


async def test_in_a_run_that_is_over_nobody_is_waited_for(
    caplog: pytest.LogCaptureFixture, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, module.__name__)
    runs = {RUN}
    rounds = Rounds(clock=now, runs=lambda: runs)
    nursery.start_soon(rounds.report)
    push(rounds, 1, ttl=86400.0)
    await trio.sleep(70)
    assert only(rounds).missing == 1
    runs.clear()
    await trio.sleep(10)
    view = only(rounds)
    assert (view.missing, view.ended is None) == (0, False)
    caplog.clear()
    await trio.sleep(3600)
    assert caplog.messages == []


def message(to: int) -> Envelope:
    return parcel(RUN, to=to, created_at=now(), group_id="2").envelope


def reply_to(asked: Envelope, *, error: str = "") -> Envelope:
    source = asked.message.metadata.dst_node_id
    envelope = parcel(RUN, source=source, to=SERVER, reply_to=asked.message_id).envelope
    if error:
        envelope.message.error.reason = error
    return envelope


async def test_messages_have_rounds_too(
    caplog: pytest.LogCaptureFixture, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, module.__package__)
    rounds = Rounds(clock=now, work="message", runs=lambda: {RUN})
    nursery.start_soon(rounds.report)
    began = now()
    asked = [message(1), message(2), message(3)]
    rounds.sent(messages.asked(asked, now()))
    rounds.sent(messages.asked(asked[:1], now()))  # pushed again
    await trio.sleep(2)
    rounds.collected(messages.answered([reply_to(asked[0]), reply_to(asked[1], error="broken")]))
    await trio.sleep(4 * 60)
    view = only(rounds)
    assert (view.group_id, view.kind, view.asked, view.began) == ("2", "train", 3, began)
    assert (view.answered, view.errors, view.waiting_for) == (2, 1, [(3, began)])
    assert caplog.messages == [
        f"Run {RUN}, round 2: 3 train messages sent to 3 nodes",
        f"Run {RUN}, round 2: 2 answers collected, 1 error among them: broken",
        *(
            f"Run {RUN}, round 2: train, 2 of 3 answered, waiting for node 3 since {minutes} min"
            for minutes in (1, 2, 4)
        ),
    ]


async def test_what_was_asked_here_may_be_answered_by_another_process(
    rounds: Rounds, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    other = Rounds(clock=now)
    for each in (rounds, other):
        each.share()
    one, two = push(rounds, 1, 2)
    other.collected(answered([answer_to(one)]))
    exchange(rounds, other)
    assert (only(rounds).answered, only(rounds).missing) == (1, 1)
    assert other.views() == []
    rounds.collected(answered([answer_to(one), answer_to(two)]))
    assert (only(rounds).answered, only(rounds).missing) == (2, 0), "each counts once"
    exchange(rounds, other)
    await trio.sleep(3600)
    assert log.messages == []
