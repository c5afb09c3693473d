"""HTTP/2 frame by frame, for those who choose every byte.

Source: RFC 9113, RFC 7541, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum

import hpack
from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST_FRAME = 16_384
LARGEST_WINDOW = 2**31 - 1
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 0x1, 0x4

_HEAD = 9


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


def grpc_fields(call: str, *, scheme: bytes = b"http") -> list[tuple[bytes, bytes]]:
    """Give the header fields of a call of the Fleet API."""
    return [
        (b":method", b"POST"),
        (b":scheme", scheme),
        (b":path", f"/flwr.proto.Fleet/{call}".encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]


def grpc_message(message: bytes, *, compressed: bool = False) -> bytes:
    """Give the bytes that carry a message in DATA frames."""
    return struct.pack("!?I", compressed, len(message)) + message


def take_frames(buffer: bytearray) -> Iterator[tuple[int, int, bytes]]:
    """Take the whole frames out of what was received: kind, flags, payload."""
    while len(buffer) >= (end := _HEAD + int.from_bytes(buffer[:3], "big")):
        kind, flags, payload = buffer[3], buffer[4], bytes(buffer[_HEAD:end])
        del buffer[:end]
        yield kind, flags, payload
