"""A model that is larger than a SuperLink has room for in memory goes through it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest
import trio
from peering.parcels import Parcel, chunk, root_over
from peering.parties import Node, Process, at, join, start_run, take_run
from peering.processes import CHECKOUT, launching, start_superlink
from peering.signing import Signer

from examples import fewer
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.objects import object_id_of

# What Flower cuts arrays into; a gibibyte of them, and never fewer than GROWTH would do for.
CHUNK = 20 * 2**20
CHUNKS = fewer(52, 20)
GROWTH = 300 * 10**6
# A third of what the process of a run may be silent for.
HEARTBEATS = 20.0


@attrs.frozen
class Objects(Mapping[str, bytes]):
    """Objects of a message that are made when they are needed: the model is in no memory here."""

    chunks: Mapping[str, int]
    root: Mapping[str, bytes]

    def __getitem__(self, object_id: str) -> bytes:
        return self.root[object_id] if object_id in self.root else content(self.chunks[object_id])

    def __iter__(self) -> Iterator[str]:
        yield from self.chunks
        yield from self.root

    def __len__(self) -> int:
        return len(self.chunks) + len(self.root)


def content(number: int) -> bytes:
    return chunk(number.to_bytes(8, "big") * (CHUNK // 8))


def model(run_id: int, node_id: int) -> Parcel:
    chunks = {object_id_of(content(number)): number for number in range(CHUNKS)}
    metadata = pb.Metadata(
        run_id=run_id,
        src_node_id=SERVER,
        dst_node_id=node_id,
        created_at=time.time(),
        ttl=3600.0,
        message_type="train",
    )
    bare = root_over(list(chunks), metadata)
    return attrs.evolve(bare, objects=Objects(chunks, bare.objects))


def pass_on(process: Process, node: Node) -> int:
    """Push a model as the process of a run, and pull it as a node; give the bytes that came."""
    process.push([model(process.begin(), node.node_id)])
    pulled = node.pull()
    assert pulled is not None
    message, tree = pulled
    size = 0
    for object_id, found in node.pull_objects(message.metadata.run_id, tree):
        assert found is not None
        assert object_id_of(found) == object_id
        size += len(found)
    node.confirm(message)
    return size


@pytest.mark.alone
async def test_a_gibibyte_takes_little_memory(tmp_path: Path) -> None:
    async with launching() as launch, trio.open_nursery() as nursery:
        link = await start_superlink(
            launch,
            *("--port", "0", "--isolation", "process", "--database", tmp_path / "state.db"),
            PYTHONPATH=CHECKOUT,
        )
        ready = await link.program.report("flower_address")
        # A busy disk may take its time.
        connect = at(ready["flower_address"], timeout=120)
        start_run(connect)
        taken = take_run(connect)
        assert taken is not None
        _, process = taken

        async def send_heartbeats() -> None:
            while True:
                await trio.sleep(HEARTBEATS)
                await trio.to_thread.run_sync(process.heartbeat)

        nursery.start_soon(send_heartbeats)
        node = join(connect, Signer())
        before = link.program.resident()
        with trio.fail_after(200):
            size = await trio.to_thread.run_sync(pass_on, process, node)
        assert size > CHUNKS * CHUNK > GROWTH
        assert link.program.peak() - before < GROWTH
        nursery.cancel_scope.cancel()
