"""Fuzzing the handlers of all calls: only refusals come out of them, and work goes on."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import trio
from google.protobuf.message import Message
from peering.messages import task_ins, task_res

from superlink_trio.driver import driver_api
from superlink_trio.fleet import adapter_api, fleet_api
from superlink_trio.rounds import Rounds
from superlink_trio.rpc import Api, Caller, Refused
from superlink_trio.state import MemoryState
from superlink_trio.wire import superlink_pb2 as pb

NOW = 1_800_000_000.0
LIMIT = 1_000_000

CALLS = tuple(
    (service, name)
    for service, names in {
        "Driver": "CreateRun GetNodes PushTaskIns PullTaskRes GetRun GetFab",
        "Fleet": "CreateNode DeleteNode Ping PullTaskIns PushTaskRes GetRun GetFab",
        "GrpcAdapter": "SendReceive",
    }.items()
    for name in names.split()
)


def _parsed(name: str, answer: bytes) -> Any:
    kind = "MessageContainer" if name == "SendReceive" else f"{name}Response"
    return getattr(pb, kind).FromString(answer)


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
    with (
        patch("uuid.uuid4", lambda: uuid.UUID(int=next(numbers), version=4)),
        patch("secrets.token_bytes", lambda size: next(numbers).to_bytes(size, "big")),
    ):
        yield


async def _check(raw: bytes) -> None:
    link = _Link()
    with _fixed_ids():
        for place, request in _requests(raw):
            with suppress(Refused):
                _parsed(CALLS[place][1], await link.call(place, request))
    # From here on nobody knows the ids beforehand, as it really is.
    await _work(link)


def _requests(raw: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(raw):
        size = int.from_bytes(raw[position + 1 : position + 3], "big")
        yield raw[position] % len(CALLS), raw[position + 3 : position + 3 + size]
        position += 3 + size


def _written(place: int, request: bytes) -> bytes:
    return bytes([place]) + len(request).to_bytes(2, "big") + request


class _Link:
    """The APIs over an empty state, and the requests made so far."""

    def __init__(self) -> None:
        state = MemoryState(clock=lambda: NOW)
        fleet = fleet_api(state, hold=lambda: 0, readmit=True, message_limit=LIMIT)
        driver = driver_api(state, hold=lambda: 0, message_limit=LIMIT, rounds=Rounds())
        self._apis: Mapping[str, Api] = {
            "Driver": driver,
            "Fleet": fleet,
            "GrpcAdapter": adapter_api(fleet),
        }
        self.made = bytearray()

    async def call(self, place: int, request: bytes) -> bytes:
        self.made += _written(place, request)
        service, name = CALLS[place]
        api, caller = self._apis[service], Caller("127.0.0.1:1")
        if name in api.unary:
            return await api.unary[name](request, caller)
        async with api.leased[name](request, caller) as answer:
            return answer

    async def __call__(self, service: str, request: Message) -> Any:
        """Call the method of a service that takes such a request; give its answer."""
        adapted = isinstance(request, pb.MessageContainer)
        name = "SendReceive" if adapted else type(request).__name__.removesuffix("Request")
        answer = await self.call(CALLS.index((service, name)), request.SerializeToString())
        return _parsed(name, answer)


async def _work(link: _Link) -> None:
    """Let a good task make its way. Raises AssertionError if it does not."""
    run_id = (await link("Driver", pb.CreateRunRequest())).run_id
    node = (await link("Fleet", pb.CreateNodeRequest(ping_interval=30))).node
    assert node in (await link("Driver", pb.GetNodesRequest(run_id=run_id))).nodes
    push = pb.PushTaskInsRequest(task_ins_list=[task_ins(run_id, node, now=NOW)])
    (task_id,) = (await link("Driver", push)).task_ids
    (asked,) = (await link("Fleet", pb.PullTaskInsRequest(node=node))).task_ins_list
    assert (asked.task_id, asked.task.recordset) == (task_id, b"model")
    answer = pb.PushTaskResRequest(task_res_list=[task_res(asked, b"result", now=NOW)])
    assert "None" not in (await link("Fleet", answer)).results
    (result,) = (await link("Driver", pb.PullTaskResRequest(task_ids=[task_id]))).task_res_list
    assert result.task.recordset == b"result"


def seeds() -> Iterator[bytes]:
    """Give what honest clients do, whole and call by call."""
    with _fixed_ids():
        made = bytes(trio.run(_honest))
    yield made
    for place, request in _requests(made):
        yield _written(place, request)


async def _honest() -> bytearray:
    link = _Link()
    await _work(link)
    fab = pb.Fab(
        hash_str="2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", content=b"x"
    )
    run = pb.CreateRunRequest(
        fab_id="a/b", fab=fab, override_config={"lr": pb.Scalar(double_value=0.1)}
    )
    run_id = (await link("Driver", run)).run_id
    for service in ("Driver", "Fleet"):
        await link(service, pb.GetRunRequest(run_id=run_id))
        await link(service, pb.GetFabRequest(hash_str=fab.hash_str))
    node = (await link("Fleet", pb.CreateNodeRequest(ping_interval=30))).node
    ping = pb.PingRequest(node=node, ping_interval=30)
    await link("Fleet", ping)
    packed = pb.MessageContainer(
        grpc_message_name="PingRequest", grpc_message_content=ping.SerializeToString()
    )
    await link("GrpcAdapter", packed)
    tasks = [task_ins(run_id, node, now=NOW)] * 2
    await link("Driver", pb.PushTaskInsRequest(task_ins_list=tasks))
    await link("Fleet", pb.DeleteNodeRequest(node=node))
    return link.made
