"""What every store keeps of messages and their objects."""

from __future__ import annotations

import math

import pytest
import trio
from builders import STRANGE_TEXTS
from peering.parcels import parcel
from state.messages.conftest import Make
from state.messages.lab import Lab, a_node, a_run, objects_in, read
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import LimitReached, StateLimits
from superlink_trio.state.messages import SERVER, Wrong
from superlink_trio.wire.messages import Outcome


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
            await lab.state.put_object(lab.run_id, SERVER, object_id, content)
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
            await lab.state.put_object(lab.run_id, lab.node_id, object_id, content)
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
    await lab.state.put_object(lab.run_id, lab.node_id, object_id, content)
    await lab.state.put_object(12345, SERVER, object_id, content)
    pushed = await lab.state.push(lab.run_id, SERVER, [asked.envelope])
    assert set(pushed.missing) == set(asked.objects)


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


@pytest.mark.parametrize("text", STRANGE_TEXTS.values(), ids=STRANGE_TEXTS)
async def test_what_nobody_has_pushed_is_not_there_whatever_it_is_called(
    lab: Lab, text: str
) -> None:
    state, run_id = lab.state, lab.run_id
    for reader in (SERVER, lab.node_id):
        assert await state.get_object(run_id, reader, text) is None
        await state.confirm(run_id, reader, text)
        with pytest.raises(Wrong):
            await state.put_object(run_id, reader, text, b"Array  0\0")
    reply = parcel(run_id, source=lab.node_id, to=SERVER, reply_to=text)
    assert (await state.push(run_id, lab.node_id, [reply.envelope])).message_ids == [""]
    await state.log(run_id, text)
    asked = await lab.ask()
    await state.await_instruction(lab.node_id)
    assert (await state.take(lab.node_id)) is not None, asked
