"""One connection: Hypercorn's protocol code between a socket and an ASGI application.

Of Hypercorn this uses `H11Protocol` and `H2Protocol`, which turn bytes into requests and answers
into bytes. Its own server is not used: an exception in one connection ends it whole, and it does
not stop in bounded time. These names are not public, so this is the only file that touches them.

    Connection      a socket: handshake, reading with deadlines, writing, closing
    ├── _H11, _H2   Hypercorn's protocols, closed where anybody could break them
    └── _Exchange   one request and its answer: what ASGI calls scope, receive and send
"""

from __future__ import annotations

import logging
import math
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import (
    BUFFER_HIGH_WATER,
    BUFFER_LOW_WATER,
    BufferCompleteError,
    H2Protocol,
    StreamBuffer,
)
from hypercorn.protocol.h11 import STREAM_ID, H2ProtocolAssumedError, H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from starlette.types import ASGIApp, Message

from superlink_trio.transport.http.app import ClientGone
from superlink_trio.transport.http.calls import Calls
from superlink_trio.transport.http.options import HttpOptions
from superlink_trio.transport.http.problems import Problem

logger = logging.getLogger(__name__)

_Fields: TypeAlias = Sequence[tuple[bytes, bytes]]

_READ = 65_536

# Large answers leave in pieces of this many bytes: each has its own deadline, and encrypting one
# takes no time worth mentioning.
_PIECE = 65_536

# Pieces of a request's body that wait for the application before its connection is not read.
_INBOX = 8

# Seconds for which a client that was answered early may go on sending: closing at once would make
# its system throw away an answer that it has not read yet.
_LINGER = 1.0

# HTTP/2 events of one connection that are handled before the other connections have their turn.
_TURN = 32

# HTTP/2 frames that cost work and ask for nothing (pings, settings, resets): how many a connection
# may send in a minute.
_NUISANCES = 1000
_MINUTE = 60.0


class _TooManyNuisances(Exception):
    pass


