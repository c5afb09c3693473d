"""What the APIs and the transports that carry them agree on: bytes in, bytes out.

A transport knows a call's name, its caller and its bytes. It hands them to the API's handler and
carries back what the handler answers; it never looks inside. Three kinds of call exist:

- `Unary`: the answer is computed and sent, and it does not matter whether it arrives.
- `Leased`: the answer takes something out of the state (a task, results). The handler is an
  async context manager: the transport writes the answer *inside* the block. Leaving the block
  normally means the answer was handed over, leaving it by an exception or a cancellation means
  it was not, and what it held goes back.
- `Streaming`: a conversation. The handler gets a `Duplex`, over which both sides send any number
  of messages; the call ends when the handler returns. A client that goes away cancels it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Protocol, TypeAlias, TypeVar

import attrs
import trio
from google.protobuf.message import DecodeError, Message

from superlink_trio.state import StateUnavailable


class Status(enum.Enum):
    """Why a call was refused, in gRPC's names; other transports translate.

    Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    """

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refused(Exception):
    """An answer other than OK. Its message is written for the caller and reaches it as it is."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@attrs.frozen
class Caller:
    """Who is on the other end of a call.

    `connection` names the connection the call came over (gRPC: `ipv4:127.0.0.1:41234`): equal
    for two calls means that the same process made both. Empty where a transport cannot tell.
    `metadata` holds the call's headers by lower-case name.

    `public_key` is the node's key, as PEM SubjectPublicKeyInfo, where nodes are authenticated.
    `headers` is for the API to fill: what it puts there before it answers goes ahead of the
    answer (gRPC: initial metadata).
    """

    connection: str = ""
    metadata: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    public_key: bytes = attrs.field(default=b"", repr=False)
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)


class ClientGone(Exception):
    """The client of a streaming call has gone, or has said that it sends no more."""


class Duplex(Protocol):
    """Both directions of a streaming call. One task at a time may use each of them."""

    async def receive(self) -> bytes:
        """Wait for the client's next message. Raises ClientGone.

        A message may be lost when this is cancelled: whoever gives up waiting ends the call.
        """

    async def send(self, message: bytes) -> None:
        """Hand a message over, and wait while the client reads slower than it is sent to.

        Raises ClientGone. Cancelled, it may have begun to send: the message will arrive, and the
        next one, or the end of the call, after it.
        """


Unary: TypeAlias = Callable[[bytes, Caller], Awaitable[bytes]]
Leased: TypeAlias = Callable[[bytes, Caller], AbstractAsyncContextManager[bytes]]
Streaming: TypeAlias = Callable[[Duplex, Caller], Awaitable[None]]


class Holds:
    """Every call that is held open until there is something to answer."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._released = False

    def __len__(self) -> int:
        return len(self._scopes)

    @contextmanager
    def open(self, seconds: float) -> Iterator[None]:
        """Wait inside the block for at most `seconds`; it is left quietly at the deadline.

        Once `release` was called the block is left at its first checkpoint that would wait.
        """
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            if self._released:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def release(self) -> None:
        """Let every held call go at once, those that come later included."""
        self._released = True
        for scope in self._scopes:
            scope.cancel()


@attrs.frozen(kw_only=True)
class Api:
    """One API as the transports see it."""

    service: str
    """The gRPC service's full name, `flwr.proto.Fleet` for example."""
    unary: Mapping[str, Unary]
    leased: Mapping[str, Leased]
    holds: Holds
    """The transport releases these first when it is asked to stop."""
    streaming: Mapping[str, Streaming] = attrs.field(factory=dict)
    """Only gRPC carries these."""


Request = TypeVar("Request", bound=Message)


def parse(kind: type[Request], raw: bytes) -> Request:
    """Parse a request; refuse the call when the bytes are none."""
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise malformed(kind) from None


def malformed(kind: type[Message]) -> Refused:
    """Give the refusal of bytes that are no message of this kind."""
    name = kind.DESCRIPTOR.name
    return Refused(Status.INVALID_ARGUMENT, f"the request's bytes are no {name}")


def unary(kind: type[Request], handle: Callable[[Request, Caller], Awaitable[Message]]) -> Unary:
    """Make a `Unary` of a handler that works on messages."""

    async def answer(raw: bytes, caller: Caller) -> bytes:
        return (await handle(parse(kind, raw), caller)).SerializeToString()

    return answer


def refusing_outages(api: Api) -> Api:
    """Answer UNAVAILABLE, "try again later", where the state cannot do what a call needs.

    What is wrong with it is for the operator, who finds it in the log, and not for the caller.
    """
    return attrs.evolve(
        api,
        unary={name: _refusing_unary(call) for name, call in api.unary.items()},
        leased={name: _refusing_leased(call) for name, call in api.leased.items()},
    )


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except StateUnavailable as error:
        raise Refused(Status.UNAVAILABLE, "The server's database is not available.") from error


def _refusing_unary(call: Unary) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        with _refusing():
            return await call(raw, caller)

    return answer


def _refusing_leased(call: Leased) -> Leased:
    @asynccontextmanager
    async def lease(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        with _refusing():
            async with call(raw, caller) as answer:
                yield answer

    return lease
