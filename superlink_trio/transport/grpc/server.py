"""A gRPC server as a supervised service."""

from __future__ import annotations

import asyncio
import logging
import time
import types
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

import attrs
import grpc
import grpc.aio
import trio
import trio_asyncio  # type: ignore[import-untyped]  # ships no types

from superlink_trio.config import Address, Limits
from superlink_trio.logs.throttle import Throttle
from superlink_trio.rpc import Api, CallLimit
from superlink_trio.transport.grpc.calls import generic_handler
from superlink_trio.transport.grpc.credentials import MakeCredentials
from superlink_trio.transport.grpc.handshakes import Handshakes
from superlink_trio.transport.grpc.listen import bind, resolve
from superlink_trio.transport.grpc.loop import TrioEventLoop
from superlink_trio.transport.grpc.strangers import Elsewhere, Strangers
from superlink_trio.transport.listening import AddressError, fitting

_log = logging.getLogger(__name__)

# How long answers that are ready may take to leave when a server stops in a hurry, in seconds.
_LAST_ANSWERS = 0.1

# A server that stops turns calls away until in so many looks, so many seconds apart, none has come.
# One look alone may come late on a busy machine, and see nothing of what waits.
_LOOK_EVERY, _QUIET_LOOKS = 0.01, 5

# No longer than this, in seconds: some clients ask again and again. And nobody, where nobody has
# called for so long.
_TURNING_AWAY, _SILENCE = 0.5, 1.0

# The grace of a stop that another one ends, in seconds: a year.
_UNLIMITED = 3e7

# How long grpc may take to close the listening sockets of a server that broke down, in seconds.
_SOCKETS_CLOSED = 10.0

# Seconds without a server after it broke down again and again: the first is replaced at once, then
# the pause doubles up to the longest. Each of them lives on for as long as its calls do, so this
# bounds how many there are; longer, it would do the work of whoever breaks them.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.05

# One that served for so long, in seconds, is replaced at once again.
_CALM = 10.0


@attrs.frozen(kw_only=True)
class GrpcOptions(Limits):
    """How a gRPC server behaves, beside the limits that every server has. Times are in seconds.

    `request_timeout` is for TLS and the beginning of HTTP/2.
    """

    max_streams: int = 1024
    """Calls at the same time on one connection. A client waits with what is more."""
    max_idle: float = 600.0
    """How long a connection may be without a call: such a one is not pinged, so nothing else tells
    whether anybody is still there. Clients connect again without a word."""
    keepalive_time: float = 210.0
    """A connection with calls that was silent for this long is pinged. Load balancers of the large
    clouds drop connections after 4 minutes of silence."""
    shared: bool = False
    """Whether other processes listen at the same address: the kernel gives each its connections."""
    keepalive_timeout: float = 20.0
    """A ping that is not answered in this time ends the connection and its calls. So an answer to a
    client that has stopped reading is given up after at most the sum of both."""

    def channel_arguments(self) -> list[tuple[str, int]]:
        """The options in grpc's terms.

        Source: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
        """
        return [
            ("grpc.max_send_message_length", self.max_message_size),
            ("grpc.max_receive_message_length", self.max_message_size),
            # Up to the first no call is refused, from the second on each is, between them some.
            ("grpc.max_metadata_size", self.max_header_size),
            ("grpc.absolute_max_metadata_size", self.max_header_size),
            # Nothing but what is not compressed: Flower's clients compress nothing, and grpc would
            # unpack a message that is small by max_message_size into a thousand times as much.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.max_allowed_incoming_connections", fitting(self.max_connections)),
            ("grpc.server_handshake_timeout_ms", round(self.request_timeout * 1000)),
            ("grpc.max_connection_idle_ms", round(self.max_idle * 1000)),
            ("grpc.keepalive_time_ms", round(self.keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout * 1000)),
            # Has a timeout of its own, a minute, which is the one that counts otherwise.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 0),
            # A held call sends no data for longer than two pings.
            ("grpc.http2.max_pings_without_data", 0),
            # Two servers would share a port silently, where they are not meant to.
            ("grpc.so_reuseport", int(self.shared)),
        ]


