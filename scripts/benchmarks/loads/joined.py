"""Clients of `start_server` that wait to be chosen, each with a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc

from superlink_trio.wire import rounds_pb2 as pb

_GOODBYE = pb.ClientMessage(disconnect_res=pb.DisconnectRes(reason=pb.DisconnectRes.ACK))
# Equal channels of one process would share a connection.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def clients(address: str, number: int) -> Iterator[dict[str, int]]:
    """Report once all are connected, and how many were told to disconnect when all have ended."""
    with asyncio.Runner() as runner:
        staying = runner.run(_join(address, number))
        yield {"connected": number}
        yield {"dismissed": runner.run(_dismissed(staying))}


async def _join(address: str, number: int) -> list[asyncio.Task[bool]]:
    channels = [grpc.aio.insecure_channel(address, _OPTIONS) for _ in range(number)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    return [asyncio.create_task(_stay(channel)) for channel in channels]


async def _dismissed(staying: list[asyncio.Task[bool]]) -> int:
    return sum(await asyncio.gather(*staying))


async def _stay(channel: grpc.aio.Channel) -> bool:
    """Wait until the stream ends; say whether the last word was to disconnect."""
    told = asyncio.Event()

    async def answers() -> AsyncIterator[pb.ClientMessage]:
        await told.wait()
        yield _GOODBYE

    join = channel.stream_stream(
        "/flwr.proto.FlowerService/Join",
        request_serializer=pb.ClientMessage.SerializeToString,
        response_deserializer=pb.ServerMessage.FromString,
    )
    dismissed = False
    try:
        async for instruction in join(answers()):
            dismissed = instruction.HasField("reconnect_ins")
            told.set()
    except grpc.aio.AioRpcError:
        return False
    return dismissed
