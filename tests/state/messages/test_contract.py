"""What every store of nodes, runs and messages keeps."""

from __future__ import annotations

import hashlib
import math

import attrs
import pytest
import trio
from state.messages.conftest import Make
from state.messages.parcels import Parcel, parcel
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import LimitReached, StateLimits
from superlink_trio.state.interface import FORGET
from superlink_trio.state.messages import (
    SERVER,
    DurableMessages,
    MemoryMessages,
    MessagesCensus,
    MessageState,
    NewRun,
    NotFound,
    NotPermitted,
    Wrong,
    rules,
)
from superlink_trio.state.messages.interface import (
    CLAIM_TIMEOUT,
    EVICT_AFTER,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    REPLY_UNAVAILABLE,
    SESSION_TIMEOUT,
    TASK_TIMEOUT,
)
from superlink_trio.wire.messages import Envelope, Outcome, RunRecord, RunStatus
from superlink_trio.wire.objects import children_of, object_id_of
from superlink_trio.wire.runs import Fab

# Less than any heartbeat's interval, so that stores wake as often as they do in real time.
_STEP = 2.5


async def later(state: MessageState, seconds: float) -> None:
    """Let time pass, at once."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    while seconds > 0:
        clock.jump(min(seconds, _STEP))
        seconds -= _STEP
        await settle(state)


async def objects_in(state: MessageState) -> int:
    """Count the objects that a store keeps, once it has come to rest."""
    await settle(state)
    if isinstance(state, MemoryMessages):
        return len(state._messages.objects)
    assert isinstance(state, DurableMessages)
    count = "SELECT count(*) FROM superlink_object"
    return await state._state.read(lambda db: db.value(count))  # type: ignore[attr-defined]


async def a_node(state: MessageState, key: bytes = b"key") -> int:
    node_id = await state.register_node(key)
    await state.activate_node(key, 30.0)
    return node_id


def new_run(content: bytes = b"fab") -> NewRun:
    fab = Fab(hash=hashlib.sha256(content).hexdigest(), content=content)
    return NewRun(fab=fab, fab_id="me/app", fab_version="1.0.0")


async def a_run(state: MessageState) -> RunRecord:
    """Give a run that is running."""
    await state.create_run(new_run())
    claim = await state.claim_run()
    assert claim is not None
    return await state.begin_run(claim.token)


async def send(state: MessageState, run_id: int, source: int, sent: Parcel) -> str:
    """Push a message and all its objects; give its id."""
    pushed = await state.push(run_id, source, [sent.envelope])
    for object_id in pushed.missing:
        assert await state.put_object(run_id, source, object_id, sent.objects[object_id])
    return pushed.message_ids[0]


async def read(state: MessageState, run_id: int, reader: int, envelope: Envelope) -> bytes:
    """Pull all objects of a message, confirm it, and give what it says."""
    said = b""
    for child in envelope.tree.children:
        content = await state.get_object(run_id, reader, child.object_id)
        assert content is not None
        said += content.partition(b"\0")[2]
    assert await state.get_object(run_id, reader, envelope.message_id) is not None
    await state.confirm(run_id, reader, envelope.message_id)
    return said


@attrs.frozen
class Lab:
    """A run and a node."""

    state: MessageState
    run_id: int
    node_id: int

    async def ask(self, **details: object) -> str:
        """Send an instruction to the node."""
        asked = parcel(self.run_id, to=self.node_id, **details)  # type: ignore[arg-type]
        return await send(self.state, self.run_id, SERVER, asked)

    async def answer(self, asked: str, *parts: bytes) -> str:
        """Send the node's reply."""
        reply = parcel(
            self.run_id, source=self.node_id, to=SERVER, reply_to=asked, parts=parts or (b"r",)
        )
        return await send(self.state, self.run_id, self.node_id, reply)


@pytest.fixture
async def lab(state: MessageState, nursery: trio.Nursery) -> Lab:
    await state.create_run(new_run())
    claim = await state.claim_run()
    assert claim is not None
    await state.begin_run(claim.token)
    nursery.start_soon(keep_alive, state, claim.token)
    return Lab(state, claim.run.run_id, await a_node(state))


async def keep_alive(state: MessageState, token: str) -> None:
    goes_on = True
    while goes_on:
        await trio.sleep(20)
        goes_on = await state.task_heartbeat(token)


