"""Nodes and drivers that repeat what was not acknowledged, and write down what was."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import trio
from peering import client
from peering.client import NotAnswered, over_grpc
from peering.messages import task_ins, task_res

from crashing.record import Life, Record
from crashing.servers import Load, Mortal
from superlink_trio.wire import superlink_pb2 as pb

_NOT_TAKEN = "None"
_SIZES = (100, 100, 20_000)

# What a killed server leaves of a call, and one that waits for the other's lock; and what HAProxy
# makes of an answer that breaks off, which no SuperLink says.
_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")

_threads = trio.CapacityLimiter(50)

P = ParamSpec("P")
Answer = TypeVar("Answer")


class Client:
    """Calls one side of a SuperLink, wherever it lives, again and again until it answers."""

    def __init__(self, servers: Collection[Mortal], side: str) -> None:
        [self._server] = [server for server in servers if side in server.sides]
        self._side = side
        self._address = ""
        # How often the last call was made, and who was there when it was made last.
        self.attempts, self.life = 0, Life({})

    async def alive(self) -> Life:
        """Wait until the side can be called; give the life in which it can."""
        return await self._server.alive()

    async def call(
        self,
        method: Callable[Concatenate[client.Client, P], Answer],
        *arguments: P.args,
        **named: P.kwargs,
    ) -> Answer:
        self.attempts = 0
        while True:
            self.attempts += 1
            life = await self.alive()
            self.life, address = life, life.addresses[self._side]
            if address != self._address:
                send = over_grpc(address, self._side.title(), timeout=10)
                self._address, self._client = address, client.Client(send)
            once = partial(method, self._client, *arguments, **named)
            try:
                return await trio.to_thread.run_sync(once, limiter=_threads)
            except NotAnswered as error:
                if error.code not in _PASSING:
                    raise
            await trio.sleep(0.02)


async def node(servers: Collection[Mortal], record: Record) -> None:
    """Answer every task with its own id."""
    fleet = Client(servers, "fleet")
    me = await fleet.call(client.Client.create_node)
    record.nodes.add(me.node_id)
    while True:
        for asked in await fleet.call(client.Client.pull_tasks, me):
            record.hand(asked.task_id, me.node_id)
            answer = task_res(asked, asked.task_id.encode())
            [answer_id] = await fleet.call(client.Client.push_results, [answer])
            taken = None if answer_id == _NOT_TAKEN else answer_id
            record.store(asked.task_id, taken, fleet.attempts)


async def driver(servers: Collection[Mortal], record: Record, load: Load) -> None:
    """Push tasks and collect their answers, round after round, until the load is over."""
    drives = Client(servers, "driver")
    run_id = await drives.call(client.Client.create_run)
    record.runs.add(run_id)
    last = False
    while not last:
        last = load.over
        node_ids = random.choices(sorted(record.nodes), k=random.randint(1, 8))
        tasks = [
            task_ins(run_id, pb.Node(node_id=node_id), os.urandom(random.choice(_SIZES)))
            for node_id in node_ids
        ]
        task_ids = await drives.call(client.Client.push_tasks, tasks)
        record.asked |= dict(zip(task_ids, node_ids, strict=True))
        await collect(drives, record, task_ids)
        await ask_again(drives, record, task_ids)
        await trio.sleep(load.pause)


async def collect(drives: Client, record: Record, task_ids: Collection[str]) -> None:
    """Get the answers to all these tasks."""
    waiting = set(task_ids)
    while waiting:
        pulled = await drives.call(client.Client.pull_results, sorted(waiting))
        if not pulled:
            await trio.sleep(0.1)  # what is lost is not waited for
        for answer in pulled:
            asked_id = answer.task.ancestry[0]
            waiting.remove(asked_id)
            record.give(asked_id, answer.task_id, drives.life)
            if answer.task.recordset != asked_id.encode():
                record.faults.append(f"{asked_id} got a wrong answer: {answer.task}")


async def ask_again(drives: Client, record: Record, task_ids: Collection[str]) -> None:
    """Ask for answers that were got already."""
    again = await drives.call(client.Client.pull_results, task_ids)
    # A call may outlive who took it first: the balancer makes it again, or it waits for a database.
    life = await drives.alive()
    for answer in again:
        record.give_again(answer.task.ancestry[0], answer.task_id, life)


async def compare(servers: Collection[Mortal], record: Record) -> None:
    """Ask the last SuperLinks for everything that was acknowledged."""
    drives, fleet = Client(servers, "driver"), Client(servers, "fleet")
    for run_id in record.runs:
        try:
            await drives.call(client.Client.get_run, run_id)
        except NotAnswered as error:
            record.faults.append(f"run {run_id} is lost: {error.details}")
    for node_id in record.nodes:
        if not await fleet.call(client.Client.ping, pb.Node(node_id=node_id)):
            record.faults.append(f"node {node_id} is lost")
    await ask_again(drives, record, list(record.given))
    # Tasks of pushes that were stored, but of which the driver was not told.
    await collect(drives, record, record.stored.keys() - record.given.keys())