async def serve_grpc(
    apis: Sequence[Api],
    address: Address,
    *,
    loop: TrioEventLoop,
    options: GrpcOptions,
    max_calls: Callable[[], int] | None = None,
    credentials: MakeCredentials | None = None,
    elsewhere: Elsewhere = lambda _: None,
    handshakes: Handshakes | None = None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[Address],
) -> None:
    """Serve APIs over gRPC until `stopping` is set, then stop gracefully.

    Stopping: held calls are released, clients that stop as well may say goodbye (see `Api.drain`),
    and then new calls are refused (UNAVAILABLE), one by one for a moment before the port closes.
    `options.grace` seconds after its beginning calls that are still in flight are cancelled.
    Returns when the handlers of all calls have ended. If this function is cancelled instead, calls
    are cancelled at once, and what they held goes back before it raises.

    `loop` comes from `open_loop` and has to stay open until this has returned. `max_calls` gives
    the limit of that name where it may change, in the place of the option. `credentials` turn TLS
    on; they are made anew for each port. `elsewhere` is asked where a service is that is called
    here by mistake. `handshakes`, which the credentials tell of connections, is told of calls.
    `task_status` gets the address with the port that was really bound.

    Raises ValueError for a malformed address, AddressError if it cannot be listened on. A
    KeyboardInterrupt, SystemExit or other BaseException out of a handler is raised from here, in
    a group, after that call was answered.
    """
    addresses = await resolve(address, shared=options.shared)
    outer_loop = trio_asyncio.current_loop.set(loop)
    try:
        server, port = await _listen(addresses, options, credentials, loop)
        bound = Address(address.host, port, bound=[Address(each.host, port) for each in addresses])
        async with trio.open_nursery() as calls:
            holds = [api.holds for api in apis]
            most = max_calls or (lambda: options.max_calls)
            limit = CallLimit(most, holds, patience=options.request_timeout)
            called: Callable[[str], None] = _tell_nobody
            if handshakes is not None:
                called = handshakes.called
                calls.start_soon(handshakes.report, bound)
            handlers = [generic_handler(api, calls, limit, loop, called) for api in apis]
            handlers.append(Strangers(apis, elsewhere, called))
            async with trio.open_nursery() as servers:
                breakdowns = _Breakdowns()
                while True:
                    server.add_generic_rpc_handlers(handlers)
                    life = _Life(options.grace)
                    await servers.start(_serve_one, server, life, loop)
                    task_status.started(bound)
                    task_status = trio.TASK_STATUS_IGNORED
                    await _either(stopping, life.broken)
                    if not stopping.is_set():
                        life.ending.set()
                        with trio.move_on_after(breakdowns.note(bound, life)):
                            await stopping.wait()
                    if stopping.is_set():
                        break
                    server = await _listen_again(bound, options, credentials, loop)
                life.grace = await _drain(apis, limit, options.grace)
                life.ending.set()
            # No answer leaves any more, so whatever is still running has no purpose.
            calls.cancel_scope.cancel()
    finally:
        trio_asyncio.current_loop.reset(outer_loop)


def _tell_nobody(_peer: str) -> None:
    pass


async def _drain(apis: Sequence[Api], limit: CallLimit, grace: float) -> float:
    """Release what is held, let clients say goodbye, and turn the others away.

    Give what is left of the grace.
    """
    idle = limit.is_idle(_SILENCE)
    for api in apis:
        api.holds.release()
    with trio.move_on_after(grace) as scope:
        for api in apis:
            await api.drain()
    if not idle:
        await _turn_away(limit, scope.deadline - trio.current_time())
    return max(0.0, scope.deadline - trio.current_time())


async def _turn_away(limit: CallLimit, grace: float) -> None:
    """Refuse calls until hardly any come.

    What grpc has and no handler has seen when it stops, it ends with CANCELLED: on a busy machine
    every second call of clients that make one after the other. Flower's nodes try again after
    UNAVAILABLE alone.
    """
    limit.close()
    quiet, thread = 0, trio.CapacityLimiter(1)
    for _ in range(round(min(_TURNING_AWAY, grace) / _LOOK_EVERY)):
        before = limit.turned_away
        # By the clock of the world, as grpc's own threads go by it.
        await trio.to_thread.run_sync(
            time.sleep, _LOOK_EVERY, abandon_on_cancel=True, limiter=thread
        )
        quiet = quiet + 1 if limit.turned_away == before else 0
        if quiet == _QUIET_LOOKS:
            return


async def _listen(
    addresses: Sequence[Address],
    options: GrpcOptions,
    credentials: MakeCredentials | None,
    loop: TrioEventLoop,
) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=options.channel_arguments())
    try:
        return server, bind(server, addresses, credentials)
    except AddressError:
        # The first of two addresses may be bound by now, and a server that has never been started
        # keeps it for ever.
        with trio.CancelScope(shield=True):
            await loop.run_aio_coroutine(server.start())
            await loop.run_aio_coroutine(server.stop(None))
        raise


