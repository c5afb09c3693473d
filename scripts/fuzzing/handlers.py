"""Fuzzing the handlers of all calls: only refusals come out of them, and work goes on."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio
from google.protobuf.message import Message

from superlink_trio.driver import Progress, driver_api
from superlink_trio.fleet import adapter_api, fleet_api
from superlink_trio.rpc import Api, Caller, Refused
from superlink_trio.state import MemoryState
from superlink_trio.wire import superlink_pb2 as pb

NOW = 1_800_000_000.0
LIMIT = 1_000_000

CALLS: tuple[tuple[str, str, type[Message]], ...] = (
    ("Driver", "CreateRun", pb.CreateRunResponse),
    ("Driver", "GetNodes", pb.GetNodesResponse),
    ("Driver", "PushTaskIns", pb.PushTaskInsResponse),
    ("Driver", "PullTaskRes", pb.PullTaskResResponse),
    ("Driver", "GetRun", pb.GetRunResponse),
    ("Driver", "GetFab", pb.GetFabResponse),
    ("Fleet", "CreateNode", pb.CreateNodeResponse),
    ("Fleet", "DeleteNode", pb.DeleteNodeResponse),
    ("Fleet", "Ping", pb.PingResponse),
    ("Fleet", "PullTaskIns", pb.PullTaskInsResponse),
    ("Fleet", "PushTaskRes", pb.PushTaskResResponse),
    ("Fleet", "GetRun", pb.GetRunResponse),
    ("Fleet", "GetFab", pb.GetFabResponse),
    ("GrpcAdapter", "SendReceive", pb.MessageContainer),
)
_INDEX = {name: index for index, name in enumerate(call[:2] for call in CALLS)}


def check(raw: bytes) -> None:
    """Make the calls that these bytes stand for, then work; raise what must not be.

    The bytes are calls, one after the other: its place in `CALLS`, two bytes with the length of
    the request, and the request.
    """
    trio.run(_check, raw)


@contextmanager
def _fixed_ids() -> Iterator[None]:
    """Draw the same ids each time, so that what was found is found again."""
    numbers = itertools.count(1)
    uuid4, token_bytes = uuid.uuid4, secrets.token_bytes
    uuid.uuid4 = lambda: uuid.UUID(int=next(numbers), version=4)
    secrets.token_bytes = lambda nbytes=None: next(numbers).to_bytes(nbytes or 8, "big")
    try:
        yield
    finally:
        uuid.uuid4, secrets.token_bytes = uuid4, token_bytes


async def _check(raw: bytes) -> None:
    link = _Link()
    with _fixed_ids():
        for place, request in _requests(raw):
            service, name, response = CALLS[place]
            try:
                answer = await link.call(service, name, request)
            except Refused:
                continue
            response.FromString(answer)
    # From here on nobody knows the ids beforehand, as it really is.
    await _work(link)


def _requests(raw: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(raw):
        size = int.from_bytes(raw[position + 1 : position + 3], "big")
        yield raw[position] % len(CALLS), raw[position + 3 : position + 3 + size]
        position += 3 + size


class _Link:
    """The APIs over an empty state, and the requests made so far."""

    def __init__(self) -> None:
        state = MemoryState(clock=lambda: NOW)
        fleet = fleet_api(state, hold=0, readmit=True, message_limit=LIMIT)
        driver = driver_api(state, hold=0, message_limit=LIMIT, progress=Progress())
        self._apis: Mapping[str, Api] = {
            "Driver": driver,
            "Fleet": fleet,
            "GrpcAdapter": adapter_api(fleet),
        }
        self.made = bytearray()

    async def call(self, service: str, name: str, request: bytes) -> bytes:
        self.made += bytes([_INDEX[service, name]]) + len(request).to_bytes(2, "big") + request
        api = self._apis[service]
        caller = Caller("127.0.0.1:1")
        if name in api.unary:
            return await api.unary[name](request, caller)
        async with api.leased[name](request, caller) as answer:
            return answer

    async def message(self, service: str, name: str, request: Message) -> Any:
        answer = await self.call(service, name, request.SerializeToString())
        return CALLS[_INDEX[service, name]][2].FromString(answer)


async def _work(link: _Link) -> None:
    """Let a good task make its way. Raises AssertionError if it does not."""
    run_id = (await link.message("Driver", "CreateRun", pb.CreateRunRequest())).run_id
    create = pb.CreateNodeRequest(ping_interval=30)
    node = (await link.message("Fleet", "CreateNode", create)).node
    assert (
        node in (await link.message("Driver", "GetNodes", pb.GetNodesRequest(run_id=run_id))).nodes
    )
    push = pb.PushTaskInsRequest(task_ins_list=[_question(run_id, node)])
    (task_id,) = (await link.message("Driver", "PushTaskIns", push)).task_ids
    pull = pb.PullTaskInsRequest(node=node)
    (asked,) = (await link.message("Fleet", "PullTaskIns", pull)).task_ins_list
    assert (asked.task_id, asked.task.recordset) == (task_id, b"model")
    answer = pb.PushTaskResRequest(task_res_list=[_answer(asked)])
    assert "None" not in (await link.message("Fleet", "PushTaskRes", answer)).results
    results = pb.PullTaskResRequest(task_ids=[task_id])
    (result,) = (await link.message("Driver", "PullTaskRes", results)).task_res_list
    assert result.task.recordset == b"result"


def _question(run_id: int, node: pb.Node) -> pb.TaskIns:
    task = pb.Task(
        producer=pb.Node(anonymous=True),
        consumer=node,
        created_at=NOW,
        ttl=3600,
        task_type="train",
        recordset=b"model",
    )
    return pb.TaskIns(group_id="1", run_id=run_id, task=task)


def _answer(asked: pb.TaskIns) -> pb.TaskRes:
    task = pb.Task(
        producer=asked.task.consumer,
        consumer=asked.task.producer,
        created_at=NOW,
        ttl=60,
        ancestry=[asked.task_id],
        task_type=asked.task.task_type,
        recordset=b"result",
    )
    return pb.TaskRes(group_id=asked.group_id, run_id=asked.run_id, task=task)


def seeds() -> Iterator[bytes]:
    """Give what honest clients do, whole and call by call."""
    with _fixed_ids():
        made = bytes(trio.run(_honest))
    yield made
    for place, request in _requests(made):
        yield bytes([place]) + len(request).to_bytes(2, "big") + request


async def _honest() -> bytearray:
    link = _Link()
    await _work(link)
    fab = pb.Fab(
        hash_str="2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", content=b"x"
    )
    run = pb.CreateRunRequest(
        fab_id="a/b", fab=fab, override_config={"lr": pb.Scalar(double_value=0.1)}
    )
    run_id = (await link.message("Driver", "CreateRun", run)).run_id
    for service in ("Driver", "Fleet"):
        await link.message(service, "GetRun", pb.GetRunRequest(run_id=run_id))
        await link.message(service, "GetFab", pb.GetFabRequest(hash_str=fab.hash_str))
    create = pb.CreateNodeRequest(ping_interval=30)
    node = (await link.message("Fleet", "CreateNode", create)).node
    ping = pb.PingRequest(node=node, ping_interval=30)
    await link.message("Fleet", "Ping", ping)
    packed = pb.MessageContainer(
        grpc_message_name="PingRequest", grpc_message_content=ping.SerializeToString()
    )
    await link.message("GrpcAdapter", "SendReceive", packed)
    push = pb.PushTaskInsRequest(task_ins_list=[_question(run_id, node)] * 2)
    await link.message("Driver", "PushTaskIns", push)
    await link.message("Fleet", "DeleteNode", pb.DeleteNodeRequest(node=node))
    return link.made
