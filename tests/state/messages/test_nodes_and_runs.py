"""What every store keeps of nodes and runs."""

from __future__ import annotations

import attrs
import pytest
import trio
from state.messages.conftest import Make
from state.messages.lab import a_node, a_run, later, new_run
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import LimitReached, StateLimits
from superlink_trio.state.interface import FORGET
from superlink_trio.state.messages import (
    SERVER,
    MessagesCensus,
    MessageState,
    NotFound,
    NotPermitted,
    rules,
)
from superlink_trio.state.messages.interface import CLAIM_TIMEOUT, EVICT_AFTER, TASK_TIMEOUT
from superlink_trio.wire.messages import Outcome, RunStatus


async def test_a_node_comes_and_goes(state: MessageState, mock_clock: MockClock) -> None:
    node_id = await state.register_node(b"key", name="ward 7")
    assert await state.online_nodes() == []
    assert await state.activate_node(b"key", 30.0) == node_id
    assert await state.online_nodes() == [node_id]
    assert await state.deactivate_node(node_id)
    assert await state.online_nodes() == []
    [record] = await state.nodes()
    assert (record.node_id, record.public_key, record.name) == (node_id, b"key", "ward 7")
    assert await state.unregister_node(node_id)
    assert await state.nodes() == ()
    assert not await state.unregister_node(node_id)


async def test_a_key_has_one_node(state: MessageState, mock_clock: MockClock) -> None:
    await state.register_node(b"key")
    with pytest.raises(NotPermitted, match="has a node already"):
        await state.register_node(b"key")


async def test_only_a_registered_key_is_activated(
    state: MessageState, mock_clock: MockClock
) -> None:
    with pytest.raises(NotFound):
        await state.activate_node(b"key", 30.0)


async def test_a_node_is_online_for_twice_its_interval(
    state: MessageState, mock_clock: MockClock
) -> None:
    node_id = await a_node(state)
    await later(state, 59)
    assert await state.online_nodes() == [node_id]
    assert await state.heartbeat(node_id, 30.0)
    await later(state, 59)
    assert await state.online_nodes() == [node_id]
    await later(state, 2)
    assert await state.online_nodes() == []
    assert not await state.heartbeat(12345)


async def test_a_node_is_known_by_its_key(state: MessageState, mock_clock: MockClock) -> None:
    node_id = await a_node(state)
    assert await state.admit_node(node_id, b"key", readmit=False)
    assert not await state.admit_node(node_id, b"other", readmit=True)
    assert not await state.admit_node(12345, b"key", readmit=True)


async def test_a_node_of_an_earlier_life_comes_back(
    state: MessageState, mock_clock: MockClock
) -> None:
    assert not await state.admit_node(12345, b"key", readmit=False)
    assert await state.admit_node(12345, b"key", readmit=True)
    assert await state.admit_node(12345, b"key", readmit=False)
    assert not await state.admit_node(12345, b"other", readmit=True)


async def test_no_node_is_taken_for_the_server(state: MessageState, mock_clock: MockClock) -> None:
    assert not await state.admit_node(SERVER, b"key", readmit=True)


async def test_what_was_unregistered_does_not_come_back(
    state: MessageState, mock_clock: MockClock
) -> None:
    node_id = await a_node(state)
    await state.unregister_node(node_id)
    assert not await state.admit_node(node_id, b"key", readmit=True)


async def test_only_so_many_nodes_are_registered(make: Make, mock_clock: MockClock) -> None:
    state = await make(StateLimits(nodes=1))
    await state.register_node(b"key")
    with pytest.raises(LimitReached):
        await state.register_node(b"other")
    with pytest.raises(LimitReached):
        await state.admit_node(12345, b"third", readmit=True)