# Nodes


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


# Runs


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


# Messages


async def test_an_instruction_and_its_reply(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask(parts=(b"model ", b"and config"))
    taken = await lab.state.take(lab.node_id)
    assert taken is not None
    assert taken.message_id == asked
    assert await read(lab.state, lab.run_id, lab.node_id, taken) == b"model and config"
    await lab.answer(asked, b"better model")
    [reply] = await lab.state.take_replies(lab.run_id, [asked])
    assert reply.message.metadata.reply_to_message_id == asked
    assert await read(lab.state, lab.run_id, SERVER, reply) == b"better model"
    assert not await objects_in(lab.state)


async def test_a_message_is_handed_out_only_when_all_of_it_is_here(
    lab: Lab, mock_clock: MockClock
) -> None:
    asked = parcel(lab.run_id, to=lab.node_id, parts=(b"a", b"b"))
    pushed = await lab.state.push(lab.run_id, SERVER, [asked.envelope])
    assert set(pushed.missing) == set(asked.objects)
    first, *others = pushed.missing
    for object_id in others:
        assert await lab.state.take(lab.node_id) is None
        await lab.state.put_object(lab.run_id, SERVER, object_id, asked.objects[object_id])
    assert await lab.state.take(lab.node_id) is None
    await lab.state.put_object(lab.run_id, SERVER, first, asked.objects[first])
    assert await lab.state.take(lab.node_id) is not None


async def test_equal_parts_are_pushed_and_kept_once(lab: Lab, mock_clock: MockClock) -> None:
    other = await a_node(lab.state, b"other")
    to_first, to_second = (parcel(lab.run_id, to=node) for node in (lab.node_id, other))
    pushed = await lab.state.push(lab.run_id, SERVER, [to_first.envelope, to_second.envelope])
    assert len(pushed.missing) == 3
    objects = {**to_first.objects, **to_second.objects}
    for object_id in pushed.missing:
        await lab.state.put_object(lab.run_id, SERVER, object_id, objects[object_id])
    for node_id in (lab.node_id, other):
        taken = await lab.state.take(node_id)
        assert taken is not None
        assert await read(lab.state, lab.run_id, node_id, taken) == b"weights"


async def test_what_messages_have_in_common_stays_for_the_last_of_them(
    lab: Lab, mock_clock: MockClock
) -> None:
    first = await lab.ask(parts=(b"both", b"1"))
    await lab.ask(parts=(b"both", b"2"))
    await lab.state.take(lab.node_id)
    await lab.state.confirm(lab.run_id, lab.node_id, first)
    assert await objects_in(lab.state) == 3
    taken = await lab.state.take(lab.node_id)
    assert taken is not None
    assert await read(lab.state, lab.run_id, lab.node_id, taken) == b"both2"
    assert not await objects_in(lab.state)


async def test_what_was_not_confirmed_is_given_again(lab: Lab, mock_clock: MockClock) -> None:
    first, second = await lab.ask(parts=(b"1",)), await lab.ask(parts=(b"2",))
    for _ in range(3):
        taken = await lab.state.take(lab.node_id)
        assert taken is not None
        assert taken.message_id == first
    await lab.state.confirm(lab.run_id, lab.node_id, first)
    taken = await lab.state.take(lab.node_id)
    assert taken is not None
    assert taken.message_id == second


async def test_a_push_that_is_repeated_is_one(lab: Lab, mock_clock: MockClock) -> None:
    asked = parcel(lab.run_id, to=lab.node_id)
    for _ in range(2):
        pushed = await lab.state.push(lab.run_id, SERVER, [asked.envelope])
        assert pushed.message_ids == [asked.message_id]
        assert set(pushed.missing) == set(asked.objects)
    for _ in range(2):
        for object_id, content in asked.objects.items():
            assert await lab.state.put_object(lab.run_id, SERVER, object_id, content)
    pushed = await lab.state.push(lab.run_id, SERVER, [asked.envelope])
    assert (pushed.message_ids, pushed.missing) == ([asked.message_id], [])
    assert await lab.state.take(lab.node_id) is not None
    await lab.state.confirm(lab.run_id, lab.node_id, asked.message_id)
    assert await lab.state.take(lab.node_id) is None


async def test_a_waiting_node_is_woken(lab: Lab, mock_clock: MockClock) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_instruction, lab.node_id)
            await settle(lab.state)
            await lab.ask()
    assert await lab.state.await_instruction(lab.node_id)


