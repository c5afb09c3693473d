"""HTTP/2 frame by frame, for those who choose every byte.

Source: RFC 9113, RFC 7541, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import hpack
from hyperframe.frame import DataFrame, Frame, HeadersFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HEAD = 9


def serialized(pieces: Iterable[Frame | bytes]) -> bytes:
    """Give the bytes of frames, and of what is none."""
    return b"".join(each if isinstance(each, bytes) else each.serialize() for each in pieces)


def take_frames(buffer: bytearray) -> Iterator[Frame]:
    """Take the whole frames out of what was received."""
    while len(buffer) >= _HEAD:
        frame, length = Frame.parse_frame_header(memoryview(bytes(buffer[:_HEAD])))
        if len(buffer) < _HEAD + length:
            return
        frame.parse_body(memoryview(bytes(buffer[_HEAD : _HEAD + length])))
        del buffer[: _HEAD + length]
        yield frame


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


def grpc_head(length: int, compressed: bool = False) -> bytes:
    """Give what comes before a message of so many bytes in DATA frames."""
    return struct.pack("!?I", compressed, length)


def grpc_message(message: bytes) -> bytes:
    """Give the bytes that carry a message in DATA frames."""
    return grpc_head(len(message)) + message


def grpc_call(stream: int, fields: Sequence[tuple[bytes, bytes]], message: bytes) -> list[Frame]:
    """Give the frames of a whole call."""
    return [
        HeadersFrame(stream, block(fields), flags=["END_HEADERS"]),
        DataFrame(stream, grpc_message(message), flags=["END_STREAM"]),
    ]
