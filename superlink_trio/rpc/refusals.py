"""What every API refuses in the same way: bytes that are no message, what the state cannot do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar

import attrs
from google.protobuf.message import DecodeError, Message

from superlink_trio.logs import Throttle
from superlink_trio.rpc.interface import (
    Api,
    Caller,
    Duplex,
    Leased,
    Refused,
    Status,
    Streaming,
    Unary,
)
from superlink_trio.state import Limit, LimitReached, StateUnavailable
from superlink_trio.state.messages import Wrong
from superlink_trio.wire.tasks import ANONYMOUS

_log = logging.getLogger(__name__)

# Seconds between two log lines of one API about limits.
_LOG_EVERY = 10.0

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


def with_refusals(api: Api, *, full: Status = Status.RESOURCE_EXHAUSTED) -> Api:
    """Refuse what the state cannot do: UNAVAILABLE in an outage, `full` over a limit.

    What is wrong in an outage is for the operator, who finds it in the log, and not for the caller.
    A limit is for both: the caller is told at once, the log now and then.
    """
    refusals = _Refusals(full)
    return attrs.evolve(
        api,
        unary={name: _refusing_unary(call, refusals) for name, call in api.unary.items()},
        leased={name: _refusing_leased(call, refusals) for name, call in api.leased.items()},
        streaming={
            name: _refusing_streaming(call, refusals) for name, call in api.streaming.items()
        },
    )


_IN_WORDS: Mapping[Limit, str] = {
    Limit.NODES: (
        "{value} nodes are registered, all that --max-nodes allows: try again later, or raise it"
    ),
    Limit.TASKS_PER_NODE: (
        "{value} tasks for {node} have no answer yet, and {more} more would be over the {most} "
        "that --max-tasks-per-node allows: collect results first, push to more nodes, or raise it"
    ),
    Limit.ASKED_SIZE: (
        "{value} bytes are stored, and {more} more would be over {most}, the half of "
        "--max-stored-size that is for tasks: collect results first, push smaller or equal "
        "payloads, or raise it"
    ),
    Limit.STORED_SIZE: (
        "{value} bytes are stored, and {more} more would be over the {most} of --max-stored-size: "
        "wait until results are collected, or raise it"
    ),
}

# By the option that raises it.
_REASONS: Mapping[Limit, str] = {
    Limit.NODES: "max_nodes",
    Limit.TASKS_PER_NODE: "max_tasks_per_node",
    Limit.ASKED_SIZE: "max_stored_size",
    Limit.STORED_SIZE: "max_stored_size",
}


def limit_in_words(error: LimitReached) -> str:
    """Say what is full, at which value, and what to do, for the caller and for the operator."""
    node = "anonymous nodes" if error.node_id == ANONYMOUS else f"node {error.node_id}"
    return _IN_WORDS[error.limit].format(
        value=error.value, more=error.more, most=error.most, node=node
    )


@attrs.frozen
class _Refusals:
    """Turns errors of the state into refusals."""

    full: Status
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=1, period=_LOG_EVERY))

    def refusal(self, error: StateUnavailable | LimitReached | Wrong) -> Refused:
        if isinstance(error, Wrong):
            return Refused(Status.INVALID_ARGUMENT, str(error))
        if isinstance(error, StateUnavailable):
            return Refused(
                Status.UNAVAILABLE, "The server's database is not available.", reason="database"
            )
        words = limit_in_words(error)
        self.throttle.log(logging.WARNING, None, "Refused: %s", words)
        return Refused(self.full, f"{words}.", reason=_REASONS[error.limit])


def _refusing_unary(call: Unary, refusals: _Refusals) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        try:
            return await call(raw, caller)
        except (StateUnavailable, LimitReached, Wrong) as error:
            raise refusals.refusal(error) from error

    return answer


def _refusing_streaming(call: Streaming, refusals: _Refusals) -> Streaming:
    async def serve(stream: Duplex, caller: Caller) -> None:
        try:
            await call(stream, caller)
        except (StateUnavailable, LimitReached, Wrong) as error:
            raise refusals.refusal(error) from error

    return serve


def _refusing_leased(call: Leased, refusals: _Refusals) -> Leased:
    return lambda raw, caller: _RefusingLease(call(raw, caller), refusals)


@attrs.frozen
class _RefusingLease(AbstractAsyncContextManager[bytes]):
    # Thousands of them are open at a time: a generator would take several times the memory.

    lease: AbstractAsyncContextManager[bytes]
    refusals: _Refusals

    async def __aenter__(self) -> bytes:
        try:
            return await self.lease.__aenter__()
        except (StateUnavailable, LimitReached, Wrong) as error:
            raise self.refusals.refusal(error) from error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await self.lease.__aexit__(kind, raised, traceback)
        except (StateUnavailable, LimitReached, Wrong) as error:
            raise self.refusals.refusal(error) from error
