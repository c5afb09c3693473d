"""HTTP clients for tests: they speak their protocol byte by byte, well or badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import h11
import trio

from superlink_trio.address import Address

PROTOBUF = (("content-type", "application/protobuf"), ("accept", "application/protobuf"))
FLEET = "/api/v0/fleet/"

Fields = Iterable[tuple[str, str]]


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        """The problem document that this is."""
        assert self.headers["content-type"] == "application/problem+json"
        document = json.loads(self.body)
        assert document["status"] == self.status
        return document


def head(method: str, path: str, length: int | None = 0, headers: Fields = PROTOBUF) -> bytes:
    """Give the head of an HTTP/1.1 request."""
    fields = [("host", "superlink"), *headers]
    if length is not None:
        fields.append(("content-length", str(length)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode()


class Http1:
    """One HTTP/1.1 connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def post(self, path: str, body: bytes = b"", headers: Fields = PROTOBUF) -> Answer:
        """Send a request and give its answer."""
        await self.send(head("POST", path, len(body), headers) + body)
        return await self.answer()

    async def answer(self, method: str = "POST") -> Answer:
        """Give the next answer. Raises EOFError if the connection ends without."""
        # h11 wants to have sent the request itself.
        request = h11.Request(method=method, target="/", headers=[("host", "superlink")])
        self._h11.send(request)
        self._h11.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = await self.stream.receive_some(65536)
                if not data and not status:
                    raise EOFError
                self._h11.receive_data(bytes(data))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                    self._h11.start_next_cycle()
                return Answer(status, headers, body)

    async def ended(self) -> bytes:
        """Wait for the server to close the connection; give what it still sent."""
        rest = b""
        try:
            while data := await self.stream.receive_some(65536):
                rest += data
        except trio.BrokenResourceError:
            pass
        return rest


class Http2:
    """One HTTP/2 connection, with prior knowledge; answers are collected while it reads."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.events: list[h2.events.Event] = []

    async def open(self) -> Http2:
        """Exchange the prefaces."""
        self.h2.initiate_connection()
        await self.flush()
        return self

    async def flush(self) -> None:
        """Send what h2 has to say."""
        await self.stream.send_all(self.h2.data_to_send())

    async def read(self) -> bool:
        """Read once, and say whether the connection still is."""
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        await self.flush()
        return True

    def start(
        self, path: str, *, end: bool = True, method: str = "POST", headers: Fields = PROTOBUF
    ) -> int:
        """Queue the head of a request; give its stream."""
        stream_id = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "superlink")]
        self.h2.send_headers(stream_id, [*fields, (":path", path), *headers], end_stream=end)
        return stream_id

    async def post(self, path: str, body: bytes = b"") -> Answer:
        """Send a request and give its answer."""
        stream_id = self.start(path, end=False)
        while body:
            window = self.h2.local_flow_control_window(stream_id)
            room = min(window, self.h2.max_outbound_frame_size)
            self.h2.send_data(stream_id, body[:room])
            body = body[room:]
            await self.flush()
            if room == 0:
                await self.read()
        self.h2.end_stream(stream_id)
        await self.flush()
        return await self.answer(stream_id)

    async def answer(self, stream_id: int) -> Answer:
        """Wait for a stream's answer. Raises EOFError if there is none."""
        while True:
            mine = [event for event in self.events if getattr(event, "stream_id", 0) == stream_id]
            if any(isinstance(event, h2.events.StreamEnded) for event in mine):
                break
            if any(isinstance(event, h2.events.StreamReset) for event in mine):
                raise EOFError
            if not await self.read():
                raise EOFError
        [response] = [event for event in mine if isinstance(event, h2.events.ResponseReceived)]
        headers = {str(name): str(value) for name, value in response.headers}
        chunks = [event.data for event in mine if isinstance(event, h2.events.DataReceived)]
        return Answer(int(headers.pop(":status")), headers, b"".join(chunks))

    async def ended(self) -> None:
        """Wait for the server to close the connection."""
        while await self.read():
            pass


async def connect(address: Address) -> trio.SocketStream:
    return await trio.open_tcp_stream(address.host, address.port)


async def connect_tls(
    address: Address, context: ssl.SSLContext, *alpn: str
) -> trio.SSLStream[trio.SocketStream]:
    context.set_alpn_protocols(list(alpn))
    stream = trio.SSLStream(
        await connect(address), context, server_hostname="localhost", https_compatible=True
    )
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream
