"""What every store keeps of replies, and what it says where none comes."""

from __future__ import annotations

import attrs
import trio
from peering.parcels import parcel
from state.messages.lab import Lab, later, new_run, objects_in, read, send
from stores import settle
from trio.testing import MockClock

from superlink_trio.state.messages import SERVER
from superlink_trio.state.messages.interface import (
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    REPLY_UNAVAILABLE,
    SESSION_TIMEOUT,
)
from superlink_trio.state.messages.rules import MOST_REPLIES
from superlink_trio.wire.messages import Outcome
from superlink_trio.wire.objects import children_of, object_id_of


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


async def test_of_many_replies_the_first_are_given(lab: Lab) -> None:
    asked = [f"{number:064x}" for number in range(MOST_REPLIES + 1)]
    for _ in range(2):
        given = await lab.state.take_replies(lab.run_id, asked)
        assert [each.message.metadata.reply_to_message_id for each in given] == asked[:-1]
    [last] = await lab.state.take_replies(lab.run_id, asked[-1:])
    assert last.message.metadata.reply_to_message_id == asked[-1]


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


async def test_of_an_id_that_cannot_be_one_nothing_is_known(
    lab: Lab, mock_clock: MockClock
) -> None:
    for asked in ("", "a\0b", "\N{SYMBOL FOR NULL}", "f" * 10_000):
        await lab.state.await_replies(lab.run_id, [asked])
        [error] = await lab.state.take_replies(lab.run_id, [asked])
        assert error.message.error.code == MESSAGE_UNAVAILABLE


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
