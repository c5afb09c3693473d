"""Cut payloads out of serialised messages and put them back in, without parsing them.

A payload is most of a message (model weights: up to 512 MiB). Parsing the message with protobuf
would copy it twice; here it is copied once on its way in and once on its way out.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10

Buffer: TypeAlias = bytes | memoryview


class Malformed(ValueError):
    """Bytes that are no serialised message of the expected kind."""


def split(message: memoryview, number: int) -> tuple[list[memoryview], bytes]:
    """Separate the length-delimited fields with this number from everything else.

    Returns their values in order, as views into `message`, and the other fields' bytes joined.
    Raises Malformed where `message` is not a sequence of whole fields.
    """
    wanted = number << 3 | _LENGTH_DELIMITED
    values: list[memoryview] = []
    others: list[memoryview] = []
    kept_from = 0
    for tag, start, value_from, end in _fields(message):
        if tag == wanted:
            values.append(message[value_from:end])
            others.append(message[kept_from:start])
            kept_from = end
    others.append(message[kept_from:])
    return values, b"".join(others)


def find(message: memoryview, number: int) -> list[memoryview]:
    """Give the values of the length-delimited fields with this number, like `split`.

    Nothing is copied, however large the other fields are. Raises Malformed.
    """
    wanted = number << 3 | _LENGTH_DELIMITED
    return [message[begin:end] for tag, _, begin, end in _fields(message) if tag == wanted]


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Walk over the fields: each one's tag, where it starts, where its value does, its end."""
    position, length = 0, len(message)
    while position < length:
        start = position
        tag, position = _varint(message, position)
        wire_type = tag & 7
        value_from = position
        if tag >> 3 == 0:
            raise Malformed("a field has the number 0")
        if wire_type == _LENGTH_DELIMITED:
            size, value_from = _varint(message, position)
            position = value_from + size
        elif wire_type == _VARINT:
            _, position = _varint(message, position)
        elif wire_type in _FIXED_SIZES:
            position += _FIXED_SIZES[wire_type]
        else:
            raise Malformed(f"wire type {wire_type} is not used by proto3")
        if position > length:
            raise Malformed("the last field is cut off")
        yield tag, start, value_from, position


def header(number: int, length: int) -> bytes:
    """Give the tag and length that stand before a length-delimited field's value."""
    return _encode_varint(number << 3 | _LENGTH_DELIMITED) + _encode_varint(length)


def wrap(number: int, parts: list[Buffer]) -> list[Buffer]:
    """Make one length-delimited field of the parts; they are joined later, all at once."""
    return [header(number, sum(map(len, parts))), *parts]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    for byte in message[position : position + _MAX_VARINT_BYTES]:
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise Malformed("a number has no end")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