async def test_a_run_from_its_beginning_to_its_end(
    state: MessageState, mock_clock: MockClock
) -> None:
    created = await state.create_run(new_run())
    assert created.status is RunStatus.PENDING
    claim = await state.claim_run()
    assert claim is not None
    assert (claim.run.run_id, claim.run.status) == (created.run_id, RunStatus.STARTING)
    assert await state.claim_run() is None
    running = await state.begin_run(claim.token)
    assert running.status is RunStatus.RUNNING
    with pytest.raises(NotPermitted):
        await state.begin_run(claim.token)
    assert await state.run_of_token(claim.token) == running
    assert await state.task_heartbeat(claim.token)
    assert await state.finish_run(created.run_id, Outcome.COMPLETED, "well done")
    ended = await state.run(created.run_id)
    assert ended is not None
    assert (ended.status, ended.outcome, ended.details) == (
        *(RunStatus.FINISHED, Outcome.COMPLETED),
        "well done",
    )
    assert not await state.finish_run(created.run_id, Outcome.FAILED)
    assert await state.run_of_token(claim.token) is None
    assert not await state.task_heartbeat(claim.token)
    with pytest.raises(NotFound):
        await state.begin_run(claim.token)


async def test_each_run_has_a_series_of_its_own_unless_it_names_one(
    state: MessageState, mock_clock: MockClock
) -> None:
    first, second = [await state.create_run(new_run()) for _ in range(2)]
    assert first.series_id != second.series_id
    third = await state.create_run(attrs.evolve(new_run(), series_id=first.series_id))
    assert third.series_id == first.series_id


async def test_the_newest_runs_come_first(state: MessageState, mock_clock: MockClock) -> None:
    ids = [(await state.create_run(new_run())).run_id for _ in range(4)]
    assert [run.run_id for run in await state.runs(2)] == ids[:1:-1]
    assert [run.run_id for run in await state.runs(2, skip=3)] == ids[:1]


async def test_whoever_starts_runs_is_woken(state: MessageState, mock_clock: MockClock) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.await_pending_run)
            await settle(state)
            await state.create_run(new_run())


async def test_a_run_that_is_stopped_before_it_starts_is_never_claimed(
    state: MessageState, mock_clock: MockClock
) -> None:
    run = await state.create_run(new_run())
    assert await state.finish_run(run.run_id, Outcome.STOPPED)
    assert await state.claim_run() is None


async def test_a_claim_that_is_not_used_is_given_to_others(
    state: MessageState, mock_clock: MockClock
) -> None:
    await state.create_run(new_run())
    first = await state.claim_run()
    await later(state, CLAIM_TIMEOUT + 10)
    second = await state.claim_run()
    assert first is not None
    assert second is not None
    assert second.run.run_id == first.run.run_id
    with pytest.raises(NotFound):
        await state.begin_run(first.token)


async def test_who_has_claimed_a_run_may_give_it_back(
    state: MessageState, mock_clock: MockClock
) -> None:
    await state.create_run(new_run())
    first = await state.claim_run()
    assert first is not None
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.await_pending_run)
            await settle(state)
            assert await state.unclaim_run(first.token)
    assert not await state.unclaim_run(first.token)
    with pytest.raises(NotFound):
        await state.begin_run(first.token)
    second = await state.claim_run()
    assert second is not None
    assert (second.run.run_id, second.run.status) == (first.run.run_id, RunStatus.STARTING)
    await state.begin_run(second.token)
    assert not await state.unclaim_run(second.token)
    assert await state.run_of_token(second.token) is not None


async def test_who_has_a_run_is_known(state: MessageState, mock_clock: MockClock) -> None:
    running = await a_run(state)
    for _ in range(2):
        await state.create_run(new_run())
    claim = await state.claim_run()
    assert claim is not None
    assert list(await state.claimed_runs()) == [running, claim.run]
    await state.finish_run(running.run_id, Outcome.COMPLETED)
    assert list(await state.claimed_runs()) == [claim.run]


async def test_a_run_whose_process_is_silent_has_failed(
    state: MessageState, mock_clock: MockClock
) -> None:
    run = await a_run(state)
    await later(state, TASK_TIMEOUT + 10)
    ended = await state.run(run.run_id)
    assert ended is not None
    assert ended.outcome is Outcome.FAILED
    assert "not heard of" in ended.details