class Connection:
    """A connection that was accepted. `run` it once; it is closed when that returns."""

    def __init__(
        self,
        transport: trio.SocketStream,
        app: ASGIApp,
        options: HttpOptions,
        calls: Calls,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.app = app
        self.options = options
        self.calls = calls
        self.scheme = "http" if tls is None else "https"
        self.draining = False
        self._transport = transport
        self._stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = transport
        if tls is not None:
            self._stream = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        self._lock = trio.Lock()
        self._reading = trio.CancelScope()
        self._idle = True
        self._aborted = False
        self._linger = False
        self._nursery: trio.Nursery
        self._protocol: _H11 | _H2 = _H11(self)

    async def run(self) -> None:
        """Serve the connection until either side closes it.

        Raises, in a group, what nobody expected and what concerns the whole program.
        """
        try:
            if await self._shake_hands():
                self.client = self._transport.socket.getpeername()[:2]
                self.server = self._transport.socket.getsockname()[:2]
                async with trio.open_nursery() as self._nursery:
                    await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort()
        except* _TooManyNuisances:
            logger.warning("%s: too many HTTP/2 frames that ask for nothing", self.client)
            self.abort()
        finally:
            await self._close()

    def abort(self) -> None:
        """Close the socket at once. Whoever reads from or writes to it is told."""
        self._aborted = True
        self._reading.cancel()
        self._transport.socket.close()

    def drain(self) -> None:
        """Let the connection end after the requests that are under way."""
        self.draining = True

    def close_if_idle(self) -> None:
        """Close the connection if no request is under way on it."""
        if self._idle:
            self._reading.cancel()

    def open_exchange(
        self,
        protocol: _H11 | _H2,
        stream_id: int,
        *,
        version: str,
        method: bytes,
        target: bytes,
        headers: _Fields,
    ) -> _Exchange:
        """Start to answer a request whose first line is ASCII."""
        path, _, query = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": version,
            "method": method.decode("ascii").upper(),
            "scheme": self.scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "state": {},
            "extensions": {},
        }
        exchange = _Exchange(self, protocol, stream_id, scope)
        self._nursery.start_soon(exchange.run)
        return exchange

    def linger(self) -> None:
        """Remember that the client may be sending still when the connection is closed."""
        self._linger = True

    async def write(self, data: bytes) -> None:
        """Hand bytes to the system. Raises ClientGone if it does not take them."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        deadline = trio.current_time() + self.options.write_timeout
        try:
            # Half an answer is of no use to anybody, so a write ends or breaks the connection.
            with trio.CancelScope(shield=True, deadline=deadline) as patience:
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.abort()
            raise ClientGone from None
        finally:
            self._lock.release()
        if patience.cancelled_caught:
            self.abort()
            raise ClientGone

    async def on_event(self, event: ConnectionEvent) -> None:
        """Do what the protocol asks for."""
        if isinstance(event, RawData):
            await self.write(event.data)
        elif isinstance(event, Closed):
            self._reading.cancel()
        elif isinstance(event, Updated):
            self._idle = event.idle
            self._wait(self.options.keep_alive if event.idle else math.inf)
            if event.idle and self.draining and isinstance(self._protocol, _H2):
                self._reading.cancel()

    def spawn(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task of the protocol's (this is Hypercorn's TaskGroup)."""
        self._nursery.start_soon(function, *arguments)

    async def _shake_hands(self) -> bool:
        if isinstance(self._stream, trio.SSLStream):
            try:
                with trio.fail_after(self.options.head_timeout):
                    await self._stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
                logger.debug("a TLS handshake failed: %s", error.__cause__ or error)
                self.abort()
                return False
        return True

    async def _serve(self) -> None:
        try:
            self._wait(self.options.head_timeout)
            if self._speaks_h2():
                await self._switch_to_h2(b"")
            with self._reading:
                await self._read()
            await self._protocol.handle(Closed())
        except BaseException:
            # Frees the writes that are shielded.
            self.abort()
            raise

    def _speaks_h2(self) -> bool:
        stream = self._stream
        return isinstance(stream, trio.SSLStream) and stream.selected_alpn_protocol() == "h2"

    async def _read(self) -> None:
        while True:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if self._idle and isinstance(self._protocol, _H11):
                deadline = trio.current_time() + self.options.head_timeout
                self._reading.deadline = min(self._reading.deadline, deadline)
            try:
                await self._protocol.handle(RawData(bytes(data)))
            except H2ProtocolAssumedError as preface:
                await self._switch_to_h2(preface.data)
            if not data:
                return

    async def _switch_to_h2(self, data: bytes) -> None:
        self._protocol = _H2(self)
        self._wait(self.options.keep_alive)
        await self._protocol.initiate()
        if data:
            await self._protocol.handle(RawData(data))

    def _wait(self, seconds: float) -> None:
        self._reading.deadline = trio.current_time() + seconds

    async def _close(self) -> None:
        if not self._aborted:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LINGER):
                try:
                    if self._linger:
                        await self._transport.send_eof()
                        while await self._transport.receive_some(_READ):
                            pass
                    await self._stream.aclose()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    logger.debug("the client closed the connection first")
        self.abort()