async def test_a_newer_call_of_a_node_ends_the_older_one(lab: Lab, mock_clock: MockClock) -> None:
    ended: list[bool] = []

    async def wait() -> None:
        ended.append(await lab.state.await_instruction(lab.node_id))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await settle(lab.state)
            nursery.start_soon(wait)
            await settle(lab.state)
            assert ended == [False]
            await lab.ask()
    assert ended == [False, True]


async def test_a_node_that_is_unregistered_waits_no_more(lab: Lab, mock_clock: MockClock) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_instruction, lab.node_id)
            await settle(lab.state)
            await lab.state.unregister_node(lab.node_id)
    assert not await lab.state.await_instruction(lab.node_id)


@pytest.mark.parametrize("what", ["unknown node", "unknown run", "finished run"])
async def test_what_is_for_nobody_is_not_taken(lab: Lab, what: str, mock_clock: MockClock) -> None:
    run_id, node_id = lab.run_id, lab.node_id
    if what == "unknown node":
        node_id = 12345
    elif what == "unknown run":
        run_id = 12345
    else:
        await lab.state.finish_run(run_id, Outcome.STOPPED)
    pushed = await lab.state.push(run_id, SERVER, [parcel(run_id, to=node_id).envelope])
    assert (pushed.message_ids, pushed.missing) == ([""], [])


async def test_only_the_node_that_was_asked_replies_and_once(
    lab: Lab, mock_clock: MockClock
) -> None:
    asked = await lab.ask()
    stranger = await a_node(lab.state, b"stranger")
    false = parcel(lab.run_id, source=stranger, to=SERVER, reply_to=asked)
    pushed = await lab.state.push(lab.run_id, stranger, [false.envelope])
    assert pushed.message_ids == [""]
    first = await lab.answer(asked, b"first")
    second = parcel(lab.run_id, source=lab.node_id, to=SERVER, reply_to=asked, parts=(b"second",))
    assert (await lab.state.push(lab.run_id, lab.node_id, [second.envelope])).message_ids == [""]
    [reply] = await lab.state.take_replies(lab.run_id, [asked])
    assert reply.message_id == first


async def test_of_two_replies_the_one_that_is_whole_first_counts(
    lab: Lab, mock_clock: MockClock
) -> None:
    asked = await lab.ask()
    replies = [
        parcel(lab.run_id, source=lab.node_id, to=SERVER, reply_to=asked, parts=(part,))
        for part in (b"slow", b"fast")
    ]
    for reply in replies:
        pushed = await lab.state.push(lab.run_id, lab.node_id, [reply.envelope])
        assert pushed.message_ids == [reply.message_id]
    for reply in reversed(replies):
        for object_id, content in reply.objects.items():
            assert await lab.state.put_object(lab.run_id, lab.node_id, object_id, content)
    [given] = await lab.state.take_replies(lab.run_id, [asked])
    assert await read(lab.state, lab.run_id, SERVER, given) == b"fast"
    assert not await objects_in(lab.state)


@pytest.mark.parametrize(
    ("field", "value"), [("run_id", 4711), ("src_node_id", 4711), ("dst_node_id", 4711)]
)
async def test_nobody_replies_in_another_name(
    lab: Lab, field: str, value: int, mock_clock: MockClock
) -> None:
    asked = await lab.ask()
    reply = parcel(lab.run_id, source=lab.node_id, to=SERVER, reply_to=asked)
    setattr(reply.envelope.message.metadata, field, value)
    with pytest.raises(Wrong, match="4711"):
        await lab.state.push(lab.run_id, lab.node_id, [reply.envelope])


@pytest.mark.parametrize("details", [{"ttl": math.nan}, {"ttl": -1.0}, {"created_at": math.nan}])
async def test_instructions_have_a_time(
    lab: Lab, details: dict[str, float], mock_clock: MockClock
) -> None:
    with pytest.raises(Wrong, match="ttl has to be above 0"):
        await lab.ask(**details)