async def test_a_bundle_is_found_by_its_hash(state: MessageState, mock_clock: MockClock) -> None:
    run = await state.create_run(new_run(b"zip"))
    fab = await state.fab(run.fab_hash)
    assert fab is not None
    assert fab.content == b"zip"
    assert await state.fab("no") is None


async def test_a_bundle_is_kept_as_long_as_it_is_run(
    state: MessageState, mock_clock: MockClock
) -> None:
    first, second = [await state.create_run(new_run(b"zip")) for _ in range(2)]
    await state.finish_run(first.run_id, Outcome.COMPLETED)
    assert await state.fab(first.fab_hash) is not None
    await state.finish_run(second.run_id, Outcome.COMPLETED)
    assert await state.fab(first.fab_hash) is None


async def test_a_log_is_followed_to_its_end(state: MessageState, mock_clock: MockClock) -> None:
    run = await a_run(state)
    await state.log(run.run_id, "one\n")
    await state.log(run.run_id, "two\n")
    logged = await state.logs(run.run_id, 0.0)
    assert (logged.text, logged.over) == ("one\ntwo\n", False)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.await_logs, run.run_id, logged.latest)
            await settle(state)
            await state.log(run.run_id, "three\n")
    more = await state.logs(run.run_id, logged.latest)
    assert more.text == "three\n"
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(state.await_logs, run.run_id, more.latest)
            await settle(state)
            await state.finish_run(run.run_id, Outcome.COMPLETED)
    assert await state.logs(run.run_id, more.latest) == attrs.evolve(more, text="", over=True)
    with pytest.raises(NotFound):
        await state.logs(12345, 0.0)


@pytest.mark.parametrize(
    ("outcome", "last"), [(Outcome.FAILED, "Run {} failed: no reason\n"), (Outcome.COMPLETED, "")]
)
async def test_a_log_ends_with_the_reason(
    outcome: Outcome, last: str, state: MessageState, mock_clock: MockClock
) -> None:
    run = await a_run(state)
    await state.finish_run(run.run_id, outcome, "no reason")
    logged = await state.logs(run.run_id, 0.0)
    assert (logged.text, logged.over) == (last.format(run.run_id), True)


async def test_nodes_and_runs_are_counted(state: MessageState, mock_clock: MockClock) -> None:
    await state.register_node(b"offline")
    await a_node(state)
    await a_run(state)
    await state.create_run(new_run())
    over = await state.create_run(new_run())
    await state.finish_run(over.run_id, Outcome.STOPPED)
    runs = {RunStatus.PENDING: 1, RunStatus.STARTING: 0, RunStatus.RUNNING: 1}
    assert state.census() == MessagesCensus(nodes=2, nodes_online=1, runs=runs)


async def test_who_registered_itself_and_is_offline_longest_gives_way(
    make: Make, mock_clock: MockClock
) -> None:
    state = await make(StateLimits(nodes=3))
    operators = await state.register_node(b"operator's")
    first = await state.register_node(b"first", itself=True)
    await state.activate_node(b"first", 10.0)
    await later(state, 5)
    second = await state.register_node(b"second", itself=True)
    await state.activate_node(b"second", 10.0)
    await later(state, 15 + EVICT_AFTER + 1)
    third = await state.register_node(b"third", itself=True)
    assert {node.node_id for node in await state.nodes()} == {operators, second, third}
    await later(state, 5)
    assert await state.admit_node(first, b"first", readmit=True), "it comes back as it was"
    assert {node.node_id for node in await state.nodes()} == {operators, first, third}


