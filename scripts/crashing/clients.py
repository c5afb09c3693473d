"""Nodes and drivers that repeat what was not acknowledged, and write down what was."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import attrs
import grpc
import trio

from crashing.record import Life, Record
from crashing.servers import Server
from superlink_trio.wire import superlink_pb2 as pb

TTL = 3600.0
_NOT_TAKEN = "None"

# What a killed server leaves of a call, and one that waits for the other's lock.
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

_threads = trio.CapacityLimiter(50)

Answer = TypeVar("Answer")


@attrs.frozen
class Reply(Generic[Answer]):
    """What a call was answered, by whom, and at which attempt."""

    content: Answer
    life: Life
    attempts: int


class Client:
    """Calls one side of a SuperLink, wherever it lives, again and again until it answers."""

    def __init__(self, server: Server, side: str) -> None:
        self._server, self._side = server, side
        self._life: Life | None = None
        self._channel: grpc.Channel | None = None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    async def call(self, name: str, request: Any, kind: type[Answer]) -> Reply[Answer]:
        attempts = 0
        while True:
            attempts += 1
            life = await self._server.alive()
            call = self._channel_to(life).unary_unary(
                f"/flwr.proto.{self._side.title()}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=kind.FromString,  # type: ignore[attr-defined]
            )
            try:
                answer = await trio.to_thread.run_sync(
                    partial(call, request, timeout=10), limiter=_threads
                )
                return Reply(answer, life, attempts)
            except grpc.RpcError as error:
                if error.code() not in _PASSING:
                    raise
                await trio.sleep(0.02)

    def _channel_to(self, life: Life) -> grpc.Channel:
        if self._channel is None or self._life is not life:
            self.close()
            self._life, self._channel = life, grpc.insecure_channel(life.addresses[self._side])
        return self._channel


@contextmanager
def client(servers: Collection[Server], side: str) -> Iterator[Client]:
    """Give a client of the server that has this side."""
    [server] = [each for each in servers if side in each.sides]
    client = Client(server, side)
    try:
        yield client
    finally:
        client.close()


async def node(servers: Collection[Server], record: Record) -> None:
    """Answer every task with its own id."""
    with client(servers, "fleet") as fleet:
        create = pb.CreateNodeRequest(ping_interval=60)
        created = await fleet.call("CreateNode", create, pb.CreateNodeResponse)
        me = created.content.node.node_id
        record.nodes.add(me)
        while True:
            pull = pb.PullTaskInsRequest(node=pb.Node(node_id=me))
            pulled = await fleet.call("PullTaskIns", pull, pb.PullTaskInsResponse)
            for asked in pulled.content.task_ins_list:
                record.hand(asked.task_id, me)
                push = pb.PushTaskResRequest(task_res_list=[answer_to(asked)])
                pushed = await fleet.call("PushTaskRes", push, pb.PushTaskResResponse)
                [answer_id] = pushed.content.results
                taken = None if answer_id == _NOT_TAKEN else answer_id
                record.store(asked.task_id, taken, pushed.attempts)


async def driver(servers: Collection[Server], record: Record, over: trio.Event) -> None:
    """Push tasks and collect their answers, round after round, until it is over."""
    with client(servers, "driver") as drives:
        created = await drives.call("CreateRun", pb.CreateRunRequest(), pb.CreateRunResponse)
        run_id = created.content.run_id
        record.runs.add(run_id)
        last = False
        while not last:
            last = over.is_set()
            node_ids = random.choices(sorted(record.nodes), k=random.randint(1, 8))
            push = pb.PushTaskInsRequest(
                task_ins_list=[question(run_id, node_id) for node_id in node_ids]
            )
            pushed = await drives.call("PushTaskIns", push, pb.PushTaskInsResponse)
            record.asked |= dict(zip(pushed.content.task_ids, node_ids, strict=True))
            await collect(drives, record, pushed.content.task_ids)
            await ask_again(drives, record, pushed.content.task_ids)


async def collect(drives: Client, record: Record, task_ids: Collection[str]) -> None:
    """Get the answers to all these tasks."""
    waiting = set(task_ids)
    while waiting:
        pull = pb.PullTaskResRequest(task_ids=sorted(waiting))
        pulled = await drives.call("PullTaskRes", pull, pb.PullTaskResResponse)
        if not pulled.content.task_res_list:
            await trio.sleep(0.1)  # what is lost is not waited for
        for answer in pulled.content.task_res_list:
            asked_id = answer.task.ancestry[0]
            waiting.remove(asked_id)
            record.give(asked_id, answer.task_id, pulled.life)
            if answer.task.recordset != asked_id.encode():
                record.faults.append(f"{asked_id} got a wrong answer: {answer.task}")


async def ask_again(drives: Client, record: Record, task_ids: Collection[str]) -> None:
    """Ask for answers that were got already."""
    pull = pb.PullTaskResRequest(task_ids=task_ids)
    again = await drives.call("PullTaskRes", pull, pb.PullTaskResResponse)
    for answer in again.content.task_res_list:
        record.give_again(answer.task.ancestry[0], answer.task_id, again.life)


def question(run_id: int, node_id: int) -> pb.TaskIns:
    task = pb.Task(
        producer=pb.Node(node_id=0, anonymous=True),
        consumer=pb.Node(node_id=node_id),
        created_at=time.time(),
        ttl=TTL,
        task_type="train",
        recordset=os.urandom(random.choice([100, 100, 20_000])),
    )
    return pb.TaskIns(group_id="1", run_id=run_id, task=task)


def answer_to(asked: pb.TaskIns) -> pb.TaskRes:
    task = pb.Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=time.time(),
        ttl=TTL,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=asked.task_id.encode(),
    )
    return pb.TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)


async def compare(servers: Collection[Server], record: Record) -> None:
    """Ask the last SuperLinks for everything that was acknowledged."""
    with client(servers, "driver") as drives, client(servers, "fleet") as fleet:
        for run_id in record.runs:
            try:
                await drives.call("GetRun", pb.GetRunRequest(run_id=run_id), pb.GetRunResponse)
            except grpc.RpcError as error:
                record.faults.append(f"run {run_id} is lost: {error.details()}")
        for node_id in record.nodes:
            ping = pb.PingRequest(node=pb.Node(node_id=node_id), ping_interval=60)
            pong = await fleet.call("Ping", ping, pb.PingResponse)
            if not pong.content.success:
                record.faults.append(f"node {node_id} is lost")
        await ask_again(drives, record, list(record.given))
        # Tasks of pushes that were stored, but of which the driver was not told.
        await collect(drives, record, record.stored.keys() - record.given.keys())