async def _listen_again(
    address: Address,
    options: GrpcOptions,
    credentials: MakeCredentials | None,
    loop: TrioEventLoop,
) -> grpc.aio.Server:
    # grpc closes the listening sockets of the server that broke in a thread, and does not say when.
    deadline = trio.current_time() + _SOCKETS_CLOSED
    while True:
        try:
            server, _port = await _listen(
                await resolve(address, shared=options.shared), options, credentials, loop
            )
        except AddressError:
            if trio.current_time() > deadline:
                raise
            await trio.sleep(0.01)
        else:
            return server


@attrs.define(eq=False)
class _Life:
    """One of grpc's servers, as those see it who start it and who run it."""

    grace: float
    """Seconds that its calls have to end, once it is asked to."""
    began: float = attrs.field(factory=trio.current_time)
    ending: trio.Event = attrs.field(factory=trio.Event)
    """Set to stop it."""
    broken: trio.Event = attrs.field(factory=trio.Event)
    """Set when it has stopped serving by itself."""
    error: Exception | None = None

    def breaks(self, error: Exception) -> None:
        self.error = error
        self.broken.set()


@attrs.define(eq=False)
class _Breakdowns:
    """Tells of servers that broke down, and how long to wait before another takes the place."""

    _throttle: Throttle = attrs.field(factory=lambda: Throttle(_log))
    _pause: float = 0.0

    def note(self, address: Address, life: _Life) -> float:
        """Log a breakdown; return the seconds to wait."""
        self._throttle.log(
            *(logging.ERROR, address),
            "a call has broken the gRPC server on %s, and another takes its place: if this goes on,"
            " keep strangers from that port (%s: %s)",
            *(address, type(life.error).__name__, life.error),
        )
        pause = 0.0 if trio.current_time() - life.began >= _CALM else self._pause
        self._pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return pause


async def _serve_one(
    server: grpc.aio.Server,
    life: _Life,
    loop: TrioEventLoop,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Run one of grpc's servers until it is asked to end, and its calls have ended."""
    try:
        # Not to be cancelled: grpc cannot stop a server that has started by half.
        with trio.CancelScope(shield=True):
            await loop.run_aio_coroutine(_start(server, life.breaks, loop))
        task_status.started()
        await life.ending.wait()
    finally:
        await _stop(server, life.grace, loop)


async def _start(
    server: grpc.aio.Server, broke: Callable[[Exception], None], loop: TrioEventLoop
) -> None:
    """Start a server; `broke` is told of the error that ends it (asyncio-flavored).

    grpc reads a call's name before anything protects it: one call whose path is not UTF-8, from
    anybody who can connect, ends the task that accepts calls. The server is deaf from then on, and
    only that task's end tells. grpc would write two tracebacks, and its stop would end before the
    calls have: so it does not get to see the error.
    """
    accepting: list[asyncio.Task[None]] = []

    def create(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None], **options: Any
    ) -> asyncio.Task[None]:
        accepting.append(asyncio.Task(_guarded(coroutine, broke), loop=loop, **options))
        return accepting[-1]

    await _begin(server.start(), create, loop)
    [_] = accepting


async def _guarded(
    accepting: Coroutine[Any, Any, None], broke: Callable[[Exception], None]
) -> None:
    try:
        await accepting
    except Exception as error:
        broke(error)


@types.coroutine
def _begin(
    starting: Coroutine[Any, Any, None], create: Any, loop: TrioEventLoop
) -> Generator[Any, Any, None]:
    """Await `starting`; the tasks of its first step are made by `create`.

    That step is run right here. Left to the loop, it might be among others that create tasks.
    """
    steps = starting.__await__()
    usual = loop.get_task_factory()
    loop.set_task_factory(create)
    try:
        waiting_for = next(steps)
    finally:
        loop.set_task_factory(usual)
    yield waiting_for
    yield from steps


async def _stop(server: grpc.aio.Server, grace: float, loop: TrioEventLoop) -> None:
    """Stop gracefully; cancelled, in a hurry. It has stopped then, too.

    One stop of grpc's waits for the calls, and another one cancels them. The first is never
    cancelled: it would cancel what the two wait for. And it has no grace of its own: where that is
    over in the moment in which the other one is done, grpc cancels the calls of a server that is no
    more, which is a crash of the process.
    """
    stop: asyncio.Task[None] = loop.create_task(server.stop(_UNLIMITED))
    stopped = trio.Event()
    stop.add_done_callback(lambda _: stopped.set())
    patience = _LAST_ANSWERS
    try:
        with trio.move_on_after(grace):
            await stopped.wait()
        patience = 0.0
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(patience):
                await stopped.wait()
            if not stop.done():
                await loop.run_aio_coroutine(server.stop(None))
                await stopped.wait()
    if (error := stop.exception()) is not None:
        _log.error("a gRPC server did not stop gracefully", exc_info=error)


async def _either(*events: trio.Event) -> None:
    async def wait(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event)
