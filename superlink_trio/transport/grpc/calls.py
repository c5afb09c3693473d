"""From a call that grpc.aio hands over to a Trio task that answers it, and back.

Every call is a task in the server's nursery. grpc's side of it is an asyncio coroutine that reads
the request and waits for the task's answer; only that coroutine touches grpc's context, which is
gone once it returns.

- The client goes away: grpc cancels the coroutine, and that cancels the task.
- The task ends in whatever way: its coroutine always gets an answer to send. grpc would answer an
  exception with its text, and for a cancellation let the client wait for ever.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias, TypeVar

import attrs
import grpc
import grpc.aio
import trio

from superlink_trio.rpc import (
    Api,
    Caller,
    CallLimit,
    ClientGone,
    Leased,
    Refused,
    Status,
    Streaming,
    Unary,
    fault,
)
from superlink_trio.transport.grpc.loop import TrioEventLoop
from superlink_trio.transport.grpc.peers import peer_name
from superlink_trio.wire.bulk import give_back

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_CODES = {status: grpc.StatusCode[status.name] for status in Status}

# Refusals are written for people and travel in a header. Clients refuse headers from 8 KiB on, and
# gRPC triples what is not ASCII.
_MAX_DETAILS = 2000

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Coroutine: TypeAlias = Callable[[bytes, _Context], Awaitable[bytes | None]]
_Refuse: TypeAlias = Callable[[_Context, Refused], bytes]
_StreamCoroutine: TypeAlias = Callable[[object, _Context], Awaitable[bytes | None]]


def generic_handler(
    api: Api,
    calls: trio.Nursery,
    limit: CallLimit,
    loop: TrioEventLoop,
    called: Callable[[str], None],
) -> grpc.GenericRpcHandler[bytes, bytes]:
    """Make grpc.aio serve an API: bytes in, bytes out, each call a task in `calls`.

    A call that is over the limit is refused before it gets one. `called` is told of each call's
    peer, in grpc's words.

    All requests, and the answers of leased calls, are registered as streams of one message. On the
    wire that is the same. But a request is then read here, where one that does not come can be
    given up; and grpc says whether an answer left, which may get lost without a trace if it is
    returned.
    """
    limited = partial(_limited, limit, called)
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
    for name, unary in api.unary.items():
        refuse = _refusing(api, name)
        read = _reading(limit, refuse, _unary(f"{api.service}/{name}", unary, calls, loop))
        methods[name] = grpc.stream_unary_rpc_method_handler(limited(name, refuse, read))
    for name, leased in api.leased.items():
        refuse = _refusing(api, name)
        read = _reading(limit, refuse, _leased(f"{api.service}/{name}", leased, calls, loop))
        methods[name] = grpc.stream_stream_rpc_method_handler(limited(name, refuse, read))
    for name, streaming in api.streaming.items():
        refuse = _refusing(api, name)
        talk = _streaming(f"{api.service}/{name}", streaming, calls, loop)
        methods[name] = grpc.stream_stream_rpc_method_handler(limited(name, refuse, talk))
    return grpc.method_handlers_generic_handler(api.service, methods)


def _refusing(api: Api, name: str) -> _Refuse:
    """Give what refuses a call that no handler has seen."""

    def refuse(context: _Context, refusal: Refused) -> bytes:
        api.turned_away(name, _caller(context), refusal)
        return _refuse(context, refusal)

    return refuse


def _limited(
    limit: CallLimit,
    called: Callable[[str], None],
    name: str,
    refuse: _Refuse,
    call: _StreamCoroutine,
) -> _StreamCoroutine:
    async def serve(requests: object, context: _Context) -> bytes | None:
        called(context.peer())
        try:
            limit.begin(name)
        except Refused as refusal:
            return refuse(context, refusal)
        try:
            return await call(requests, context)
        finally:
            limit.end()

    return serve


def _reading(limit: CallLimit, refuse: _Refuse, call: _Coroutine) -> _StreamCoroutine:
    async def serve(_: object, context: _Context) -> bytes | None:
        request = await _receive(context, limit)
        if isinstance(request, Refused):
            return refuse(context, request)
        return await call(request, context)

    return serve


async def _receive(context: _Context, limit: CallLimit) -> bytes | Refused:
    task = asyncio.current_task()
    assert task is not None, "grpc serves each call in a task"
    limit.arriving(task.cancel)
    try:
        request = await context.read()
    except BaseException as error:
        if limit.arrived(task.cancel) or not isinstance(error, asyncio.CancelledError):
            raise
        # The client has not gone: it shall have an answer.
        task.uncancel()
        return limit.refusal()
    limit.arrived(task.cancel)
    if isinstance(request, bytes):
        return request
    return Refused(Status.INVALID_ARGUMENT, "the call ended without a request")


@attrs.define(eq=False)
class _Call:
    """What the two sides of a call share."""

    name: str
    scope: trio.CancelScope
    """Cancelled by grpc's side when the client is gone."""
    answer: asyncio.Future[bytes | Refused]
    """Resolved by the task; cancelled along with the coroutine that waits for it."""

    def resolve(self, answer: bytes | Refused) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


