"""HTTP clients for tests: they speak their protocol byte by byte, well or badly."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable
from typing import Any

import attrs
import h11
import trio

from superlink_trio.config.address import Address

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


async def connect(address: Address) -> trio.SocketStream:
    return await trio.open_tcp_stream(address.host, address.port)


async def connect_tls(
    address: Address, context: ssl.SSLContext, *alpn: str
) -> trio.SSLStream[trio.SocketStream]:
    if alpn:
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
