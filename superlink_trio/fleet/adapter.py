"""GrpcAdapter: the Fleet API's calls, each in a container, through one call of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from superlink_trio.rpc import Api, Caller, Holds, Refused, Status, malformed, parse
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.bulk import join
from superlink_trio.wire.splice import Malformed, header, split

_CONTENT = 3  # MessageContainer.grpc_message_content


def adapter_api(fleet: Api) -> Api:
    """Make the GrpcAdapter API that passes what it unpacks to a Fleet API."""

    @asynccontextmanager
    async def send_receive(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        name, content = _unpack(raw)
        method = name.removesuffix("Request") if name.endswith("Request") else ""
        if method in fleet.unary:
            yield await _pack(method, await fleet.unary[method](content, caller))
        elif method in fleet.leased:
            async with fleet.leased[method](content, caller) as reply:
                yield await _pack(method, reply)
        else:
            raise Refused(
                Status.UNIMPLEMENTED, f"grpc_message_name {name[:64]!r} is no call of the Fleet API"
            )

    return Api(
        service="flwr.proto.GrpcAdapter",
        unary={},
        leased={"SendReceive": send_receive},
        holds=fleet.holds,
        turned_away=fleet.turned_away,
    )


def refusing_adapter_api(reason: str) -> Api:
    """Make the GrpcAdapter API that refuses every call for a reason."""

    @asynccontextmanager
    async def send_receive(_raw: bytes, _caller: Caller) -> AsyncIterator[bytes]:
        raise Refused(Status.UNIMPLEMENTED, reason)
        yield b""

    return Api(
        service="flwr.proto.GrpcAdapter",
        unary={},
        leased={"SendReceive": send_receive},
        holds=Holds(),
    )


def _unpack(raw: bytes) -> tuple[str, bytes]:
    # The content is a whole message, model weights and all: it is cut out, not parsed.
    try:
        contents, rest = split(memoryview(raw), _CONTENT)
    except Malformed:
        raise malformed(pb.MessageContainer) from None
    name = parse(pb.MessageContainer, rest).grpc_message_name
    return name, bytes(contents[-1]) if contents else b""


async def _pack(method: str, reply: bytes) -> bytes:
    head = pb.MessageContainer(grpc_message_name=f"{method}Response").SerializeToString()
    return await join([head, header(_CONTENT, len(reply)), reply])