@attrs.define(eq=False)
class _LeasedCall(_Call):
    written: trio.Event | None = None
    """Set by grpc's side when the answer has left; there is none before there is an answer."""

    def offer(self, answer: bytes) -> trio.Event:
        """Hand an answer over to be written; the event tells when it was."""
        self.written = trio.Event()
        self.resolve(answer)
        return self.written


def _unary(
    name: str, handler: Unary, calls: trio.Nursery, loop: asyncio.AbstractEventLoop
) -> _Coroutine:
    async def serve(request: bytes, context: _Context) -> bytes:
        call = _Call(name, trio.CancelScope(), loop.create_future())
        caller = _caller(context)
        calls.start_soon(_answer, call, handler, request, caller, name=name)
        try:
            answer = await call.answer
        except asyncio.CancelledError:
            call.scope.cancel()
            raise
        if isinstance(answer, Refused):
            return _refuse(context, answer)
        await _send_headers(context, caller)
        return answer

    return serve


async def _answer(call: _Call, handler: Unary, request: bytes, caller: Caller) -> None:
    with call.scope:
        try:
            await give_back(len(request))
            call.resolve(await handler(request, caller))
        except BaseException as error:
            refusal, rest = _explain(error, call.name)
            call.resolve(refusal)
            if rest is not None:
                raise rest  # noqa: B904 (it is the caught error, or part of it)


def _leased(
    name: str, leased: Leased, calls: trio.Nursery, loop: asyncio.AbstractEventLoop
) -> _Coroutine:
    async def serve(request: bytes, context: _Context) -> None:
        call = _LeasedCall(name, trio.CancelScope(), loop.create_future())
        caller = _caller(context)
        calls.start_soon(_lease, call, leased, request, caller, name=name)
        try:
            answer = await call.answer
            if isinstance(answer, Refused):
                _refuse(context, answer)
                return
            await _send_headers(context, caller)
            await context.write(answer)
        except BaseException:
            call.scope.cancel()
            raise
        # Handed over, whether the client stays or leaves. Its OK does not wait until that is
        # settled: if this process were killed meanwhile, an answer that has arrived would be none.
        assert call.written is not None, "what was written was offered"
        call.written.set()

    return serve


async def _lease(call: _LeasedCall, leased: Leased, request: bytes, caller: Caller) -> None:
    with call.scope:
        try:
            async with leased(request, caller) as answer:
                # Whether it leaves only grpc's side knows, and cancels if it does not. Whoever else
                # does so has to wait: the client may just be getting an OK.
                call.scope.shield = True
                await call.offer(answer).wait()
                call.scope.shield = False
        except BaseException as error:
            refusal, rest = _explain(error, call.name)
            call.resolve(refusal)
            if rest is not None:
                raise rest  # noqa: B904 (it is the caught error, or part of it)


