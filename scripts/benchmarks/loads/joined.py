"""Clients of `start_server` that wait to be chosen: `joined ADDRESS NUMBER`.

Each has a connection of its own. Reports once they are connected, and once more how many were told
to disconnect when all streams have ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc

from superlink_trio.wire import rounds_pb2 as pb

_GOODBYE = pb.ClientMessage(disconnect_res=pb.DisconnectRes(reason=pb.DisconnectRes.ACK))
# Equal channels of one process would share a connection.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def main(address: str, number: int) -> None:
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, _OPTIONS))
            for _ in range(number)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        clients = [asyncio.create_task(_stay(channel)) for channel in channels]
        print(json.dumps({"connected": number}), flush=True)
        dismissed = sum(await asyncio.gather(*clients))
    print(json.dumps({"dismissed": dismissed}), flush=True)


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


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
