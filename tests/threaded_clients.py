"""Clients of the round loop over the network, in threads."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import grpc
import trio
from joiners import answer_adding

from superlink_trio.wire import rounds_pb2 as pb


@attrs.define
class Clients:
    """Clients in threads, on gRPC's synchronous API as Flower's are.

    What one of them raises comes out of the nursery, and ends the others.
    """

    _nursery: trio.Nursery
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(200))
    stalled: trio.Event = attrs.field(factory=trio.Event)
    _endings: Any = attrs.field(factory=lambda: trio.open_memory_channel(200))

    def start(
        self, address: Any, step: float = 1, *, stall: bool = False, ca: bytes | None = None
    ) -> None:
        """Join; training adds `step` to every weight, or with `stall` does not end."""
        self._nursery.start_soon(self._run, str(address), step, stall, ca)

    async def ended(self, number: int) -> set[grpc.StatusCode]:
        """Wait for that many to end; gives how they did.

        OK: they were told to, or the server ended the stream so. Else the server's status.
        """
        return {await self._endings[1].receive() for _ in range(number)}

    async def _run(self, address: str, step: float, stall: bool, ca: bytes | None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca is None:
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)
        join = partial(self._join, channel, step, stall)
        # Closing the channel ends the call, and with it the thread that is left behind.
        with channel:
            code = await trio.to_thread.run_sync(
                join, abandon_on_cancel=True, limiter=self._threads
            )
        await self._endings[0].send(code)

    def _join(self, channel: grpc.Channel, step: float, stall: bool) -> grpc.StatusCode:
        answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        join: Any = channel.stream_stream("/flwr.proto.FlowerService/Join", None, None)
        try:
            for raw in join(iter(answers.get, None), wait_for_ready=True):
                message = pb.ServerMessage.FromString(raw)
                if message.HasField("reconnect_ins"):
                    break
                if stall and message.HasField("fit_ins"):
                    self._token.run_sync_soon(self.stalled.set)
                else:
                    answers.put(answer_adding(message, step).SerializeToString())
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        finally:
            answers.put(None)
        return grpc.StatusCode.OK


@asynccontextmanager
async def open_clients() -> AsyncIterator[Clients]:
    """Give the block clients to start. Raises trio.TooSlowError when they take two minutes."""
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            yield Clients(nursery)
