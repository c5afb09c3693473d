"""Calls as whoever watches them sees them: what was called, by whom, for how long, with what end.

`observed` goes around an API as a whole, so that refusals of every kind are seen too, those of the
transport included.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from types import TracebackType
from typing import Protocol

import attrs
import trio

from superlink_trio.logs import context, shorten
from superlink_trio.rpc.holds import Holds
from superlink_trio.rpc.interface import (
    Api,
    Caller,
    ClientGone,
    Duplex,
    Leased,
    Refused,
    Streaming,
    Unary,
    fault,
)

_log = logging.getLogger(__name__)

OK, CANCELLED, FAILED = "OK", "CANCELLED", "INTERNAL"

# Calls of two processes, or of two lives of one, have different ids.
_PROCESS = secrets.token_hex(3)
_numbers = itertools.count(1)


@attrs.define(eq=False)
class Call:
    """One call. Sizes are bytes, times seconds of Trio's clock."""

    service: str
    """`flwr.proto.Fleet` for example."""
    method: str
    caller: Caller
    received: int
    holds: Holds
    """Where calls of its API are held."""
    began: float = attrs.field(factory=trio.current_time)
    ended: float = 0.0
    sent: int = 0
    outcome: str = OK
    """A `Status` by its name; CANCELLED where the client went away, or the server stopped."""
    reason: str = ""
    """Why it was refused, if it was: `Refused.reason`."""
    about: context.Fields = attrs.field(factory=dict)
    """`call_id`, and what handlers `note`: `run_id`, `node_id`, `task_id` and the like."""

    @property
    def seconds(self) -> float:
        """How long it took, whatever of that it was held."""
        return self.ended - self.began


class CallObserver(Protocol):
    """Somebody who watches calls. Each call costs what this costs."""

    def begun(self, call: Call) -> None:
        """Note that a call has begun."""

    def over(self, call: Call) -> None:
        """Note that a call has ended, one that was handed over included."""


class CallLog:
    """A line for every call, for whoever debugs."""

    def begun(self, call: Call) -> None:
        """See `CallObserver`."""

    def over(self, call: Call) -> None:
        """See `CallObserver`."""
        if not _log.isEnabledFor(logging.DEBUG):
            return
        milliseconds = round(call.seconds * 1000, 1)
        about = ", ".join(
            f"{name} {shorten(str(value), 100)}" for name, value in call.about.items()
        )
        _log.debug(
            "%s from %s: %s in %s ms, %d bytes in, %d out (%s)",
            *(call.method, call.caller.connection or "a simulated node", call.outcome),
            *(milliseconds, call.received, call.sent, about),
            extra={
                "method": call.method,
                "peer": call.caller.connection,
                "outcome": call.outcome,
                "milliseconds": milliseconds,
                "bytes_in": call.received,
                "bytes_out": call.sent,
            },
        )


def observed(api: Api, observers: Sequence[CallObserver]) -> Api:
    """Let observers see every call of an API."""
    return attrs.evolve(
        api,
        turned_away=_turned_away(api, observers),
        unary={
            name: _unary(handler, _Watch(api, name, observers))
            for name, handler in api.unary.items()
        },
        leased={
            name: _leased(handler, _Watch(api, name, observers))
            for name, handler in api.leased.items()
        },
        streaming={
            name: _streaming(handler, _Watch(api, name, observers))
            for name, handler in api.streaming.items()
        },
    )


@attrs.frozen
class _Watch:
    """What all calls of one method share."""

    api: Api
    method: str
    observers: Sequence[CallObserver]

    def begin(self, caller: Caller, received: int) -> tuple[Call, Token[context.Fields]]:
        call = Call(self.api.service, self.method, caller, received, self.api.holds)
        call.about["call_id"] = f"{_PROCESS}-{next(_numbers)}"
        token = context.enter(call.about)
        for observer in self.observers:
            observer.begun(call)
        return call, token

    def end(
        self, call: Call, token: Token[context.Fields], outcome: str = OK, reason: str = ""
    ) -> None:
        call.ended, call.outcome, call.reason = trio.current_time(), outcome, reason
        try:
            for observer in self.observers:
                observer.over(call)
        finally:
            context.leave(token)

    def fail(
        self, call: Call, token: Token[context.Fields], raised: BaseException
    ) -> BaseException:
        """End a call that its handler left by an exception; give what its transport has to see.

        What nobody expected is logged here, where it is known which call it was.
        """
        if isinstance(raised, Refused):
            self.end(call, token, raised.status.name, raised.reason)
        elif isinstance(raised, Exception) and not isinstance(raised, ClientGone):
            _log.error("%s/%s failed", self.api.service, self.method, exc_info=raised)
            self.end(call, token, FAILED)
            return fault()
        else:
            self.end(call, token, CANCELLED)
        return raised


def _turned_away(
    api: Api, observers: Sequence[CallObserver]
) -> Callable[[str, Caller, Refused], None]:
    def note(method: str, caller: Caller, refusal: Refused) -> None:
        watch = _Watch(api, method, observers)
        watch.fail(*watch.begin(caller, 0), refusal)

    return note


def _unary(handler: Unary, watch: _Watch) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        call, token = watch.begin(caller, len(raw))
        try:
            response = await handler(raw, caller)
            call.sent = len(response)
        except BaseException as error:
            if (seen := watch.fail(call, token, error)) is not error:
                raise seen from error
            raise
        watch.end(call, token)
        return response

    return answer


def _streaming(handler: Streaming, watch: _Watch) -> Streaming:
    async def converse(duplex: Duplex, caller: Caller) -> None:
        call, token = watch.begin(caller, 0)
        try:
            await handler(duplex, caller)
        except BaseException as error:
            if (seen := watch.fail(call, token, error)) is not error:
                raise seen from error
            raise
        watch.end(call, token)

    return converse


def _leased(handler: Leased, watch: _Watch) -> Leased:
    return lambda raw, caller: _ObservedLease(handler, raw, caller, watch)


@attrs.define(eq=False)
class _ObservedLease(AbstractAsyncContextManager[bytes]):
    # Thousands of them are open at a time: a generator would take several times the memory.

    handler: Leased
    raw: bytes
    caller: Caller
    watch: _Watch
    lease: AbstractAsyncContextManager[bytes] | None = None
    call: Call | None = None
    token: Token[context.Fields] | None = None

    async def __aenter__(self) -> bytes:
        call, token = self.call, self.token = self.watch.begin(self.caller, len(self.raw))
        self.lease = self.handler(self.raw, self.caller)
        self.raw = b""
        try:
            response = await self.lease.__aenter__()
        except BaseException as error:
            if (seen := self.watch.fail(call, token, error)) is not error:
                raise seen from error
            raise
        call.sent = len(response)
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self.lease is not None, "what is left was entered"
        assert self.call is not None
        assert self.token is not None
        try:
            suppressed = await self.lease.__aexit__(kind, raised, traceback)
        except BaseException as error:
            if error is raised:
                self.watch.end(self.call, self.token, CANCELLED)
            elif (seen := self.watch.fail(self.call, self.token, error)) is not error:
                raise seen from error
            raise
        # What the transport raised says that the answer was not handed over.
        self.watch.end(self.call, self.token, OK if raised is None else CANCELLED)
        return suppressed