async def test_objects_are_for_those_whose_message_it_is(lab: Lab, mock_clock: MockClock) -> None:
    stranger = await a_node(lab.state, b"stranger")
    await lab.ask()
    taken = await lab.state.take(lab.node_id)
    assert taken is not None
    assert await lab.state.get_object(lab.run_id, stranger, taken.message_id) is None
    assert await lab.state.get_object(12345, lab.node_id, taken.message_id) is None
    await lab.state.confirm(lab.run_id, stranger, taken.message_id)
    assert await lab.state.get_object(lab.run_id, lab.node_id, taken.message_id) is not None
    await lab.state.confirm(lab.run_id, lab.node_id, taken.message_id)
    assert await lab.state.get_object(lab.run_id, lab.node_id, taken.message_id) is None


async def test_nobody_else_brings_an_object(lab: Lab, mock_clock: MockClock) -> None:
    asked = parcel(lab.run_id, to=lab.node_id)
    await lab.state.push(lab.run_id, SERVER, [asked.envelope])
    object_id, content = next(iter(asked.objects.items()))
    assert not await lab.state.put_object(lab.run_id, lab.node_id, object_id, content)
    assert not await lab.state.put_object(12345, SERVER, object_id, content)


async def test_wrong_objects_and_trees_are_refused(lab: Lab, mock_clock: MockClock) -> None:
    asked = parcel(lab.run_id, to=lab.node_id)
    await lab.state.push(lab.run_id, SERVER, [asked.envelope])
    chunk, _ = asked.objects
    with pytest.raises(Wrong, match="has the SHA-256"):
        await lab.state.put_object(lab.run_id, SERVER, chunk, b"something else")
    elsewhere = parcel(lab.run_id, to=lab.node_id, parts=(b"x",))
    elsewhere.envelope.tree.object_id = chunk
    with pytest.raises(Wrong, match="is not the root of its tree"):
        await lab.state.push(lab.run_id, SERVER, [elsewhere.envelope])
    smuggled = parcel(lab.run_id, to=lab.node_id, parts=(b"y",))
    del smuggled.envelope.tree.children[:]
    await lab.state.push(lab.run_id, SERVER, [smuggled.envelope])
    content = smuggled.objects[smuggled.message_id]
    with pytest.raises(Wrong, match="children that are not in its message's tree"):
        await lab.state.put_object(lab.run_id, SERVER, smuggled.message_id, content)


async def test_there_is_room_for_so_many_bytes(make: Make, mock_clock: MockClock) -> None:
    state = await make(StateLimits(stored_size=10_000))
    lab = Lab(state, (await a_run(state)).run_id, await a_node(state))
    with pytest.raises(LimitReached):
        await lab.ask(parts=(bytes(6000),))


# Replies


async def test_replies_are_waited_for_until_all_are_there(lab: Lab, mock_clock: MockClock) -> None:
    asked = [await lab.ask(parts=(b"%d" % number,)) for number in range(2)]
    missing: list[int] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_replies, lab.run_id, asked, missing.append)
            await settle(lab.state)
            await lab.answer(asked[0], b"a")
            await settle(lab.state)
            await lab.answer(asked[1], b"b")
    assert missing == [2, 1, 0]
    assert len(await lab.state.take_replies(lab.run_id, asked)) == 2


async def test_a_reply_is_given_until_it_is_confirmed(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask()
    await lab.answer(asked)
    for _ in range(2):
        [reply] = await lab.state.take_replies(lab.run_id, [asked])
    await lab.state.confirm(lab.run_id, SERVER, reply.message_id)
    [error] = await lab.state.take_replies(lab.run_id, [asked])
    assert error.message.error.code == MESSAGE_UNAVAILABLE


async def error_of(lab: Lab, asked: str) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.state.await_replies, lab.run_id, [asked])
        await later(lab.state, 61)
    [reply] = await lab.state.take_replies(lab.run_id, [asked])
    content = await lab.state.get_object(lab.run_id, SERVER, reply.message_id)
    assert content is not None
    assert object_id_of(content) == reply.message_id
    assert children_of(content) == []
    await lab.state.confirm(lab.run_id, SERVER, reply.message_id)
    return reply.message.error.code


async def test_errors_stand_in_for_replies_that_do_not_come(
    lab: Lab, mock_clock: MockClock
) -> None:
    assert await error_of(lab, "f" * 64) == MESSAGE_UNAVAILABLE
    assert await error_of(lab, await lab.ask(ttl=20.0)) == REPLY_UNAVAILABLE
    assert await error_of(lab, await lab.ask()) == NODE_UNAVAILABLE


