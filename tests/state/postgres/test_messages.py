"""Nodes, runs and messages of Flower 1.23 and later that several processes serve."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import psycopg
import pytest
import trio
from peering.parcels import parcel
from state.messages.lab import a_node, a_run, new_run, read, send
from state.postgres.conftest import BREAK_ALL, Ask
from state.postgres.replicas import heard, later, replica
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import SERVER, DurableMessages
from superlink_trio.state.messages.interface import (
    CLAIM_TIMEOUT,
    NODE_UNAVAILABLE,
    TASK_TIMEOUT,
    NotFound,
)
from superlink_trio.wire.messages import Outcome, RunStatus


@pytest.fixture
async def two(url: str, mock_clock: MockClock) -> AsyncIterator[Sequence[DurableMessages]]:
    async with replica(url) as one, replica(url) as other:
        yield one, other


async def claimed(state: DurableMessages) -> tuple[int, str]:
    """Give a run that is running, and its token."""
    await state.create_run(new_run())
    claim = await state.claim_run()
    assert claim is not None
    await state.begin_run(claim.token)
    return claim.run.run_id, claim.token


async def test_who_is_not_known_keeps_no_commit_busy(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    one, _ = two
    await settle(one)
    before = one._state.commits
    assert not await one.heartbeat(4711)
    assert not await one.await_instruction(4711)
    assert await one.run_of_token("rubbish") is None
    assert not await one.task_heartbeat("rubbish")
    for call in (one.begin_run("rubbish"), one.activate_node(b"rubbish", 30.0)):
        with pytest.raises(NotFound):
            await call
    assert one._state.commits == before


async def test_what_one_has_acknowledged_the_other_knows_at_once(
    two: Sequence[DurableMessages],
    mock_clock: MockClock,
) -> None:
    one, other = two
    node_id = await one.register_node(b"key")
    assert await other.activate_node(b"key", 30.0) == node_id
    assert await one.heartbeat(node_id)
    assert await other.admit_node(node_id, b"key", readmit=False)
    assert not await other.admit_node(node_id, b"another", readmit=True)
    own = await one.register_node(b"own")
    assert await other.admit_node(own, b"own", readmit=False)
    mine = await one.register_node(b"mine")
    assert await other.heartbeat(mine)
    run_id, token = await claimed(one)
    run = await other.run_of_token(token)
    assert run is not None
    assert run.run_id == run_id
    assert await other.task_heartbeat(token)
    with trio.move_on_after(0.1) as waited:
        waited.deadline = trio.current_time()
        await other.await_finished(run_id)
    assert waited.cancelled_caught, "it is not over, though this one had not heard of it"


async def test_an_instruction_wakes_its_node_elsewhere_and_its_reply_the_run(
    two: Sequence[DurableMessages],
    mock_clock: MockClock,
) -> None:
    one, other = two
    run_id, _ = await claimed(one)
    node_id = await a_node(other)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.await_instruction, node_id)
            await settle(one, other)
            asked = parcel(run_id, to=node_id)
            await send(one, run_id, SERVER, asked)
        taken = await other.take(node_id)
        assert taken is not None
        assert await read(other, run_id, node_id, taken) == b"weights"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.await_replies, run_id, [asked.message_id])
            await settle(one, other)
            reply = parcel(run_id, source=node_id, to=SERVER, reply_to=asked.message_id)
            await send(other, run_id, node_id, reply)
    [given] = await one.take_replies(run_id, [asked.message_id])
    assert await read(one, run_id, SERVER, given) == b"weights"


async def test_a_pull_at_one_ends_the_older_one_at_the_other(
    two: Sequence[DurableMessages],
    mock_clock: MockClock,
) -> None:
    one, other = two
    run_id, _ = await claimed(one)
    node_id = await a_node(one)
    ended: list[tuple[int, bool]] = []

    async def pull(which: int) -> None:
        ended.append((which, await two[which].await_instruction(node_id)))

    async with trio.open_nursery() as nursery:
        for number, which in enumerate((0, 1, 0)):
            nursery.start_soon(pull, which)
            await settle(*two)
            with trio.fail_after(10):
                while len(ended) < number:
                    await heard(two)
        assert ended == [(0, False), (1, False)]
        await send(other, run_id, SERVER, parcel(run_id, to=node_id))
    assert ended[-1] == (0, True)


async def test_each_run_is_claimed_once(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    created = {(await each.create_run(new_run())).run_id for each in two for _ in range(5)}
    await heard(two)
    claims: list[int] = []

    async def claim_all(state: DurableMessages) -> None:
        while (claim := await state.claim_run()) is not None or state._known.has_pending:
            if claim is not None:
                claims.append(claim.run.run_id)

    mock_clock.rate = 1.0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for each in two:
                nursery.start_soon(claim_all, each)
    assert sorted(claims) == sorted(created)


async def test_a_run_is_followed_where_it_does_not_run(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    one, other = two
    run_id, token = await claimed(one)
    await heard(two)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.await_logs, run_id, 0.0)
            await settle(*two)
            await one.log(run_id, "hello")
        logged = await other.logs(run_id, 0.0)
        assert (logged.text, logged.over) == ("hello", False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.await_logs, run_id, logged.latest)
            nursery.start_soon(other.await_finished, run_id)
            await settle(*two)
            assert await one.finish_run(run_id, Outcome.STOPPED)
    assert await other.run_of_token(token) is None
    assert not await other.finish_run(run_id, Outcome.FAILED)


async def test_a_node_is_online_wherever_it_is_heard(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    one, other = two
    run_id, token = await claimed(one)
    node_id = await a_node(one)
    asked = await send(one, run_id, SERVER, parcel(run_id, to=node_id))
    for _ in range(4):
        assert await other.heartbeat(node_id)
        assert await one.task_heartbeat(token)
        await later(two, 25)
        assert await one.online_nodes() == [node_id]
        assert one.census().nodes_online == 1
        assert await one.take_replies(run_id, [asked]) == []
    await other.deactivate_node(node_id)
    await heard(two)
    assert one.census().nodes_online == 0
    [error] = await one.take_replies(run_id, [asked])
    assert error.message.error.code == NODE_UNAVAILABLE


async def test_a_heartbeat_of_before_does_not_bring_back_a_node_that_left(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    one, other = two
    node_id = await a_node(one)
    assert await other.heartbeat(node_id)
    mock_clock.jump(0.1)
    await one.deactivate_node(node_id)
    for _ in range(3):
        mock_clock.jump(0.5)
        await heard(two)
    assert await other.online_nodes() == await one.online_nodes() == []


async def test_a_run_that_any_hears_of_goes_on(
    two: Sequence[DurableMessages], mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = two
    run_id, token = await claimed(one)
    await heard(two)
    for _ in range(6):
        assert await other.task_heartbeat(token)
        await later(two, TASK_TIMEOUT / 2)
    assert await one.run_of_token(token) is not None
    await later(two, TASK_TIMEOUT + 10)
    ended = await one.run(run_id)
    assert ended is not None
    assert (ended.status, ended.outcome) == (RunStatus.FINISHED, Outcome.FAILED)
    waiting = await one.create_run(new_run())
    assert await one.claim_run() is not None
    await later(two, CLAIM_TIMEOUT + 10)
    assert caplog.text.count("it waits again") == 1
    assert (await other.run(waiting.run_id) or waiting).status is RunStatus.PENDING


async def test_who_was_taken_for_dead_looks_at_everything_again(
    url: str, ask: Ask, mock_clock: MockClock
) -> None:
    async with replica(url, grace=0.0) as one, replica(url) as other:
        run_id, _ = await claimed(other)
        await heard([one, other])
        # As another process does; what is changed now nobody tells it.
        ask(
            "DELETE FROM superlink_process WHERE process_id = (SELECT min(process_id)"
            " FROM superlink_process)"
        )
        node_id = await a_node(other)
        await other.finish_run(run_id, Outcome.STOPPED)
        ask(BREAK_ALL)
        mock_clock.rate = 1.0
        with trio.fail_after(20):
            while one.node(node_id) is None or run_id in one.live_runs():
                await settle(one, other)
        # Each is noted among those that serve, and the other knows.
        assert await one.stop_serving()
        assert not await other.stop_serving()


async def test_who_waits_does_not_notice_that_connections_broke(
    url: str, ask: Ask, mock_clock: MockClock
) -> None:
    async with replica(url) as one, replica(url) as other:
        run_id, token = await claimed(one)
        node_id = await a_node(other)
        sent = parcel(run_id, to=node_id)
        mock_clock.rate = 1.0
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.await_instruction, node_id)
                await settle(one, other)
                ask(BREAK_ALL)
                assert await other.heartbeat(node_id)
                assert await one.task_heartbeat(token)
                while True:
                    # A sender whose call is refused sends again.
                    with suppress(StateUnavailable):
                        await send(one, run_id, SERVER, sent)
                        break
            with suppress(StateUnavailable):
                await other.take(node_id)
            assert await other.take(node_id) is not None


async def test_only_who_starts_alone_gives_nodes_time(url: str, mock_clock: MockClock) -> None:
    async with replica(url) as one:
        node_id = await a_node(one)
        await later([one], 100)
        async with replica(url) as other:
            assert await other.online_nodes() == []
    async with replica(url) as after:
        assert await after.online_nodes() == [node_id]


async def test_of_all_that_stop_at_once_the_last_is_told_that_nobody_serves(url: str) -> None:
    told: list[bool] = []

    async def stop(one: DurableMessages) -> None:
        told.append(await one.stop_serving())

    async with replica(url) as one, replica(url) as two, replica(url) as three:
        assert await three.stop_serving()
        async with trio.open_nursery() as nursery:
            for each in (one, two):
                nursery.start_soon(stop, each)
    assert not all(told)


async def test_who_stopped_serves_again_when_it_begins_anew(url: str) -> None:
    async with replica(url) as one, replica(url) as other:
        await one.stop_serving()
        await one.serve_again()
        assert await other.stop_serving()


async def test_who_has_closed_serves_no_more(url: str) -> None:
    async with replica(url) as one:
        async with replica(url):
            pass
        assert not await one.stop_serving()


async def test_the_last_two_objects_of_a_message_may_come_at_once(
    url: str, ask: Ask, mock_clock: MockClock
) -> None:
    async with replica(url) as one, replica(url) as other:
        run_id, _ = await claimed(one)
        node_id = await a_node(one)
        sent = parcel(run_id, to=node_id)
        await one.push(run_id, SERVER, [sent.envelope])
        await heard([one, other])
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with psycopg.connect(url) as connection, trio.fail_after(60):
            # Both have to write a subtotal before they commit.
            connection.execute("SELECT 1 FROM superlink_subtotal FOR UPDATE")
            async with trio.open_nursery() as nursery:
                for state, (object_id, content) in zip(
                    (one, other), sent.objects.items(), strict=True
                ):
                    nursery.start_soon(state.put_object, run_id, SERVER, object_id, content)
                while len(ask(waiting)) < 2:
                    await trio.lowlevel.checkpoint()
                connection.rollback()
        assert await other.take(node_id) is not None


async def test_an_object_that_two_bring_at_once_is_kept_once(
    two: Sequence[DurableMessages], mock_clock: MockClock
) -> None:
    one, other = two
    run_id, _ = await claimed(one)
    nodes = [await a_node(one, b"%d" % number) for number in range(2)]
    sent = [parcel(run_id, to=node_id) for node_id in nodes]
    mock_clock.rate = 1.0
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for state, each in zip(two, sent, strict=True):
                nursery.start_soon(send, state, run_id, SERVER, each)
    for state, node_id in zip((other, one), nodes, strict=True):
        taken = await state.take(node_id)
        assert taken is not None
        assert await read(state, run_id, node_id, taken) == b"weights"


@attrs.frozen
class Crowd:
    """Stores over one database, any of which may be called."""

    replicas: Sequence[DurableMessages]
    chance: random.Random

    @property
    def any(self) -> DurableMessages:
        return self.chance.choice(self.replicas)


@asynccontextmanager
async def crowd(url: str, seed: int) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(url, clock=None)) for _ in range(3)]
        yield Crowd(replicas, random.Random(seed))


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_lost_or_kept_for_ever_between_several(
    url: str, ask: Ask, seed: int
) -> None:
    """Messages of equal parts, pushed, pulled and confirmed wherever it happens to be."""
    async with crowd(url, seed) as all_of_them:
        run_id = (await a_run(all_of_them.any)).run_id
        nodes = [await a_node(all_of_them.any, b"%d" % number) for number in range(6)]

        async def push(source: int, to: int, reply_to: str, parts: tuple[bytes, ...]) -> str:
            sent = parcel(run_id, source=source, to=to, reply_to=reply_to, parts=parts)
            pushed = await all_of_them.any.push(run_id, source, [sent.envelope])
            assert pushed.message_ids == [sent.message_id]
            missing = list(pushed.missing)
            all_of_them.chance.shuffle(missing)
            async with trio.open_nursery() as nursery:
                for object_id in missing:
                    nursery.start_soon(
                        all_of_them.any.put_object,
                        *(run_id, source, object_id, sent.objects[object_id]),
                    )
            return sent.message_id

        async def node(node_id: int, messages: int) -> None:
            for _ in range(messages):
                while not await all_of_them.any.await_instruction(node_id):
                    pass  # late news of an older pull has ended it: a node asks again
                taken = await all_of_them.any.take(node_id)
                assert taken is not None
                said = await read(all_of_them.any, run_id, node_id, taken)
                await push(node_id, SERVER, taken.message_id, (said, b"equal", b"same"))

        async def app(round_number: int) -> None:
            parts = (b"model %d" % round_number, b"config", b"more")
            asked = [await push(SERVER, node_id, "", parts) for node_id in nodes]
            await all_of_them.any.await_replies(run_id, asked)
            replies = await all_of_them.any.take_replies(run_id, asked)
            assert len(replies) == len(nodes)
            for reply in replies:
                said = await read(all_of_them.any, run_id, SERVER, reply)
                assert said == b"model %dconfigmoreequalsame" % round_number

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for node_id in nodes:
                    nursery.start_soon(node, node_id, 8)
                for round_number in range(8):
                    nursery.start_soon(app, round_number)
            while ask("SELECT 1 FROM superlink_loose"):
                await settle(*all_of_them.replicas)
    for table in ("message", "object", "tree", "part"):
        assert ask(f"SELECT count(*) FROM superlink_{table}") == [(0,)]
    [(stored, bundle)] = ask(
        "SELECT stored, (SELECT sum(length(content)) FROM superlink_fab) FROM superlink_total"
    )
    assert stored == bundle
