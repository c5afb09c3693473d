"""An HTTP server as a supervised service."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import trio

from superlink_trio.config.address import Address
from superlink_trio.transport.http.budget import Budget
from superlink_trio.transport.http.calls import Calls
from superlink_trio.transport.http.connection import Connection, Service
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.site import Site
from superlink_trio.transport.http.strangers import Strangers
from superlink_trio.transport.http.watch import Watch
from superlink_trio.transport.listening import AddressError, fitting, look_up

_log = logging.getLogger(__name__)

# How long it has to be quiet before connections without a call are closed under busy clients, in
# seconds: the time between an answer and the request that follows it.
_QUIET = 0.05

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def serve_http(
    site: Site,
    address: Address,
    *,
    sockets: Sequence[socket.socket] = (),
    tls: Callable[[], ssl.SSLContext] | None = None,
    options: HttpOptions,
    stopping: trio.Event,
    task_status: trio.TaskStatus[Address],
) -> None:
    """Serve an application over HTTP/1.1 until `stopping` is set, then stop gracefully.

    Stopping: held calls are released, clients that stop as well may say goodbye (see `Site.drain`),
    then no new connections are taken. `options.grace` seconds after its beginning every connection
    is closed, which cancels the calls that are left. Whatever clients do, this returns a moment
    later. If this function is cancelled instead, calls are cancelled at once, and what they held
    goes back before it raises.

    `tls` gives the context for each new connection, so that another one can take its place; None
    serves plain HTTP. `sockets` listen already: if there are any, they are served, and `address` is
    not bound. They stay open, so that whoever connects later waits for who serves them next.
    `task_status` gets the address with the port that was really bound.

    Raises ValueError for a malformed address, AddressError if it cannot be listened on. A
    KeyboardInterrupt, SystemExit or other BaseException out of a handler is raised from here, in
    a group.
    """
    listeners = _listeners(sockets) if sockets else await listen(address)
    service = Service(
        site.app, options, Calls(), Budget(options.room), Watch(), stopping, Strangers()
    )
    server = _Server(service, tls)
    async with trio.open_nursery() as watching, trio.open_nursery() as connections:
        try:
            watching.start_soon(service.watch.run)
            async with trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, handler_nursery=connections)
                accepting.start_soon(accept, server.serve, listeners)
                task_status.started(_bound(address, listeners))
                await stopping.wait()
                site.release()
                # Flower's nodes open a connection for each call, so those still have their say.
                with trio.move_on_after(options.grace) as parting:
                    await site.drain()
                accepting.cancel_scope.cancel()
            await server.stop(max(0.0, parting.deadline - trio.current_time()))
        finally:
            server.abort()
            watching.cancel_scope.cancel()


def _listeners(sockets: Sequence[socket.socket]) -> list[trio.SocketListener]:
    # Copies: a server that is started again needs them once more.
    return [trio.SocketListener(trio.socket.from_stdlib_socket(each.dup())) for each in sockets]


async def listen(address: Address) -> list[trio.SocketListener]:
    """Listen on every address that `address` stands for, all with the same port.

    Raises ValueError for a malformed address, AddressError if it cannot be listened on.
    """
    listeners: list[trio.SocketListener] = []
    absent: OSError | None = None
    port = address.port
    for *_, where in await look_up(address):
        try:
            listeners += await trio.open_tcp_listeners(port, host=str(where[0]))
        except OSError as error:
            if error.errno in _ABSENT:
                absent = error  # a machine without IPv6 may still know localhost as ::1
                continue
            for listener in listeners:
                await listener.aclose()
            raise AddressError.because(address, error) from error
        port = listeners[0].socket.getsockname()[1]
    if absent is not None and not listeners:
        raise AddressError.because(address, absent) from absent
    return listeners


def _bound(address: Address, listeners: Sequence[trio.SocketListener]) -> Address:
    names = [listener.socket.getsockname() for listener in listeners]
    bound = [Address(host, port) for host, port, *_ in names]
    return Address(address.host, bound[0].port, bound=bound)


class _Server:
    """The connections of a server."""

    def __init__(self, service: Service, tls: Callable[[], ssl.SSLContext] | None) -> None:
        self._service = service
        self._tls = tls
        self._connections: set[Connection] = set()
        self._per_host: Counter[str] = Counter()
        self._limit = fitting(service.options.max_connections)
        self._closed = False

    async def serve(self, transport: trio.SocketStream) -> None:
        """Serve one connection, and let nothing that it does reach the others."""
        host = _host(transport)
        if self._closed:
            # Accepted a moment before the end.
            transport.socket.close()
            return
        per_host = self._service.options.max_connections_per_address
        full = len(self._connections) >= self._limit
        if full or (per_host is not None and self._per_host[host] >= per_host):
            # Closed without an answer: Flower's clients try that again, and nothing else.
            _log.debug("too many connections: one from %s is closed", host)
            transport.socket.close()
            return
        context = None if self._tls is None else _prepared(self._tls())
        connection = Connection(transport, self._service, context, host)
        self._connections.add(connection)
        self._service.watch.watched.add(connection)
        self._per_host[host] += 1
        try:
            await connection.run()
        except* Exception as errors:
            _log.error("a connection from %s failed", host, exc_info=errors)
        finally:
            self._connections.discard(connection)
            self._service.watch.watched.discard(connection)
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    async def stop(self, grace: float) -> None:
        """Let the calls under way end, within `grace` seconds."""
        with trio.move_on_after(grace):
            await self._quiet()

    def abort(self) -> None:
        """Close every socket at once, those that are accepted still included."""
        self._closed = True
        for connection in self._connections:
            connection.abort()

    async def _quiet(self) -> None:
        """Wait until no call is under way and none follows."""
        while self._connections:
            await self._service.calls.ended()
            begun = self._service.calls.begun
            await trio.sleep(_QUIET)
            if self._service.calls.begun == begun:
                return


def _host(transport: trio.SocketStream) -> str:
    try:
        return str(transport.socket.getpeername()[0])
    except OSError:
        return "a client that is gone"


def _prepared(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    if context.minimum_version < ssl.TLSVersion.TLSv1_2:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
