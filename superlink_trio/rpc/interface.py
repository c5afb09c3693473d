"""What the APIs and the transports that carry them agree on: bytes in, bytes out.

A transport knows a call's name, its caller and its bytes. It hands them to the API's handler and
carries back what the handler answers; it never looks inside. Three kinds of call exist:

- `Unary`: the answer is computed and sent, and it does not matter whether it arrives.
- `Leased`: the answer takes something out of the state (a task, results). The handler is an
  async context manager: the transport writes the answer *inside* the block. Leaving the block
  normally means the answer was handed over, leaving it by an exception or a cancellation means
  it was not, and what it held goes back. A client that has its answer does not wait until the block
  is left, and may make its next call before: what fails there is for the log.
- `Streaming`: a conversation. The handler gets a `Duplex`, over which both sides send any number
  of messages; the call ends when the handler returns. A client that goes away cancels it.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import attrs
import trio

from superlink_trio.rpc.holds import Holds


class Status(enum.Enum):
    """Why a call was refused, in gRPC's names; other transports translate.

    Source: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
    """

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refused(Exception):
    """An answer other than OK. Its message is written for the caller and reaches it as it is.

    `code` is Flower's own number for what is wrong, where its programs look at that; else 0.
    `reason` is for whoever counts refusals: the limit that was reached, by its option's name, or
    one word. By default it is the status.
    """

    def __init__(self, status: Status, message: str, code: int = 0, *, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.reason = reason or status.name.lower()


def fault() -> Refused:
    """Give the refusal of a call whose handler failed: what went wrong is for the log alone."""
    return Refused(Status.INTERNAL, "The server failed to answer; its log says why.")


# By these a proxy says that it forwards a call. Who says so without one gets nothing by it.
_FORWARDED = frozenset({"forwarded", "via", "x-forwarded-for"})


@attrs.frozen
class Caller:
    """Who is on the other end of a call.

    `connection` names the connection the call came over (`127.0.0.1:41234`, `[::1]:41234`): equal
    for two calls means that the same process made both. Empty where a transport cannot tell.
    `metadata` holds the call's headers by lower-case name.

    `public_key` is the node's key, as PEM SubjectPublicKeyInfo, where nodes are authenticated.
    `headers` is for the API to fill: what it puts there before it answers goes ahead of the
    answer (gRPC: initial metadata, which a refusal has none of).
    """

    connection: str = ""
    metadata: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    public_key: bytes = attrs.field(default=b"", repr=False)
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def own_connection(self) -> str:
        """The connection, where it is the caller's own; empty where a proxy says that it forwards.

        A proxy that understands HTTP shares its connections among clients, and a client's calls
        among connections. Source: RFC 7239; RFC 9110, 7.6.3.
        """
        return "" if self.metadata.keys() & _FORWARDED else self.connection

    @property
    def host(self) -> str:
        """Where the call came from without the port: whom log lines are to be blamed on."""
        return self.connection.rpartition(":")[0]


class ClientGone(Exception):
    """The client of a call has gone; of a streaming one: or has said that it sends no more."""


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


def _tell_nobody(_method: str, _caller: Caller, _refusal: Refused) -> None:
    pass


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
    drain: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """The transport that is asked to stop waits for this, once it has released the holds, before
    it refuses calls: clients that stop as well say goodbye meanwhile. Bounded by the API."""
    turned_away: Callable[[str, Caller, Refused], None] = _tell_nobody
    """Told by the transport of a call, by its method, that it refuses before a handler sees it."""