@attrs.define(eq=False)
class _StreamCall:
    """A streaming call, as its task sees it: a Duplex."""

    name: str
    scope: trio.CancelScope
    """Cancelled by grpc's side when the client is gone."""
    end: asyncio.Future[Refused | None]
    """Resolved by the task when it has ended; cancelled along with grpc's side."""
    context: _Context
    loop: TrioEventLoop
    writing: asyncio.Task[grpc.aio.BaseError | None] | None = None
    """The last write. It goes on when whoever waits for it is cancelled: grpc cannot take it back,
    and until it is done takes neither another one nor the status."""

    async def receive(self) -> bytes:
        message = await self._run(self.context.read())
        if not isinstance(message, bytes):  # grpc's EOF, an object of its own
            raise ClientGone
        await give_back(len(message))
        return message

    async def send(self, message: bytes) -> None:
        await self._run(self.written())
        self.writing = self.loop.create_task(self._write(message))
        del message
        if (error := await self._run(self.written())) is not None:
            raise ClientGone from error

    async def written(self) -> grpc.aio.BaseError | None:
        """Wait for the last write, and give its error (asyncio-flavored)."""
        return None if self.writing is None else await asyncio.shield(self.writing)

    async def _write(self, message: bytes) -> grpc.aio.BaseError | None:
        # Not raised: perhaps nobody waits for it any more.
        try:
            await self.context.write(message)
        except grpc.aio.BaseError as error:
            return error
        return None

    async def _run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await self.loop.run_aio_coroutine(operation)
        except (asyncio.CancelledError, grpc.aio.BaseError) as error:
            # Whatever grpc says here, it means that nothing comes or leaves any more.
            raise ClientGone from error

    def settle(self, end: Refused | None) -> None:
        if not self.end.done():
            self.end.set_result(end)


def _streaming(
    name: str, handler: Streaming, calls: trio.Nursery, loop: TrioEventLoop
) -> _StreamCoroutine:
    async def serve(_requests: object, context: _Context) -> None:
        call = _StreamCall(name, trio.CancelScope(), loop.create_future(), context, loop)
        calls.start_soon(_converse, call, handler, _caller(context), name=name)
        try:
            refusal = await call.end
        except asyncio.CancelledError:
            call.scope.cancel()
            raise
        await call.written()
        if refusal is not None:
            _refuse(context, refusal)

    return serve


async def _converse(call: _StreamCall, handler: Streaming, caller: Caller) -> None:
    with call.scope:
        try:
            await handler(call, caller)
            call.settle(None)
        except ClientGone:
            call.settle(None)
        except BaseException as error:
            refusal, rest = _explain(error, call.name)
            call.settle(refusal)
            if rest is not None:
                raise rest  # noqa: B904 (it is the caught error, or part of it)


def _explain(error: BaseException, name: str) -> tuple[Refused, BaseException | None]:
    """Turn what ended a handler into its answer, and what has to be raised in the nursery."""
    if isinstance(error, Refused):
        return error, None
    failed, rest = _split(error)
    if failed is None and _is_cancellation(rest):
        return Refused(Status.UNAVAILABLE, "The server is stopping."), rest
    # KeyboardInterrupt and the like are not logged here: whom they are raised to does that.
    if failed is not None:
        _log.error("%s failed", name, exc_info=failed)
    return fault(), rest


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Tell the faults of one call from what concerns the whole program.

    asyncio's CancelledError is among the former: nobody in a Trio task waits for one.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split((Exception, asyncio.CancelledError))
    if isinstance(error, Exception | asyncio.CancelledError):
        return error, None
    return None, error


def _is_cancellation(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _refuse(context: _Context, refusal: Refused) -> bytes:
    context.set_code(_CODES[refusal.status])
    details = refusal.message.encode(errors="replace")[:_MAX_DETAILS]
    context.set_details(details.decode(errors="ignore"))
    return b""  # grpc wants a message, which does not count beside an error status


async def _send_headers(context: _Context, caller: Caller) -> None:
    if caller.headers:
        await context.send_initial_metadata(tuple(caller.headers.items()))


def _caller(context: _Context) -> Caller:
    metadata = context.invocation_metadata() or ()
    return Caller(peer_name(context.peer()), dict(_header(*pair) for pair in metadata))


def _header(name: str, value: str | bytes) -> tuple[str, str]:
    # Binary values have names of their own. Other transports have base64 in their place.
    if isinstance(value, str):
        return name, value
    return name.removesuffix("-bin"), base64.b64encode(value).decode()
