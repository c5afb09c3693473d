"""Nodes and runs of today's Flower that repeat what was not acknowledged, as `clients` does."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from peering.client import NotAnswered, Send
from peering.parcels import Parcel, chunk, parcel
from peering.parties import (
    CONTRADICTS,
    Connect,
    Headers,
    Node,
    Party,
    Process,
    at,
    join,
    known_nodes,
    start_run,
    statuses,
    take_run,
)
from peering.signing import Signer

from crashing.record import Record
from crashing.servers import Load, Server
from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.objects import object_id_of

_SIZES = (100, 100, 200_000)
_MOST_ROUNDS = 6
_HEARTBEATS = 5.0  # seconds between two of a node, and of a process

# What a SuperLink answers that cannot at the moment, to a run that is over, and to its process.
_UNAVAILABLE, _OVER, _VOID = "503", "403", "401"

_threads = trio.CapacityLimiter(50)

Answer = TypeVar("Answer")


async def _call(function: Callable[..., Answer], *arguments: object) -> Answer:
    once = partial(function, *arguments)
    return await trio.to_thread.run_sync(once, limiter=_threads)


def _connect(server: Server) -> Connect:
    """Call a SuperLink wherever it lives, again and again until it answers: in worker threads."""

    def connect(api: str, headers: Headers) -> Send:
        def send(name: str, request: bytes) -> bytes:
            while True:
                life = trio.from_thread.run(server.alive)
                try:
                    return at(life.addresses["flower"], timeout=10)(api, headers)(name, request)
                except NotAnswered as error:
                    if error.code.isdecimal() and error.code != _UNAVAILABLE:
                        raise
                trio.from_thread.run(trio.sleep, 0.02)

        return send

    return connect


class FlowerServer(Server):
    """A SuperLink that serves today's Flower, and leaves runs to whoever takes them."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self.sides = ["flower"]
        self._command += ["--port", "0", "--isolation", "process", "--message-hold", "2"]


async def node(servers: Collection[Server], record: Record) -> None:
    """Reply to every instruction with its own id."""
    [server] = servers
    me = await _call(join, _connect(server), Signer())
    record.nodes.add(me.node_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_heartbeats, me)
        while True:
            pulled = await _call(me.pull)
            if pulled is not None:
                await _reply(me, record, *pulled)


async def _reply(me: Node, record: Record, asked: pb.Message, tree: pb.ObjectTree) -> None:
    meta = asked.metadata
    asked_id = meta.message_id
    record.hand(asked_id, me.node_id)
    await _check_objects(me, record, asked_id, asked, tree)
    await _call(me.confirm, asked)
    reply = parcel(
        meta.run_id,
        source=me.node_id,
        to=SERVER,
        reply_to=asked_id,
        parts=(asked_id.encode(), os.urandom(random.choice(_SIZES))),
        created_at=time.time(),
    )
    try:
        await _call(me.push, reply)
    except NotAnswered as error:
        # Its run has got the reply, and ended, if an earlier attempt was heard.
        if error.code != _OVER or asked_id not in record.given:
            raise
    else:
        record.store(asked_id, reply.message_id, attempts=1)


async def driver(servers: Collection[Server], record: Record, load: Load) -> None:
    """Start and take runs, one after the other, until the load is over."""
    [server] = servers
    connect = _connect(server)
    last = False
    while not last:
        last = load.over
        run_id, process = await _take_run(connect)
        record.runs.add(run_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_heartbeats, process)
            for number in range(random.randint(1, _MOST_ROUNDS)):
                await _round(run_id, process, server, record, str(number))
                await trio.sleep(load.pause)
            nursery.cancel_scope.cancel()
        await _unless_heard(_VOID, process.finish)


async def _take_run(connect: Connect) -> tuple[int, Process]:
    """Start runs until one is given away here: one that is lost on its way waits for long."""
    while True:
        await _call(start_run, connect)
        taken = await _call(take_run, connect)
        if taken is not None:
            await _unless_heard(CONTRADICTS, taken[1].begin)
            return taken


async def _unless_heard(code: str, function: Callable[[], object]) -> None:
    """Make a call that is refused with this code where an earlier attempt was heard."""
    try:
        await _call(function)
    except NotAnswered as error:
        if error.code != code:
            raise


async def _round(
    run_id: int, process: Process, server: Server, record: Record, group_id: str
) -> None:
    """Ask nodes, and collect their replies."""
    shared = os.urandom(random.choice(_SIZES))
    asked = {
        one.message_id: one
        for one in (
            parcel(
                run_id,
                to=node_id,
                parts=(shared, os.urandom(8)),
                created_at=time.time(),
                group_id=group_id,
            )
            for node_id in random.choices(sorted(record.nodes), k=random.randint(1, 8))
        )
    }
    if list(await _call(process.push, list(asked.values()))) != list(asked):
        record.faults.append(f"instructions of run {run_id} were not taken")
    record.asked |= {key: one.envelope.message.metadata.dst_node_id for key, one in asked.items()}
    await _collect(process, server, record, asked)
    for reply, _ in await _call(process.pull, list(asked)):
        if not reply.HasField("error"):
            record.faults.append(f"{reply.metadata.reply_to_message_id} was answered twice")


async def _collect(
    process: Process, server: Server, record: Record, asked: Mapping[str, Parcel]
) -> None:
    """Get the replies to all these instructions."""
    waiting = set(asked)
    while waiting:
        for reply, tree in await _call(process.pull, sorted(waiting)):
            asked_id = reply.metadata.reply_to_message_id
            waiting.remove(asked_id)
            if reply.HasField("error"):
                record.faults.append(f"{asked_id} was answered by an error: {reply.error.reason}")
                continue
            if object_id_of(chunk(asked_id.encode())) not in {
                one.object_id for one in tree.children
            }:
                record.faults.append(f"{asked_id} got a wrong answer")
            await _check_objects(process, record, asked_id, reply, tree)
            await _call(process.confirm, reply)
            record.give(asked_id, reply.metadata.message_id, await server.alive())


async def _check_objects(
    party: Party, record: Record, asked_id: str, message: pb.Message, tree: pb.ObjectTree
) -> None:
    """Pull all that a message says."""
    for object_id, content in await _call(_objects, party, message.metadata.run_id, tree):
        if content is None or object_id_of(content) != object_id:
            record.faults.append(f"{asked_id}: object {object_id} is lost")


def _objects(party: Party, run_id: int, tree: pb.ObjectTree) -> Sequence[tuple[str, bytes | None]]:
    return list(party.pull_objects(run_id, tree))


async def _send_heartbeats(party: Node | Process) -> None:
    while True:
        await trio.sleep(_HEARTBEATS)
        await _call(party.heartbeat)


async def compare(servers: Collection[Server], record: Record) -> None:
    """Ask the last SuperLink for the runs and the nodes that were acknowledged."""
    [server] = servers
    connect = _connect(server)
    found = await _call(statuses, connect)
    for run_id in record.runs:
        if run_id not in found:
            record.faults.append(f"run {run_id} is lost")
        elif found[run_id].sub_status != "completed":
            record.faults.append(f"run {run_id} is {found[run_id].status}, not completed")
    nodes = await _call(known_nodes, connect)
    record.faults += [
        f"node {node_id} is {nodes.get(node_id, 'lost')}"
        for node_id in record.nodes
        if nodes.get(node_id) != "online"
    ]
    record.faults += [f"node {node_id} never joined" for node_id in nodes.keys() - record.nodes]
