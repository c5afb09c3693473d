"""Rubbish on every call of a running SuperLink, over real gRPC.

Whatever comes in, the answer is OK or a refusal that says why, never INTERNAL or UNKNOWN, and
afterwards an honest node and its driver are served and nothing that was pushed is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from builders import pb_node, pb_task_ins, pb_task_res
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st
from rubbish import DATABASES, STORES, Beside, Database, floats, fuzz, texts

from superlink_trio.wire import superlink_pb2 as pb

CALLS: dict[str, tuple[type[Message], type[Message]]] = {
    "Driver/CreateRun": (pb.CreateRunRequest, pb.CreateRunResponse),
    "Driver/GetNodes": (pb.GetNodesRequest, pb.GetNodesResponse),
    "Driver/PushTaskIns": (pb.PushTaskInsRequest, pb.PushTaskInsResponse),
    "Driver/PullTaskRes": (pb.PullTaskResRequest, pb.PullTaskResResponse),
    "Driver/GetRun": (pb.GetRunRequest, pb.GetRunResponse),
    "Driver/GetFab": (pb.GetFabRequest, pb.GetFabResponse),
    "Fleet/CreateNode": (pb.CreateNodeRequest, pb.CreateNodeResponse),
    "Fleet/DeleteNode": (pb.DeleteNodeRequest, pb.DeleteNodeResponse),
    "Fleet/Ping": (pb.PingRequest, pb.PingResponse),
    "Fleet/PullTaskIns": (pb.PullTaskInsRequest, pb.PullTaskInsResponse),
    "Fleet/PushTaskRes": (pb.PushTaskResRequest, pb.PushTaskResResponse),
    "Fleet/GetRun": (pb.GetRunRequest, pb.GetRunResponse),
    "Fleet/GetFab": (pb.GetFabRequest, pb.GetFabResponse),
    "GrpcAdapter/SendReceive": (pb.MessageContainer, pb.MessageContainer),
}
HONEST = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


class Server:
    """A SuperLink, and a client of it."""

    def __init__(self, database: Database) -> None:
        self.huge = database.huge
        self._beside = Beside(hold=0, database=database.make())
        link = self._beside.link
        self._channels = {
            "Driver": grpc.insecure_channel(str(link.driver_address)),
            "Fleet": grpc.insecure_channel(str(link.fleet_address)),
        }
        self._channels["GrpcAdapter"] = self._channels["Fleet"]
        self._set_up_bystanders()

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._beside.close()

    def raw(self, name: str, body: bytes) -> tuple[grpc.StatusCode, str, bytes]:
        channel = self._channels[name.partition("/")[0]]
        call = channel.unary_unary(f"/flwr.proto.{name}", bytes, bytes)
        try:
            reply = call(body, timeout=60)
        except grpc.RpcError as error:
            return error.code(), str(error.details()), b""
        return grpc.StatusCode.OK, "", reply

    def call(self, name: str, request: Message) -> Any:
        status, details, reply = self.raw(name, request.SerializeToString())
        assert status is grpc.StatusCode.OK, details
        return CALLS[name][1].FromString(reply)

    def _set_up_bystanders(self) -> None:
        """Push a task that waits all the time; its node never asks until it is checked."""
        self.run_id = self.call("Driver/CreateRun", pb.CreateRunRequest()).run_id
        request = pb.CreateNodeRequest(ping_interval=3600)
        self.node_id = self.call("Fleet/CreateNode", request).node.node_id
        item = pb_task_ins(self.run_id, self.node_id)
        pushed = self.call("Driver/PushTaskIns", pb.PushTaskInsRequest(task_ins_list=[item]))
        (self.waiting,) = pushed.task_ids

    def check(self) -> None:
        """The task that waited is still there, and goes round; another one takes its place."""
        node = pb_node(self.node_id)
        pulled = self.call("Fleet/PullTaskIns", pb.PullTaskInsRequest(node=node))
        (item,) = pulled.task_ins_list
        assert item.task_id == self.waiting
        answer = pb.PushTaskResRequest(task_res_list=[pb_task_res(item)])
        assert "None" not in self.call("Fleet/PushTaskRes", answer).results
        results = self.call("Driver/PullTaskRes", pb.PullTaskResRequest(task_ids=[self.waiting]))
        assert results.task_res_list[0].task.recordset == b"result"
        item = pb_task_ins(self.run_id, self.node_id)
        pushed = self.call("Driver/PushTaskIns", pb.PushTaskInsRequest(task_ins_list=[item]))
        (self.waiting,) = pushed.task_ids


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(DATABASES[request.param])
    yield server
    server.check()
    server.close()


def expect_honest(server: Server, name: str, body: bytes) -> None:
    status, details, reply = server.raw(name, body)
    allowed = HONEST | {grpc.StatusCode.UNIMPLEMENTED} if name.startswith("Grpc") else HONEST
    assert status in allowed, f"{name}: {status} {details}"
    assert status is grpc.StatusCode.OK or details
    CALLS[name][1].FromString(reply)


names = st.sampled_from(sorted(CALLS))
ints = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
pb_nodes = st.builds(pb.Node, node_id=ints, anonymous=st.booleans())
errors = st.builds(pb.Error, code=ints, reason=texts)
broken_fields: dict[str, st.SearchStrategy[Any]] = {
    "producer": pb_nodes,
    "consumer": pb_nodes,
    "created_at": floats,
    "delivered_at": texts,
    "pushed_at": floats,
    "ttl": floats,
    "ancestry": st.lists(texts, max_size=3),
    "task_type": texts,
    "recordset": st.binary(max_size=100),
    "error": errors,
}


@fuzz
@given(names, st.binary(max_size=300))
@example("Fleet/PullTaskIns", b"")
@example("Driver/PushTaskIns", b"\x0a\x00")
def test_random_bytes(server: Server, name: str, body: bytes) -> None:
    expect_honest(server, name, body)


@fuzz
@given(st.data())
def test_one_broken_field(server: Server, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(broken_fields)))
    value = data.draw(broken_fields[field])
    item = pb_task_ins(server.run_id, 4711)
    item.task_id = data.draw(texts)
    answer = pb_task_res(item)
    item.task_id = ""
    for task in (item.task, answer.task):
        task.ClearField(field)
        task.MergeFrom(pb.Task(**{field: value}))
    pushed = pb.PushTaskInsRequest(task_ins_list=[item])
    expect_honest(server, "Driver/PushTaskIns", pushed.SerializeToString())
    answered = pb.PushTaskResRequest(task_res_list=[answer])
    status, details, _ = server.raw("Fleet/PushTaskRes", answered.SerializeToString())
    assert status is grpc.StatusCode.OK, f"would hold the node for ever: {details}"


@fuzz
@given(ids=st.lists(texts | st.uuids().map(str), max_size=5), node=pb_nodes)
def test_wrong_ids(server: Server, ids: list[str], node: pb.Node) -> None:
    for name, request in (
        ("Driver/PullTaskRes", pb.PullTaskResRequest(node=node, task_ids=ids)),
        ("Fleet/PullTaskIns", pb.PullTaskInsRequest(node=node, task_ids=ids)),
        ("Fleet/DeleteNode", pb.DeleteNodeRequest(node=node)),
        ("Driver/GetNodes", pb.GetNodesRequest(run_id=node.node_id)),
        ("Fleet/GetRun", pb.GetRunRequest(run_id=node.node_id)),
        ("Driver/GetRun", pb.GetRunRequest(run_id=node.node_id)),
    ):
        if node.node_id != server.node_id:
            expect_honest(server, name, request.SerializeToString())


@fuzz
@given(interval=floats, node=pb_nodes)
def test_wrong_times(server: Server, interval: float, node: pb.Node) -> None:
    ping = pb.PingRequest(node=node, ping_interval=interval)
    expect_honest(server, "Fleet/Ping", ping.SerializeToString())
    create = pb.CreateNodeRequest(ping_interval=interval)
    expect_honest(server, "Fleet/CreateNode", create.SerializeToString())


@fuzz
@given(names.filter(lambda name: name.startswith("Fleet/")), st.binary(max_size=100), texts)
def test_containers(server: Server, name: str, content: bytes, other: str) -> None:
    for message_name in (f"{name.partition('/')[2]}Request", other):
        container = pb.MessageContainer(
            grpc_message_name=message_name, grpc_message_content=content
        )
        expect_honest(server, "GrpcAdapter/SendReceive", container.SerializeToString())


def test_huge_lists(server: Server) -> None:
    item = pb_task_ins(server.run_id, 4711)
    several = [pb_task_ins(server.run_id, node_id) for node_id in range(4711, 4715)]
    good = pb.PushTaskInsRequest(task_ins_list=several * (server.huge // 4))
    assert len(set(server.call("Driver/PushTaskIns", good).task_ids)) == server.huge
    item.task.ttl = -1
    bad = pb.PushTaskInsRequest(task_ins_list=[item] * server.huge)
    expect_honest(server, "Driver/PushTaskIns", bad.SerializeToString())
    answers = pb.PushTaskResRequest(task_res_list=[pb_task_res(item)] * server.huge)
    assert server.call("Fleet/PushTaskRes", answers).results == {"None": 0}
    ids = pb.PullTaskResRequest(task_ids=["x"] * 100_000)
    expect_honest(server, "Driver/PullTaskRes", ids.SerializeToString())


def test_every_strange_input_left_the_bystanders_alone(server: Server) -> None:
    server.check()
    server.check()