class _Exchange:
    """One request and its answer."""

    # Asked for by Hypercorn's HTTP/2: whether the connection may be closed under this stream.
    idle = False

    def __init__(
        self, connection: Connection, protocol: _H11 | _H2, stream_id: int, scope: dict[str, Any]
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._stream_id = stream_id
        self._asgi_scope = scope
        self._scope = trio.CancelScope()
        self._inbox, self._received = trio.open_memory_channel[Message](_INBOX)
        self.body_ended = False
        self._gone = False
        self._start: Message | None = None
        self._answering = False
        self._answered = False

    async def handle(self, event: StreamEvent) -> None:
        """Take what the protocol has received (this is what Hypercorn calls a stream)."""
        if isinstance(event, StreamClosed):
            self._gone = True
            self.cancel()
        elif isinstance(event, Body):
            await self._put({"type": "http.request", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, EndBody):
            self.body_ended = True
            await self._put({"type": "http.request", "body": b"", "more_body": False})

    async def _put(self, message: Message) -> None:
        with suppress(trio.BrokenResourceError):  # the application needs no more
            try:
                self._inbox.send_nowait(message)
            except trio.WouldBlock:
                await self._inbox.send(message)

    def cancel(self) -> None:
        """Cancel the call, unless its answer is already being written."""
        if not self._answering:
            self._scope.cancel()

    async def run(self) -> None:
        """Let the application answer, and make the connection ready for what comes next."""
        calls = self._connection.calls
        calls.begin(self.cancel)
        try:
            problem = await self._run()
            if problem is not None and not self._gone:
                await self._apologise(problem)
            if not self.body_ended:
                self._connection.linger()
            await self._protocol.stream_send(StreamClosed(self._stream_id))
        except ClientGone:
            self._connection.abort()
        finally:
            calls.end(self.cancel)

    async def _run(self) -> Problem | None:
        """Run the application; if it has not answered, give what is to be said instead."""
        problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.")
        try:
            with self._scope:
                await self._connection.app(self._asgi_scope, self.receive, self.send)
        except ClientGone:
            raise
        except Exception:
            logger.exception("an answer failed")
            problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed to answer.")
        finally:
            self._received.close()
        return None if self._answering else problem

    async def _apologise(self, problem: Problem) -> None:
        await self.send(
            {
                "type": "http.response.start",
                "status": problem.status,
                "headers": problem.headers,
            }
        )
        await self.send({"type": "http.response.body", "body": problem.body})

    async def receive(self) -> Message:
        """Give the next part of the body."""
        try:
            return self._received.receive_nowait()
        except trio.WouldBlock:
            return await self._received.receive()

    async def send(self, message: Message) -> None:
        """Send a part of the answer; return when the system has it.

        Raises ClientGone if it cannot be sent. Is not cancelled once it has begun, but may break.
        """
        if self._answered:
            return
        if self._start is None:
            self._start = message
            return
        if self._gone:
            raise ClientGone
        self._answering = True
        send, stream_id = self._protocol.stream_send, self._stream_id
        headers = self._protocol.response_headers(
            [*self._start["headers"]], close=self._wants_close()
        )
        await send(Response(stream_id, headers, int(self._start["status"])))
        for piece in _pieces(message.get("body", b"")):
            await send(Body(stream_id, piece))
        await send(EndBody(stream_id))
        self._answered = True

    def _wants_close(self) -> bool:
        return self._connection.draining or not self.body_ended


def _pieces(body: bytes) -> Iterator[bytes]:
    if len(body) <= _PIECE:
        if body:
            yield body
        return
    view = memoryview(body)
    for start in range(0, len(body), _PIECE):
        yield view[start : start + _PIECE]  # type: ignore[misc]  # used like bytes, not copied


def _config(options: HttpOptions) -> Config:
    config = Config()
    config.include_server_header = False
    config.h11_max_incomplete_size = options.max_head
    config.h2_max_header_list_size = options.max_head
    config.h2_max_concurrent_streams = options.max_streams
    config.keep_alive_max_requests = sys.maxsize
    return config


def _wiring(owner: Connection) -> dict[str, Any]:
    """What both protocols are made with; some of it only Hypercorn's own streams would use."""
    return {
        "app": None,
        "config": _config(owner.options),
        "context": WorkerContext(None),
        "task_group": owner,
        "connection_state": {},
        "ssl": owner.scheme == "https",
        "client": None,
        "server": None,
        "send": owner.on_event,
    }


class _H11(H11Protocol):
    """HTTP/1.1, without WebSockets and the upgrade to HTTP/2; head and body leave in one write."""

    stream: Any  # an _Exchange in place of Hypercorn's HTTPStream

    def __init__(self, owner: Connection) -> None:
        super().__init__(**_wiring(owner))
        self._owner = owner
        self._head = b""

    def response_headers(
        self, headers: list[tuple[bytes, bytes]], *, close: bool
    ) -> list[tuple[bytes, bytes]]:
        """Add what the protocol has to say in an answer's head."""
        return [*headers, (b"connection", b"close")] if close else headers

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer. Raises ClientGone."""
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            raise H2ProtocolAssumedError(
                b"PRI * HTTP/2.0\r\n\r\n" + self.connection.trailing_data[0]
            )

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = self._owner.open_exchange(
            self,
            STREAM_ID,
            version=request.http_version.decode("ascii"),
            method=request.method,
            target=request.target,
            headers=list(request.headers),
        )
        self.keep_alive_requests += 1

    async def _send_h11_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            # The client broke the protocol while its answer was on the way.
            raise ClientGone from None
        if isinstance(event, h11.Response):
            self._head = _with_reason(data, event.status_code)
            return
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data))

    async def _send_error_response(self, status_code: int) -> None:
        if status_code == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            detail = f"the head is larger than {self._owner.options.max_head} bytes"
        else:
            detail = "these bytes are no HTTP/1.1 request"
        problem = Problem(HTTPStatus(status_code), detail)
        headers = self.response_headers([*problem.headers], close=True)
        self._owner.linger()
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=problem.body))
        await self._send_h11_event(h11.EndOfMessage())


def _with_reason(head: bytes, status: int) -> bytes:
    """Say in words what the status means: HTTP/1.1 allows to leave that out, some readers do not.

    Source: RFC 9112, section 4.
    """
    line, end, fields = head.partition(b"\r\n")
    if not line.endswith(b" "):
        return head
    return line + HTTPStatus(status).phrase.encode() + end + fields


class _Buffer(StreamBuffer):
    """A piece of an answer that waits for the client to make room.

    Hypercorn's asks for the next one when few bytes were taken: of a client that makes no room,
    until the whole answer is here.
    """

    async def push(self, data: bytes) -> None:
        """Add bytes, and wait until most of them were taken."""
        if self._complete:
            raise BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        if len(self.buffer) >= BUFFER_HIGH_WATER:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """Take bytes that may be sent now."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class _H2(H2Protocol):
    """HTTP/2, without CONNECT and priorities; says what became of each answer."""

    streams: dict[int, Any]  # _Exchanges in place of Hypercorn's HTTPStreams

    def __init__(self, owner: Connection) -> None:
        super().__init__(**_wiring(owner))
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: owner.options.max_streams,
                codes.MAX_HEADER_LIST_SIZE: owner.options.max_head,
            },
        )
        self.connection.decoder.max_header_list_size = owner.options.max_head
        self._owner = owner
        self._settled: dict[int, trio.Event] = {}
        self._sent: set[int] = set()
        self._nuisances = 0
        self._minute = trio.current_time()

    def response_headers(
        self, headers: list[tuple[bytes, bytes]], *, close: bool
    ) -> list[tuple[bytes, bytes]]:
        """Add what the protocol has to say in an answer's head: nothing, GOAWAY says it."""
        return headers

    async def handle(self, event: ConnectionEvent) -> None:
        """Take what came from the socket."""
        try:
            await super().handle(event)
        except h2.exceptions.ProtocolError:
            await self.send(Closed())
        if isinstance(event, Closed):
            # Not earlier: to many clients it means that what is under way is lost.
            with suppress(h2.exceptions.ProtocolError):
                self.connection.close_connection()
            await self._flush()

    async def send_task(self) -> None:
        """Send what the flow control allows, as long as the connection is open."""
        try:
            await super().send_task()
        finally:
            for stream_id in list(self.stream_buffers):
                await self._settle(stream_id)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer. Raises ClientGone."""
        stream_id = event.stream_id
        if isinstance(event, StreamClosed):
            self._end_early(stream_id)
            await super().stream_send(event)
            return
        if stream_id not in self.stream_buffers:
            raise ClientGone
        deadline = trio.current_time() + self._owner.options.write_timeout
        with trio.CancelScope(shield=True, deadline=deadline) as patience:
            if isinstance(event, EndBody):
                await self._end(stream_id)
            else:
                await super().stream_send(event)
        if patience.cancelled_caught:
            # The client has given no room for what is left.
            self._owner.abort()
            raise ClientGone

    async def _end(self, stream_id: int) -> None:
        """Wait until the whole answer is written. Raises ClientGone if it never will be."""
        settled = self._settled[stream_id]
        self.stream_buffers[stream_id].set_complete()
        self.priority.unblock(stream_id)
        await self.has_data.set()
        await settled.wait()
        if stream_id not in self._sent:
            raise ClientGone
        self._sent.discard(stream_id)

    def _end_early(self, stream_id: int) -> None:
        """Tell a client that has its answer to stop sending its request."""
        if stream_id not in self.streams or self.streams[stream_id].body_ended:
            return
        with suppress(h2.exceptions.ProtocolError):  # it had ended
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for number, event in enumerate(events, 1):
            self._count(event)
            if number % _TURN == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, h2.events.PriorityUpdated):
                continue
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            else:
                await super()._handle_events([event])
        await self._flush()

    def _count(self, event: h2.events.Event) -> None:
        empty = isinstance(event, h2.events.DataReceived) and not event.data
        if not empty and not isinstance(
            event,
            h2.events.StreamReset
            | h2.events.PingReceived
            | h2.events.RemoteSettingsChanged
            | h2.events.PriorityUpdated,
        ):
            return
        now = trio.current_time()
        if now - self._minute > _MINUTE:
            self._minute, self._nuisances = now, 0
        self._nuisances += 1
        if self._nuisances > _NUISANCES:
            raise _TooManyNuisances

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id, fields = request.stream_id, list(request.headers)
        if self._owner.draining:
            # Says that nothing was done: the request may be sent again, elsewhere.
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        pseudo = {name: value for name, value in fields if name.startswith(b":")}
        headers = [(name, value) for name, value in fields if not name.startswith(b":")]
        if b":authority" in pseudo:
            headers = [field for field in headers if field[0] != b"host"]
            headers.insert(0, (b"host", pseudo[b":authority"]))
        method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if method == b"CONNECT" or not (method + target).isascii():
            self.connection.reset_stream(stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            return
        exchange = self._owner.open_exchange(
            self, stream_id, version="2", method=method, target=target, headers=headers
        )
        self.streams[stream_id] = exchange
        self.stream_buffers[stream_id] = _Buffer(self.context.event_class)
        self._settled[stream_id] = trio.Event()
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        await self._settle(stream_id)

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers[stream_id]
        try:
            window = self.connection.local_flow_control_window(stream_id)
            room = max(0, min(window, self.connection.max_outbound_frame_size))
            data = await buffer.pop(room)
            # The application may complete the answer while this part of it is being written.
            ends = buffer.complete
            if data or ends:
                self.connection.send_data(stream_id, data, end_stream=ends)
                await self._flush()
            else:
                self.priority.block(stream_id)
        except h2.exceptions.ProtocolError:
            await self._settle(stream_id)
        else:
            if ends and stream_id in self.stream_buffers:
                self._sent.add(stream_id)
                await self._settle(stream_id)

    async def _settle(self, stream_id: int) -> None:
        """Forget a stream's answer: it has been sent, or never will be."""
        buffer = self.stream_buffers.pop(stream_id, None)
        if buffer is not None:
            await buffer.close()
            self.priority.remove_stream(stream_id)
            self._settled.pop(stream_id).set()
