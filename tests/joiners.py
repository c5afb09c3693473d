"""Clients of the round loop inside a test: real streams of bytes, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import trio

from superlink_trio.federation import ClientManager, join_api, ndarrays_to_parameters
from superlink_trio.federation.arrays import read_array
from superlink_trio.rpc import Api, Caller, ClientGone, Refused
from superlink_trio.wire import rounds_pb2 as pb

LIMIT = 1_000_000

Behaviour = Callable[["Stream", pb.ServerMessage], Awaitable[None]]


@attrs.define
class Stream:
    """Both ends of a conversation: the server has `receive` and `send`, the client the rest."""

    _to_server: Any = attrs.field(factory=lambda: trio.open_memory_channel(10))
    _to_client: Any = attrs.field(factory=lambda: trio.open_memory_channel(10))
    ended: trio.Event = attrs.field(factory=trio.Event)
    refusal: Refused | None = None

    async def receive(self) -> bytes:
        try:
            message: bytes = await self._to_server[1].receive()
        except trio.EndOfChannel:
            raise ClientGone from None
        return message

    async def send(self, message: bytes) -> None:
        try:
            await self._to_client[0].send(message)
        except trio.BrokenResourceError:
            raise ClientGone from None

    async def hear(self) -> pb.ServerMessage:
        """Read the server's next message. Raises trio.EndOfChannel at the end."""
        return pb.ServerMessage.FromString(await self._to_client[1].receive())

    async def say(self, message: bytes | pb.ClientMessage) -> None:
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        await self._to_server[0].send(raw)

    def leave(self) -> None:
        """Disconnect."""
        self._to_server[0].close()
        self._to_client[1].close()

    def end(self, refusal: Refused | None = None) -> None:
        """Note that the server's side is over."""
        self.refusal = refusal
        self._to_client[0].close()
        self.ended.set()


@attrs.define
class Joining:
    """Where clients of a test join."""

    manager: ClientManager
    _nursery: trio.Nursery
    api: Api = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.api = join_api(self.manager, message_limit=LIMIT)

    async def join(self) -> Stream:
        """Connect a client; it is registered when this returns."""
        before = self.manager.num_available()
        stream = Stream()
        self._nursery.start_soon(self._serve, stream)
        while self.manager.num_available() == before and not stream.ended.is_set():
            await trio.lowlevel.checkpoint()
        return stream

    async def join_as(self, behaviour: Behaviour) -> Stream:
        """Connect a client that answers every instruction in this way."""
        stream = await self.join()
        self._nursery.start_soon(self._answer, stream, behaviour)
        return stream

    async def _serve(self, stream: Stream) -> None:
        refusal = None
        try:
            await self.api.streaming["Join"](stream, Caller("test:1"))
        except ClientGone:
            pass
        except Refused as error:
            refusal = error
        finally:
            stream.end(refusal)

    async def _answer(self, stream: Stream, behaviour: Behaviour) -> None:
        try:
            while True:
                message = await stream.hear()
                if message.HasField("reconnect_ins"):
                    await stream.say(
                        pb.ClientMessage(disconnect_res=pb.DisconnectRes(reason="ACK"))
                    )
                    return
                await behaviour(stream, message)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def open_joining(manager: ClientManager) -> AsyncIterator[Joining]:
    async with trio.open_nursery() as nursery:
        yield Joining(manager, nursery)
        nursery.cancel_scope.cancel()


def adding(step: float, *, examples: int = 1) -> Behaviour:
    """Training adds `step` to every weight; the loss is their mean."""

    async def behave(stream: Stream, message: pb.ServerMessage) -> None:
        await stream.say(answer_adding(message, step, examples))

    return behave


def answer_adding(message: pb.ServerMessage, step: float, examples: int = 1) -> pb.ClientMessage:
    kind = message.WhichOneof("msg")
    if kind == "get_parameters_ins":
        return parameters_res(np.zeros(3, np.float32))
    if kind == "fit_ins":
        return fit_res(weights(message.fit_ins.parameters) + np.float32(step), examples)
    loss = float(weights(message.evaluate_ins.parameters).mean())
    return pb.ClientMessage(evaluate_res=pb.EvaluateRes(loss=loss, num_examples=examples))


def weights(parameters: bytes) -> Any:
    [tensor] = pb.Parameters.FromString(parameters).tensors
    # Not numpy.load(), at which one of two threads fails now and then, before Python 3.11.8.
    return read_array(tensor)


def raw_parameters(*arrays: Any) -> bytes:
    parameters = ndarrays_to_parameters(arrays)
    return pb.Parameters(
        tensors=parameters.tensors, tensor_type=parameters.tensor_type
    ).SerializeToString()


def parameters_res(*arrays: Any) -> pb.ClientMessage:
    return pb.ClientMessage(
        get_parameters_res=pb.GetParametersRes(parameters=raw_parameters(*arrays))
    )


def fit_res(array: Any, examples: int = 1) -> pb.ClientMessage:
    return pb.ClientMessage(
        fit_res=pb.FitRes(parameters=raw_parameters(array), num_examples=examples)
    )
