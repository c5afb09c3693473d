"""One connection: HTTP/1.1 between a socket and an ASGI application.

    Connection        a socket: handshake, writing, closing
    ├── _read         bytes in, to the protocol, which says when a request begins; the client's end
    └── _answer       one request after the other, each to the application

A connection has no timer. It says until when it may be as it is (`deadline`), and its server ends
it when that has passed.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Iterator
from contextlib import suppress

import attrs
import trio
from starlette.types import ASGIApp, Message, Scope, Send

from superlink_trio.transport.http.arrival import Arrival
from superlink_trio.transport.http.budget import Budget, Full
from superlink_trio.transport.http.calls import Calls
from superlink_trio.transport.http.exchange import Exchange
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.protocol import INTERIM, Http11
from superlink_trio.transport.http.site import ClientGone
from superlink_trio.transport.http.strangers import Strangers
from superlink_trio.transport.http.watch import Watch

_log = logging.getLogger(__name__)

# Bytes read at a time: where a body is known to be on its way, and before that.
_LARGE, _SMALL = 65_536, 16_384

# Large answers leave in pieces of this many bytes: each has its own deadline, and encrypting one
# takes no time worth mentioning.
_PIECE = 65_536

# Seconds for which a client that was answered early may go on sending: closing at once would make
# its system throw away an answer that it has not read yet.
_LINGER = 1.0

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)


@attrs.frozen
class Service:
    """What all connections of a server share."""

    app: ASGIApp
    options: HttpOptions
    calls: Calls
    bodies: Budget
    watch: Watch
    stopping: trio.Event
    strangers: Strangers
    joining: trio.Lock = attrs.field(factory=trio.Lock)
    """Held by who copies a large request."""


class Connection:
    """A connection that was accepted. `run` it once; it is closed when that returns."""

    def __init__(
        self,
        transport: trio.SocketStream,
        service: Service,
        tls: ssl.SSLContext | None,
        host: str,
    ) -> None:
        self._service = service
        self._host = host
        self._silent = True  # nothing was read yet
        self._options = service.options
        self.deadline = math.inf
        """When it is to be aborted, unless something happens before."""
        self._wait(self._options.request_timeout)
        self._tls = tls is not None
        self._transport = transport
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        if tls is not None:
            self._stream = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        self._protocol: Http11
        self._tasks: trio.CancelScope
        self._arrival: Arrival | None = None
        self._held = 0  # bytes of the budget
        self._newest: Exchange | None = None  # whose request is read now, or was read last
        self._next: Exchange | None = None  # to be answered
        self._has_next = trio.Event()
        self._written: list[bytes] | None = None  # collects what an answer is made of
        self._answering = False
        self._follows = False  # an answer that goes on as long as somebody is there
        self._over = self._aborted = self._linger = False

    async def run(self) -> None:
        """Serve the connection until either side closes it.

        Raises, in a group, what nobody expected and what concerns the whole program.
        """
        try:
            if await self._shake_hands():
                await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort()
        finally:
            await self._close()
            self._release()

    def abort(self) -> None:
        """Close the socket at once. Whoever reads from or writes to it is told."""
        self._aborted = True
        self._transport.socket.close()

    @property
    def seconds_left(self) -> float:
        """When the request that is on its way will be here, as far as can be told."""
        return 0 if self._arrival is None else self._arrival.seconds_left

    def give_way(self) -> None:
        """Close the connection without an answer: Flower's clients try that again."""
        self.abort()
        self._release()

    def begin(self, scope: Scope, respond: Send) -> Send:
        """Begin to answer a request whose head is here; give what takes its body."""
        self._arrival = None
        exchange = Exchange(
            scope, respond, self, self._options.max_message_size, self._service.joining
        )
        self._newest = self._next = exchange
        self._has_next.set()
        return exchange.put

    async def write(self, data: bytes) -> None:
        """Write what the protocol has to say; parts of an answer are collected."""
        if self._written is None:
            await self._write(data)
        else:
            self._written.append(data)

    def end(self) -> None:
        """Note that the protocol has come to its end."""
        self._over = True
        if self._written is None:
            self._linger = True  # it ends with an error

    async def send(self, exchange: Exchange, message: Message) -> None:
        """Send a part of an answer; return when the system has it. Raises ClientGone."""
        if exchange.answered:
            return  # what failed after the answer is not told as well
        if message["type"] == INTERIM:
            await exchange.respond(message)
            return
        if message["type"] == "http.response.start":
            if self._service.stopping.is_set() or not exchange.ended:
                headers = [*message["headers"], (b"connection", b"close")]
                message = {**message, "headers": headers}
            self._answering = True
            self._linger = not exchange.ended
            # Leaves with what follows.
            self._written = []
            await exchange.respond(message)
            return
        follows = self._follows = bool(message.get("more_body"))
        for piece, more in _pieces(message["body"]):
            self._written = self._written or []
            part = {"type": message["type"], "body": piece, "more_body": more or follows}
            await exchange.respond(part)
            written, self._written = b"".join(self._written), None
            if not written:
                raise ClientGone  # it broke the protocol in the meantime
            await self._write(written)
        exchange.answered = not follows

    def received(self) -> None:
        """Note that a request is here."""
        self.deadline = math.inf
        self._arrival = None
        self._service.bodies.discard(self)

    async def _shake_hands(self) -> bool:
        if isinstance(self._stream, trio.SSLStream):
            try:
                await self._stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                _log.debug("a TLS handshake failed: %s", error.__cause__ or error)
                self._service.strangers.handshake_failed(self._host, error.__cause__)
                self.abort()
                return False
            self._wait(self._options.request_timeout)
        return True

    async def _serve(self) -> None:
        socket = self._transport.socket
        self._protocol = Http11(
            self,
            max_header_size=self._options.max_header_size,
            tls=self._tls,
            client=socket.getpeername()[:2],
            server=socket.getsockname()[:2],
        )
        try:
            async with trio.open_nursery() as tasks:
                self._tasks = tasks.cancel_scope
                tasks.start_soon(self._read)
                await self._answer()
                tasks.cancel_scope.cancel()
        except BaseException:
            self.abort()
            raise

    async def _read(self) -> None:
        while not self._over:
            on_its_way = self._newest is not None and not self._newest.ended
            try:
                data = await self._stream.receive_some(_LARGE if on_its_way else _SMALL)
                if not data:
                    if self._silent and self._agreed_on_nothing:
                        self._service.strangers.hung_up(self._host)
                    break
                if self._silent:
                    self._silent = False
                    self._service.strangers.began(self._host, data)
                self._service.bodies.take(len(data), self)
            except Full:
                self.give_way()
                break
            except _GONE as error:
                if self._silent:
                    # With TLS 1.3 a client may object once the handshake is over for this side.
                    self._service.strangers.handshake_failed(self._host, error.__cause__)
                break
            self._held += len(data)
            if self._newest is None and self._arrival is None:
                head = trio.current_time() + self._options.request_timeout
                self._wait_until(min(self.deadline, head))
            await self._protocol.receive(bytes(data))
            self._note(len(data))
        self._over = True
        if not self._answering or self._follows:
            # Nobody is there any more to whom an answer would be of use.
            self._tasks.cancel()

    @property
    def _agreed_on_nothing(self) -> bool:
        stream = self._stream
        return isinstance(stream, trio.SSLStream) and stream.selected_alpn_protocol() is None

    def _note(self, size: int) -> None:
        """Count bytes of a request that has begun and is not here yet."""
        request = self._newest
        if self._aborted or (request is not None and request.ended):
            return
        if self._arrival is None:
            self._arrival = Arrival(self._options.request_timeout, self._options.min_body_rate)
            self._service.bodies.add(self)
        self._arrival.note(size)
        if request is not None:
            self._arrival.size = request.length
            self._wait_until(self._arrival.deadline)

    async def _answer(self) -> None:
        while not self._over:
            if self._next is None:
                self._has_next = trio.Event()
                await self._has_next.wait()
            exchange, self._next = self._next, None
            assert exchange is not None
            self._service.calls.begin()
            try:
                await self._service.app(exchange.scope, exchange.receive, exchange.send)
            except ClientGone:
                self.abort()
            except Exception:
                _log.exception("an answer failed")
            finally:
                self._service.calls.end()
            if not exchange.answered or self._aborted:
                # Without an answer there is nothing but the end that the client would understand.
                self.abort()
                return
            self._answering = False
            self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        """Give back what a request took, and keep what has come after it."""
        kept = self._protocol.unread
        if self._newest is exchange:
            self._newest = None
            self._wait(self._options.keep_alive)
        elif self._newest is not None:
            kept += self._newest.received
        self._service.bodies.give_back(self._held - kept)
        self._held = kept

    def _release(self) -> None:
        self._service.bodies.discard(self)
        self._service.bodies.give_back(self._held)
        self._held = 0

    async def _write(self, data: bytes) -> None:
        before = self.deadline
        self._wait(self._options.write_timeout)
        try:
            await self._stream.send_all(data)
        except _GONE:
            self.abort()
            raise ClientGone from None
        self._wait_until(before)

    def _wait(self, seconds: float) -> None:
        self._wait_until(trio.current_time() + seconds)

    def _wait_until(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self._service.watch.until:
            self._service.watch.sooner(deadline)

    async def _close(self) -> None:
        if not self._aborted:
            with (
                trio.CancelScope(shield=True, deadline=trio.current_time() + _LINGER),
                # The client may close it first.
                suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                if self._linger:
                    await self._transport.send_eof()
                    while await self._transport.receive_some(_SMALL):
                        pass
                await self._stream.aclose()
        self.abort()


def _pieces(body: bytes) -> Iterator[tuple[bytes | memoryview, bool]]:
    """Cut a body up; say of each piece whether there are more."""
    if len(body) <= _PIECE:
        yield body, False
        return
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        yield view[start : start + _PIECE], start + _PIECE < len(body)
