"""A thin client of the Driver and Fleet APIs."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import wrap

Call = Callable[[bytes], bytes]

# For as long as any measurement takes, no node is to be offline.
PING_INTERVAL = 3600.0
_TTL = 3600.0
_NO_LIMIT = -1


class Client:
    """The calls of one API, over one connection."""

    def __init__(self, service: str, address: str) -> None:
        self._service = service
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", _NO_LIMIT),
                ("grpc.max_receive_message_length", _NO_LIMIT),
            ],
        )

    def call(self, name: str) -> Call:
        """Give a call that takes and gives serialised messages."""
        path = f"/flwr.proto.{self._service}/{name}"
        call = self._channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        return lambda request: call(request, timeout=120)


def create_run(driver: Client) -> int:
    raw = driver.call("CreateRun")(pb.CreateRunRequest().SerializeToString())
    return pb.CreateRunResponse.FromString(raw).run_id


def create_node(fleet: Client) -> pb.Node:
    request = pb.CreateNodeRequest(ping_interval=PING_INTERVAL)
    raw = fleet.call("CreateNode")(request.SerializeToString())
    return pb.CreateNodeResponse.FromString(raw).node


def record_set(data: bytes) -> bytes:
    """Serialise a RecordSet with one array of these bytes."""
    array = [*wrap(1, [b"uint8"]), *wrap(3, [b"numpy.ndarray"]), *wrap(4, [data])]
    record = [*wrap(1, [b"weights"]), *wrap(2, array)]
    entry = [*wrap(1, [b"model"]), *wrap(2, record)]
    return b"".join(wrap(1, entry))


def push_task_ins(run_id: int, node: pb.Node, payload: bytes, number: int = 1) -> bytes:
    """Serialise a PushTaskInsRequest with so many equal tasks for a node."""
    task = pb.Task(
        producer=pb.Node(node_id=0, anonymous=True),
        consumer=node,
        created_at=time.time(),
        ttl=_TTL,
        task_type="train",
        recordset=payload,
    )
    items = [pb.TaskIns(run_id=run_id, task=task)] * number
    return pb.PushTaskInsRequest(task_ins_list=items).SerializeToString()


def push_task_res(task_ins: pb.TaskIns, payload: bytes) -> bytes:
    """Serialise a PushTaskResRequest that answers a task."""
    task = pb.Task(
        producer=task_ins.task.consumer,
        consumer=task_ins.task.producer,
        created_at=time.time(),
        ttl=_TTL,
        ancestry=[task_ins.task_id],
        task_type=task_ins.task.task_type,
        recordset=payload,
    )
    items = [pb.TaskRes(run_id=task_ins.run_id, task=task)]
    return pb.PushTaskResRequest(task_res_list=items).SerializeToString()


def pull_task_ins(node: pb.Node) -> bytes:
    """Serialise a PullTaskInsRequest."""
    return pb.PullTaskInsRequest(node=node).SerializeToString()
