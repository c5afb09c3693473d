"""Runs and nodes in a store, and what passes between them."""

from __future__ import annotations

import hashlib

import attrs
import trio
from peering.parcels import Parcel, parcel
from stores import settle
from trio.testing import MockClock

from superlink_trio.state.messages import (
    SERVER,
    DurableMessages,
    MemoryMessages,
    MessageState,
    NewRun,
)
from superlink_trio.wire.messages import Envelope, RunRecord
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
        await state.put_object(run_id, source, object_id, sent.objects[object_id])
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
