"""A gRPC server as a supervised service."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import attrs
import grpc
import grpc.aio
import trio
import trio_asyncio  # type: ignore[import-untyped]  # ships no types

from superlink_trio.address import Address
from superlink_trio.rpc import Api
from superlink_trio.transport.grpc.calls import generic_handler
from superlink_trio.transport.grpc.listen import AddressError, bind, resolve
from superlink_trio.transport.grpc.loop import TrioEventLoop

# How long answers that are ready may take to leave when a server stops in a hurry, in seconds.
_LAST_ANSWERS = 0.1


@attrs.frozen(kw_only=True)
class GrpcOptions:
    """How a gRPC server behaves. Times are in seconds."""

    max_message_length: int = 536_870_912
    """Bytes of the largest message taken or sent; Flower's clients have the same limit."""
    grace: float = 10.0
    """How long calls may go on once the server is asked to stop."""
    keepalive_time: float = 210.0
    """A connection with calls that was silent for this long is pinged. Load balancers of the large
    clouds drop connections after 4 minutes of silence."""
    keepalive_timeout: float = 20.0
    """A ping that is not answered in this time ends the connection and its calls. So an answer to a
    client that has stopped reading is given up after at most the sum of both."""

    def channel_arguments(self) -> list[tuple[str, int]]:
        """The options in grpc's terms.

        Source: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
        """
        return [
            ("grpc.max_send_message_length", self.max_message_length),
            ("grpc.max_receive_message_length", self.max_message_length),
            ("grpc.keepalive_time_ms", round(self.keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout * 1000)),
            # Has a timeout of its own, a minute, which is the one that counts otherwise.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive_timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 0),
            # A held call sends no data for longer than two pings.
            ("grpc.http2.max_pings_without_data", 0),
            # Two servers would share a port silently.
            ("grpc.so_reuseport", 0),
        ]


async def serve_grpc(
    apis: Sequence[Api],
    address: Address,
    *,
    loop: TrioEventLoop,
    options: GrpcOptions,
    credentials: grpc.ServerCredentials | None = None,
    stopping: trio.Event,
    task_status: trio.TaskStatus[Address],
) -> None:
    """Serve APIs over gRPC until `stopping` is set, then stop gracefully.

    Stopping: new calls are refused (UNAVAILABLE), held calls are released, calls in flight have
    `options.grace` seconds to end and are cancelled then. Returns when the handlers of all calls
    have ended. If this function is cancelled instead, calls are cancelled at once, and what
    they held goes back before it raises.

    `loop` comes from `open_loop` and has to stay open until this has returned. `credentials` turn
    TLS on. `task_status` gets the address with the port that was really bound.

    Raises ValueError for a malformed address, AddressError if it cannot be listened on. A
    KeyboardInterrupt, SystemExit or other BaseException out of a handler is raised from here, in
    a group, after that call was answered.
    """
    addresses = await resolve(address)
    outer_loop = trio_asyncio.current_loop.set(loop)
    try:
        server = grpc.aio.server(options=options.channel_arguments())
        port = await _bind(server, addresses, credentials, loop)
        async with trio.open_nursery() as calls:
            server.add_generic_rpc_handlers([generic_handler(api, calls, loop) for api in apis])
            try:
                await _shielded(loop, server.start())
                task_status.started(Address(address.host, port))
                await stopping.wait()
                for api in apis:
                    api.holds.release()
                await _stop(server, options.grace, loop)
            finally:
                await _shielded(loop, server.stop(_LAST_ANSWERS))
            # No answer leaves any more, so whatever is still running has no purpose.
            calls.cancel_scope.cancel()
    finally:
        trio_asyncio.current_loop.reset(outer_loop)


async def _bind(
    server: grpc.aio.Server,
    addresses: Sequence[Address],
    credentials: grpc.ServerCredentials | None,
    loop: TrioEventLoop,
) -> int:
    try:
        return bind(server, addresses, credentials)
    except AddressError:
        # The first of two addresses may be bound by now, and a server that has never been started
        # keeps it for ever.
        await _shielded(loop, server.start())
        await _shielded(loop, server.stop(None))
        raise


async def _shielded(loop: TrioEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    """Start or stop a server, which grpc cannot take back when it is half done."""
    with trio.CancelScope(shield=True):
        await loop.run_aio_coroutine(coroutine)


async def _stop(server: grpc.aio.Server, grace: float, loop: TrioEventLoop) -> None:
    """Stop gracefully. May be cancelled, and wants another, shorter stop() then.

    That takes over, but only as long as the first one is left alone: cancelled, it would cancel
    what the two wait for. So the wait is cancelled, and not the stop.
    """
    stop: asyncio.Task[None] = loop.create_task(server.stop(grace))
    stopped = trio.Event()
    stop.add_done_callback(lambda _: stopped.set())
    await stopped.wait()
    stop.result()