async def test_a_node_that_leaves_is_heard_of_at_once(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_replies, lab.run_id, [asked])
            await settle(lab.state)
            await lab.state.deactivate_node(lab.node_id)


async def test_a_node_that_was_started_anew_does_not_reply(lab: Lab, mock_clock: MockClock) -> None:
    confirmed, handed_out = await lab.ask(), await lab.ask(parts=(b"more",))
    envelope = await lab.state.take(lab.node_id)
    assert envelope is not None
    await read(lab.state, lab.run_id, lab.node_id, envelope)
    assert await lab.state.take(lab.node_id) is not None
    await lab.state.activate_node(b"key", 30.0)
    with trio.fail_after(5):
        await lab.state.await_replies(lab.run_id, [confirmed])
    [error] = await lab.state.take_replies(lab.run_id, [confirmed, handed_out])
    assert error.message.error.code == REPLY_UNAVAILABLE
    again = await lab.state.take(lab.node_id)
    assert again is not None
    assert again.message_id == handed_out


async def test_the_messages_of_a_run_end_with_it(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask()
    assert await lab.state.take(lab.node_id) is not None
    await lab.ask(parts=(b"more",))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_replies, lab.run_id, [asked])
            await settle(lab.state)
            await lab.state.finish_run(lab.run_id, Outcome.STOPPED)
    assert await lab.state.take(lab.node_id) is None
    assert not await objects_in(lab.state)


async def test_a_push_that_stops_half_way_is_given_up(lab: Lab, mock_clock: MockClock) -> None:
    sent = parcel(lab.run_id, to=lab.node_id, parts=(b"a", b"b"))
    pushed = await lab.state.push(lab.run_id, SERVER, [sent.envelope])
    first = pushed.missing[0]
    await later(lab.state, SESSION_TIMEOUT - 10)
    await lab.state.put_object(lab.run_id, SERVER, first, sent.objects[first])
    await later(lab.state, SESSION_TIMEOUT - 10)
    assert await objects_in(lab.state) == 3
    await later(lab.state, 20)
    assert not await objects_in(lab.state)


async def test_a_reply_that_stops_half_way_is_given_up(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask()
    reply = parcel(lab.run_id, source=lab.node_id, to=SERVER, reply_to=asked)
    await lab.state.push(lab.run_id, lab.node_id, [reply.envelope])
    await lab.state.heartbeat(lab.node_id, 1800.0)
    with trio.fail_after(SESSION_TIMEOUT + 20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.state.await_replies, lab.run_id, [asked])
            await later(lab.state, SESSION_TIMEOUT + 10)
    [error] = await lab.state.take_replies(lab.run_id, [asked])
    assert error.message.error.code == REPLY_UNAVAILABLE


async def test_an_instruction_out_of_time_is_forgotten(lab: Lab, mock_clock: MockClock) -> None:
    asked = await lab.ask(ttl=20.0)
    assert await lab.state.take(lab.node_id) is not None
    await later(lab.state, 30)
    assert not await objects_in(lab.state)
    assert await lab.state.take(lab.node_id) is None
    await lab.answer(asked)
    [reply] = await lab.state.take_replies(lab.run_id, [asked])
    assert not reply.message.HasField("error")
    await lab.state.confirm(lab.run_id, SERVER, reply.message_id)
    await lab.ask(ttl=20.0, parts=(b"other",))
    await later(lab.state, SESSION_TIMEOUT + 30)
    assert not await objects_in(lab.state)


async def test_ids_are_unsigned_64_bit(lab: Lab, mock_clock: MockClock) -> None:
    large = 2**64 - 2
    assert await lab.state.admit_node(large, b"large", readmit=True)
    run = await lab.state.create_run(attrs.evolve(new_run(), series_id=large))
    assert await lab.state.run(run.run_id) == run
    assert await lab.state.run(large) is None
    assert [node.node_id for node in await lab.state.nodes()] == [lab.node_id, large]
    asked = parcel(lab.run_id, to=large)
    assert await send(lab.state, lab.run_id, SERVER, asked) == asked.message_id
    taken = await lab.state.take(large)
    assert taken is not None
    assert await read(lab.state, lab.run_id, large, taken) == b"weights"
    assert not await lab.state.await_instruction(large - 1)
    assert not await lab.state.finish_run(large, Outcome.STOPPED)
