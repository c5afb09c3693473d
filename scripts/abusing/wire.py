"""A connection of an attacker, who keeps no rules, and what the server does to it."""

from __future__ import annotations

import re
import ssl
from collections import Counter

import attrs
import trio
from h2.errors import ErrorCodes
from peering.http2 import (
    END_HEADERS,
    END_STREAM,
    Kind,
    block,
    frame,
    grpc_fields,
    grpc_message,
    take_frames,
)

_READ = 65_536
_CONNECT = 10.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


@attrs.frozen
class Target:
    """The Fleet API that is attacked, and what its calls look like."""

    address: str
    rest: bool
    tls: ssl.SSLContext | None
    pull: bytes
    """A PullTaskInsRequest of a node for which large tasks are waiting."""
    idle_pull: bytes
    """A PullTaskInsRequest of an anonymous node, for which there are none: all of them are held."""

    def post(self, path: str, length: int | None) -> bytes:
        """Give the head of a call over REST; None is for a body in chunks."""
        body = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        media = "application/protobuf"
        return (
            f"POST /api/v0/fleet/{path} HTTP/1.1\r\nhost: localhost\r\n{body}\r\n"
            f"content-type: {media}\r\naccept: {media}\r\n\r\n"
        ).encode()

    def fields(self, call: str) -> list[tuple[bytes, bytes]]:
        """Give the header fields of a call over gRPC."""
        return grpc_fields(call, scheme=b"http" if self.tls is None else b"https")

    def call(self, stream: int, call: str, message: bytes) -> bytes:
        """Serialise a whole call: two frames."""
        return frame(Kind.HEADERS, END_HEADERS, stream, block(self.fields(call))) + frame(
            Kind.DATA, END_STREAM, stream, grpc_message(message)
        )


@attrs.define
class Tally:
    """What an attack sent, and what the server did about it."""

    frames: int = 0
    connections: int = 0
    refused_connections: int = 0
    ended: int = 0
    """Connections that the server ended."""
    said: Counter[str] = attrs.field(factory=Counter)
    """GOAWAY and RST_STREAM with their codes, HTTP/1.1 answers with their status."""

    def summary(self) -> str:
        """Say in a few words what the server did."""
        said = [f"{what} ({count:,})" for what, count in self.said.most_common(3)]
        if self.ended:
            said.append(f"ended {self.ended:,} connections")
        if self.refused_connections:
            said.append(f"did not accept {self.refused_connections:,}")
        return ", ".join(said) or "served on"


class Ended(Exception):
    """The server ended the connection."""


@attrs.frozen
class Wire:
    """A connection to a target, whose every byte is the attacker's choice."""

    _stream: trio.abc.Stream
    _tally: Tally

    async def send(self, data: bytes, frames: int) -> None:
        """Send bytes as they are. Raises Ended."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Ended from None
        self._tally.frames += frames

    async def read_frames(self) -> None:
        """Read until the server ends the connection, and note what it says. Raises Ended."""
        buffer = bytearray()
        while True:
            buffer += await self._receive()
            for kind, _, payload in take_frames(buffer):
                if kind == Kind.GOAWAY:
                    self._tally.said[f"GOAWAY {_code(payload[4:8])}"] += 1
                elif kind == Kind.RST_STREAM:
                    self._tally.said[f"reset {_code(payload)}"] += 1

    async def read_text(self) -> None:
        """The same for a connection that speaks HTTP/1.1. Raises Ended."""
        while True:
            for status in _STATUS.findall(await self._receive()):
                self._tally.said[f"answer {status.decode()}"] += 1

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(_READ)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Ended from None
        if not data:
            raise Ended
        return bytes(data)


def _code(payload: bytes) -> str:
    number = int.from_bytes(payload, "big")
    try:
        return ErrorCodes(number).name
    except ValueError:
        return str(number)


async def connect(target: Target) -> trio.SocketStream:
    """Open a TCP connection. Raises OSError."""
    host, _, port = target.address.rpartition(":")
    with trio.fail_after(_CONNECT):
        return await trio.open_tcp_stream(host, int(port))


async def secure(stream: trio.SocketStream, target: Target, protocol: str) -> trio.abc.Stream:
    """Shake hands, where the target speaks TLS. Raises trio.BrokenResourceError."""
    if target.tls is None:
        return stream
    target.tls.set_alpn_protocols([protocol])
    secured = trio.SSLStream(stream, target.tls, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(_CONNECT):
        await secured.do_handshake()
    return secured