async def test_one_after_the_other_gives_way(make: Make, mock_clock: MockClock) -> None:
    state = await make(StateLimits(nodes=4))
    node_ids = []
    for key in (b"1", b"2", b"3", b"4"):
        node_ids.append(await state.register_node(key, itself=True))
        await later(state, 1)
    await later(state, EVICT_AFTER)
    await state.register_node(b"5", itself=True)
    await state.heartbeat(node_ids[1], 10.0)
    await state.register_node(b"6", itself=True)
    assert {node.node_id for node in await state.nodes()}.isdisjoint({node_ids[0], node_ids[2]})
    assert state.node(node_ids[0]) is None
    assert state.node(node_ids[3]) is not None
    await state.register_node(b"7", itself=True)
    with pytest.raises(LimitReached):
        await state.register_node(b"8", itself=True)
    assert state.node(node_ids[1]) is not None


@pytest.mark.parametrize("what", ["never heard of", "online", "gone a moment ago", "back"])
async def test_who_is_online_or_was_just_now_stays(
    make: Make, what: str, mock_clock: MockClock
) -> None:
    state = await make(StateLimits(nodes=1))
    node_id = await state.register_node(b"key", itself=True)
    if what != "never heard of":
        await state.activate_node(b"key", 30.0)
        await later(state, 60 + EVICT_AFTER + 1 if what == "back" else 59)
    if what == "back":
        await state.heartbeat(node_id)
    elif what == "gone a moment ago":
        await state.deactivate_node(node_id)
    if what not in ("online", "back"):
        await later(state, EVICT_AFTER - 1)
    with pytest.raises(LimitReached):
        await state.register_node(b"other", itself=True)
    with pytest.raises(LimitReached):
        await state.admit_node(12345, b"third", readmit=True)
    assert [node.node_id for node in await state.nodes()] == [node_id]


async def test_who_registered_itself_is_forgotten_after_a_day(
    state: MessageState, mock_clock: MockClock
) -> None:
    operators = await state.register_node(b"operator's")
    await state.register_node(b"own", itself=True)
    await state.activate_node(b"own", 30.0)
    mock_clock.jump(FORGET)
    await settle(state)
    assert len(await state.nodes()) == 2
    mock_clock.jump(FORGET / 24)
    await settle(state)
    assert [node.node_id for node in await state.nodes()] == [operators]


async def test_a_node_that_gives_way_is_waited_for_no_more(
    make: Make, mock_clock: MockClock
) -> None:
    state = await make(StateLimits(nodes=1))
    node_id = await state.register_node(b"key", itself=True)
    await later(state, EVICT_AFTER + 1)
    outcome: list[bool] = []

    async def pull() -> None:
        outcome.append(await state.await_instruction(node_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull)
        await settle(state)
        await state.register_node(b"other", itself=True)
    assert outcome == [False]


async def test_runs_are_live_until_they_are_over(
    state: MessageState, mock_clock: MockClock
) -> None:
    running = await a_run(state)
    waiting = await state.create_run(new_run())
    assert list(state.live_runs().values()) == [running, waiting]
    await state.finish_run(running.run_id, Outcome.COMPLETED)
    assert list(state.live_runs()) == [waiting.run_id]


async def test_the_oldest_runs_that_are_over_are_forgotten(
    state: MessageState, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setattr(rules, "KEPT_RUNS", 3)
    monkeypatch.setattr(rules, "KEPT_LOGS", 20)
    waiting, *others = [await state.create_run(new_run()) for _ in range(6)]
    for run in others:
        await state.log(run.run_id, "12345678\n")
        await state.finish_run(run.run_id, Outcome.COMPLETED)
    forgotten, kept = others[:2], others[2:]
    known = {run.run_id for run in await state.runs(10)}
    assert known == {run.run_id for run in (waiting, *kept)}
    for run in forgotten:
        with pytest.raises(NotFound):
            await state.logs(run.run_id, 0.0)
    logs = [(await state.logs(run.run_id, 0.0)).text for run in kept]
    assert logs == ["", "12345678\n", "12345678\n"]


async def test_a_log_keeps_its_latest_part(state: MessageState, mock_clock: MockClock) -> None:
    run = await a_run(state)
    for number in range(5):
        await state.log(run.run_id, f"{number}" * 1_000_000)
    kept = (await state.logs(run.run_id, 0.0)).text
    assert kept.endswith("4")
    assert len(kept) == 4_000_000
