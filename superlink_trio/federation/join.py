"""`FlowerService/Join`: each client is one call, and one Trio task, for as long as it is connected.

The server speaks first, then both sides take turns: an instruction, its answer. A client whose
answer does not come in time, or is none, loses its connection: what it says after that could be
taken for an answer to something else.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from typing import TypeVar

import attrs
import outcome
import trio

from superlink_trio.federation.messages import (
    Answer,
    Kind,
    read_answer,
    write_config,
    write_instruction,
    write_reconnect,
)
from superlink_trio.federation.protocols import ClientManagerLike, InsLike, ParametersLike
from superlink_trio.federation.proxy import (
    BadAnswer,
    ClientFailed,
    ClientLeft,
    ClientProxy,
    ClientTimedOut,
)
from superlink_trio.federation.types import (
    DisconnectRes,
    EvaluateRes,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
)
from superlink_trio.rpc import Api, Caller, Duplex, Holds, Refused, Status
from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.runs import Scalar
from superlink_trio.wire.splice import Malformed

_log = logging.getLogger(__name__)

SERVICE = "flwr.proto.FlowerService"

_Answer = TypeVar("_Answer", bound=Answer)

# Answers that come in at once take turns: while one is parsed its model is in memory twice.
_PARSED_AT_ONCE = 2

# Seconds that a client has to receive the end. It ends well without that, too.
_DISCONNECT_GRACE = 0.5


def join_api(manager: ClientManagerLike, *, message_limit: int) -> Api:
    """Serve Join: every client that connects is registered with `manager` until it has gone.

    When the transport releases the API's holds, clients are told to disconnect. `message_limit`
    is in bytes, and the transport's.
    """
    holds, parsing = Holds(), trio.Semaphore(_PARSED_AT_ONCE)

    async def join(stream: Duplex, caller: Caller) -> None:
        client = JoinedClient(uuid.uuid4().hex, message_limit, parsing)
        if not manager.register(client):
            raise Refused(Status.RESOURCE_EXHAUSTED, "The server does not take this client.")
        fields = {"client": client.cid, "connection": caller.connection}
        number = manager.num_available()
        _log.info(
            "Client %s joined from %s: %d connected",
            *(client.cid, caller.connection or "here", number),
            extra=fields,
        )
        try:
            with holds.open(math.inf):
                await client.converse(stream)
                return
            await client.dismiss(stream)
        finally:
            client.close()
            manager.unregister(client)
            _log.info(
                "Client %s left: %d connected", client.cid, manager.num_available(), extra=fields
            )

    return Api(
        service=SERVICE,
        unary={},
        leased={},
        streaming={"Join": join},
        holds=holds,
    )


@attrs.define(eq=False)
class _Request:
    """An instruction on its way to the client, and what became of it."""

    kind: Kind
    message: bytes
    timeout: float | None
    settled: trio.Event = attrs.field(factory=trio.Event)
    result: outcome.Outcome[Answer] | None = None
    given_up: bool = False
    """Nobody waits for the answer any more."""

    def settle(self, result: outcome.Outcome[Answer]) -> None:
        if self.result is None:
            self.result = result
            self.settled.set()

    def fail(self, error: ClientFailed) -> None:
        self.settle(outcome.Error(error))


class JoinedClient(ClientProxy):
    """A client that is connected over Join. Tasks `ask` it; threads call the other methods."""

    def __init__(self, cid: str, message_limit: int, parsing: trio.Semaphore) -> None:
        super().__init__(cid)
        self._parsing = parsing
        self._message_limit = message_limit
        self._token = trio.lowlevel.current_trio_token()
        self._turn = trio.Lock()
        self._queue, self._requests = trio.open_memory_channel[_Request](1)
        self._busy = False

    async def ask(self, kind: Kind, message: bytes, timeout: float | None) -> Answer:
        """Send an instruction, and wait for its answer for at most `timeout` seconds.

        Those who ask at once have their turns one after the other. Raises ClientFailed.
        """
        if len(message) > self._message_limit:
            raise ClientFailed(
                f"an instruction of {len(message)} bytes is too long for it: set"
                f" grpc_max_message_length, now {self._message_limit}, here and in clients"
            )
        request = _Request(kind, message, timeout)
        del message
        async with self._turn:
            try:
                await self._queue.send(request)
                await request.settled.wait()
            except trio.BrokenResourceError:
                raise ClientLeft("it had left before it was asked") from None
            finally:
                request.given_up = True
        assert request.result is not None
        return request.result.unwrap()

    async def converse(self, stream: Duplex) -> None:
        """Carry instructions to the client and its answers back, until one of them is the last.

        Raises ClientGone, and Refused for a client that does not answer as it should.
        """
        async for request in self._requests:
            if not request.given_up:
                await self._exchange(stream, request)
            if request.kind is Kind.RECONNECT:
                return

    async def dismiss(self, stream: Duplex) -> None:
        """Tell the client to disconnect, after `converse` was cancelled.

        One that is at work is told by the end of the stream, which it finds when it has finished:
        it could not answer any more, and Flower's clients may fail when they try to.
        """
        if self._busy:
            return
        with trio.move_on_after(_DISCONNECT_GRACE):
            await stream.send(write_reconnect(None))
            await stream.receive()

    def close(self) -> None:
        """Let go whoever still asks, and whoever will."""
        while True:
            try:
                request = self._requests.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            request.fail(ClientLeft("it left before it was asked"))
        self._requests.close()

    async def _exchange(self, stream: Duplex, request: _Request) -> None:
        self._busy = True
        try:
            with trio.move_on_after(_forever(request.timeout)) as waiting:
                await stream.send(request.message)
                request.message = b""
                raw = await stream.receive()
            if waiting.cancelled_caught:
                raise self._timed_out(request)
            self._busy = False
            async with self._parsing:
                answer = await in_thread_if_large(len(raw), read_answer, request.kind, raw)
            request.settle(outcome.Value(answer))
        except Malformed as error:
            request.fail(BadAnswer(str(error)))
            raise Refused(Status.INVALID_ARGUMENT, f"This client is let go: {error}.") from error
        finally:
            # Whatever else has ended this.
            request.fail(ClientLeft("it disconnected before it had answered"))

    def _timed_out(self, request: _Request) -> Refused:
        text = f"no answer within {request.timeout:g} s"
        request.fail(ClientTimedOut(text))
        return Refused(Status.DEADLINE_EXCEEDED, f"This client is let go: {text}.")

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Ask for its properties."""
        return self._ask(GetPropertiesRes, Kind.GET_PROPERTIES, ins.config, None, timeout)

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Ask for its own model."""
        return self._ask(GetParametersRes, Kind.GET_PARAMETERS, ins.config, None, timeout)

    def fit(self, ins: InsLike, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Have it train a model on its data."""
        return self._ask(FitRes, Kind.FIT, ins.config, ins.parameters, timeout)

    def evaluate(
        self, ins: InsLike, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Have it evaluate a model on its data."""
        return self._ask(EvaluateRes, Kind.EVALUATE, ins.config, ins.parameters, timeout)

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Have it disconnect, and come back later if `ins` says so."""
        message = write_reconnect(ins.seconds)
        return self._run(DisconnectRes, Kind.RECONNECT, message, timeout)

    def _ask(
        self,
        answer: type[_Answer],
        kind: Kind,
        config: Mapping[str, Scalar],
        parameters: ParametersLike | None,
        timeout: float | None,
    ) -> _Answer:
        parts = write_instruction(kind, write_config(kind, config), parameters)
        return self._run(answer, kind, b"".join(parts), timeout)

    def _run(
        self, answer: type[_Answer], kind: Kind, message: bytes, timeout: float | None
    ) -> _Answer:
        # With the token it works from any thread: a server of flwr's has a pool of its own.
        got = trio.from_thread.run(self.ask, kind, message, timeout, trio_token=self._token)
        assert isinstance(got, answer)
        return got


def _forever(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout
