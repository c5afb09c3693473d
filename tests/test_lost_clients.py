"""Nodes that vanish while a task is on its way to them, as real processes.

Whatever becomes of the process, the task goes to no other node, and to the same node again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest
import trio
from builders import pb_node, pb_task_ins

from superlink_trio import SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.wire import superlink_pb2 as pb

# A node that says when it pulls, and what came of it.
NODE = """
import sys, grpc
address, node_id, timeout = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
from superlink_trio.wire import superlink_pb2 as pb
channel = grpc.insecure_channel(address)
grpc.channel_ready_future(channel).result(20)
node = pb.Node(node_id=node_id)
pull = channel.unary_unary("/flwr.proto.Fleet/PullTaskIns",
    pb.PullTaskInsRequest.SerializeToString, pb.PullTaskInsResponse.FromString)
future = pull.future(pb.PullTaskInsRequest(node=node), timeout=timeout)
ping = channel.unary_unary("/flwr.proto.Fleet/Ping",
    pb.PingRequest.SerializeToString, pb.PingResponse.FromString)
ping(pb.PingRequest(node=node, ping_interval=300), timeout=20)
print("pulling", flush=True)
try:
    print("got", *(item.task_id for item in future.result().task_ins_list), flush=True)
except grpc.RpcError as error:
    print("failed", error.code().name, flush=True)
"""


class Fleet:
    """A SuperLink, its driver's calls, and nodes in processes of their own."""

    def __init__(self, link: SuperLink, nursery: trio.Nursery) -> None:
        self._link = link
        self._nursery = nursery
        self._driver = grpc.insecure_channel(str(link.driver_address))
        self._fleet = grpc.insecure_channel(str(link.fleet_address))

    def close(self) -> None:
        self._driver.close()
        self._fleet.close()

    async def create_node(self) -> int:
        request = pb.CreateNodeRequest(ping_interval=300)
        raw = await self._call(self._fleet, "Fleet/CreateNode", request)
        return pb.CreateNodeResponse.FromString(raw).node.node_id

    async def push(self, node_id: int) -> str:
        raw = await self._call(self._driver, "Driver/CreateRun", pb.CreateRunRequest())
        item = pb_task_ins(pb.CreateRunResponse.FromString(raw).run_id, node_id)
        request = pb.PushTaskInsRequest(task_ins_list=[item])
        raw = await self._call(self._driver, "Driver/PushTaskIns", request)
        (task_id,) = pb.PushTaskInsResponse.FromString(raw).task_ids
        return task_id

    async def pull(self, node_id: int) -> list[str]:
        """Pull from this process; nothing comes when the pull is held for a while."""
        request = pb.PullTaskInsRequest(node=pb_node(node_id))
        try:
            raw = await self._call(self._fleet, "Fleet/PullTaskIns", request, timeout=0.5)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return []
            raise
        return [item.task_id for item in pb.PullTaskInsResponse.FromString(raw).task_ins_list]

    async def _call(
        self, channel: grpc.Channel, name: str, request: Any, timeout: float = 20
    ) -> bytes:
        invoke = channel.unary_unary(f"/flwr.proto.{name}", bytes, bytes)
        call = partial(invoke, request.SerializeToString(), timeout=timeout)
        return await trio.to_thread.run_sync(call)

    async def node(self, node_id: int, timeout: float = 100.0) -> Node:
        """Start a node, whose pull is held when this returns."""
        command = [sys.executable, "-c", NODE, str(self._link.fleet_address), str(node_id)]
        start = partial(
            trio.run_process, [*command, str(timeout)], stdout=subprocess.PIPE, check=False
        )
        node = Node(await self._nursery.start(start))
        assert await node.line() == ["pulling"]
        return node


class Node:
    """A process that pulls once."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._read = b""

    async def line(self) -> list[str]:
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            chunk = await self._process.stdout.receive_some()
            assert chunk, "the node's process ended"
            self._read += chunk
        line, _, self._read = self._read.partition(b"\n")
        return line.decode().split()

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A SuperLink that holds pulls for longer than any test takes."""
    config = SuperLinkConfig(
        insecure=True,
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        hold=100,
    )
    async with trio.open_nursery() as nursery:
        link = await nursery.start(run_superlink, config)
        fleet = Fleet(link, nursery)
        yield fleet
        fleet.close()
        await link.stop()


async def test_a_node_that_was_killed_while_it_waited(fleet: Fleet) -> None:
    node_id, other = await fleet.create_node(), await fleet.create_node()
    node = await fleet.node(node_id)
    await node.kill()
    task_id = await fleet.push(node_id)
    assert await fleet.pull(other) == []
    assert await fleet.pull(node_id) == [task_id]


async def test_a_node_that_gave_up_waiting(fleet: Fleet) -> None:
    node_id, other = await fleet.create_node(), await fleet.create_node()
    node = await fleet.node(node_id, timeout=0.5)
    assert await node.line() == ["failed", "DEADLINE_EXCEEDED"]
    task_id = await fleet.push(node_id)
    assert await fleet.pull(other) == []
    assert await fleet.pull(node_id) == [task_id]


async def test_a_node_that_was_frozen_gets_its_task_when_it_goes_on(fleet: Fleet) -> None:
    node_id, other = await fleet.create_node(), await fleet.create_node()
    node = await fleet.node(node_id)
    node.freeze()
    task_id = await fleet.push(node_id)
    assert await fleet.pull(other) == []
    node.thaw()
    assert await node.line() == ["got", task_id]


async def test_a_node_that_was_killed_with_its_task_in_the_socket(fleet: Fleet) -> None:
    node_id, other = await fleet.create_node(), await fleet.create_node()
    node = await fleet.node(node_id)
    node.freeze()
    task_id = await fleet.push(node_id)
    await node.kill()
    assert await fleet.pull(other) == []
    assert await fleet.pull(node_id) == [task_id]
    assert await fleet.pull(node_id) == [], "the same connection does not get it twice"
