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
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Protocol, TypeAlias, TypeVar

import attrs
import trio
from google.protobuf.message import DecodeError, Message

from superlink_trio.state import LimitReached, StateUnavailable
from superlink_trio.throttle import Throttle

_log = logging.getLogger(__name__)

# Seconds between two log lines of one API about limits.
_TELL_EVERY = 10.0


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

    `connection` names the connection the call came over (`127.0.0.1:41234`, `[::1]:41234`): equal
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

    @property
    def host(self) -> str:
        """Where the call came from without the port: whom log lines are to be blamed on."""
        return self.connection.rpartition(":")[0]


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


@attrs.frozen
class _Hold(AbstractContextManager[trio.CancelScope]):
    # Thousands of them wait at a time: a generator would take several times the memory.

    scopes: dict[trio.CancelScope, None]
    scope: trio.CancelScope

    def __enter__(self) -> trio.CancelScope:
        self.scope.__enter__()
        self.scopes[self.scope] = None
        return self.scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.scopes.pop(self.scope, None)
        return self.scope.__exit__(kind, raised, traceback)


class Holds:
    """Every call that is held open until there is something to answer."""

    def __init__(self) -> None:
        # The oldest first.
        self._scopes: dict[trio.CancelScope, None] = {}
        self._released = False

    def __len__(self) -> int:
        return len(self._scopes)

    def open(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """Wait inside the block for at most `seconds`; it is left quietly at the deadline.

        The block is given its scope, and may bring the deadline forward.
        Once `release` was called the block is left at its first checkpoint that would wait.
        """
        scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        if self._released:
            scope.cancel()
        return _Hold(self._scopes, scope)

    def release(self) -> None:
        """Let every held call go at once, those that come later included."""
        self._released = True
        while self.release_oldest():
            pass

    def release_oldest(self) -> bool:
        """Let the call go that has been held for longest; say whether there was one."""
        if not self._scopes:
            return False
        scope = next(iter(self._scopes))
        del self._scopes[scope]
        scope.cancel()
        return True


class CallLimit:
    """How many calls of a server may be under way at the same time, held ones included.

    Where it is reached, a new call gets the place of another one: of the request that has been
    arriving for longest, if that is longer than `patience` seconds; or else of the call that has
    been held for longest, which is answered: its caller will ask again. Only where there is
    neither, a new call is refused. So a client that holds as many calls as it can, or never ends
    its requests, does not keep others out.

    Pings are refused last of all, since there are clients that repeat a ping that was refused
    without a pause. What a GrpcAdapter's call is cannot be told before it is read: it may be one.
    """

    def __init__(self, limit: int, holds: Iterable[Holds], *, patience: float) -> None:
        self._limit = limit
        self._holds = tuple(holds)
        self._patience = patience
        # How to give a request up, and since when it is on its way; the oldest first.
        self._arrivals: dict[Callable[[], object], float] = {}
        self.under_way = 0

    def begin(self, call: str) -> None:
        """Count a call, by its name, until `end`. Raises Refused."""
        if self.under_way >= self._limit and not self._has_room_for(call):
            raise self.refusal()
        self.under_way += 1

    def end(self) -> None:
        """Count a call no more."""
        self.under_way -= 1

    def arriving(self, give_up: Callable[[], object]) -> None:
        """Note that a counted call's request is on its way, until `arrived`."""
        self._arrivals[give_up] = trio.current_time()

    def arrived(self, give_up: Callable[[], object]) -> bool:
        """Note that a request is on its way no more; say whether it was not given up."""
        return self._arrivals.pop(give_up, None) is not None

    def refusal(self) -> Refused:
        """Give the refusal of a call that has no place, or not any more."""
        return Refused(
            Status.RESOURCE_EXHAUSTED,
            f"{self._limit} calls are under way, all that --max-calls allows: try again later.",
        )

    def _has_room_for(self, call: str) -> bool:
        # Whose place is taken needs a moment to end.
        if self.under_way >= 2 * self._limit:
            return False
        return (
            call == "Ping"
            or self._end_slowest()
            or any(holds.release_oldest() for holds in self._holds)
            or call == "SendReceive"
        )

    def _end_slowest(self) -> bool:
        for give_up, since in self._arrivals.items():
            if trio.current_time() < since + self._patience:
                return False
            del self._arrivals[give_up]
            give_up()
            return True
        return False


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
    part: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """The transport that is asked to stop waits for this, once it has released the holds, before
    it refuses calls: clients that stop as well say goodbye meanwhile. Bounded by the API."""


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


def with_refusals(api: Api) -> Api:
    """Refuse what the state cannot do: UNAVAILABLE in an outage, RESOURCE_EXHAUSTED over a limit.

    What is wrong in an outage is for the operator, who finds it in the log, and not for the caller.
    A limit is for both: the caller is told at once, the log now and then.
    """
    refusals = _Refusals()
    return attrs.evolve(
        api,
        unary={name: _refusing_unary(call, refusals) for name, call in api.unary.items()},
        leased={name: _refusing_leased(call, refusals) for name, call in api.leased.items()},
    )


@attrs.frozen
class _Refusals:
    """Turns errors of the state into refusals."""

    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=1, period=_TELL_EVERY))

    def refusal(self, error: StateUnavailable | LimitReached) -> Refused:
        if isinstance(error, StateUnavailable):
            return Refused(Status.UNAVAILABLE, "The server's database is not available.")
        self.throttle.log(logging.WARNING, None, "Refused: %s", error)
        return Refused(Status.RESOURCE_EXHAUSTED, f"{error}.")


def _refusing_unary(call: Unary, refusals: _Refusals) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        try:
            return await call(raw, caller)
        except (StateUnavailable, LimitReached) as error:
            raise refusals.refusal(error) from error

    return answer


def _refusing_leased(call: Leased, refusals: _Refusals) -> Leased:
    return lambda raw, caller: _RefusingLease(call(raw, caller), refusals)


@attrs.frozen
class _RefusingLease(AbstractAsyncContextManager[bytes]):
    # Written as a class for the same reason as `_Hold`.

    lease: AbstractAsyncContextManager[bytes]
    refusals: _Refusals

    async def __aenter__(self) -> bytes:
        try:
            return await self.lease.__aenter__()
        except (StateUnavailable, LimitReached) as error:
            raise self.refusals.refusal(error) from error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self.lease.__aexit__(kind, raised, traceback)
        except (StateUnavailable, LimitReached) as error:
            raise self.refusals.refusal(error) from error
