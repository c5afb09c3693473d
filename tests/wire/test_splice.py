from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import Malformed, header, split


def test_values_and_the_rest_are_separated_in_order() -> None:
    message = pb.Task(task_type="train", recordset=b"weights", ttl=3.0, ancestry=["a", "b"])
    values, rest = split(memoryview(message.SerializeToString()), 9)
    assert [bytes(value) for value in values] == [b"weights"]
    assert pb.Task.FromString(rest) == pb.Task(task_type="train", ttl=3.0, ancestry=["a", "b"])


def test_a_field_of_another_wire_type_is_left_where_it_is() -> None:
    varint = bytes([9 << 3 | 0, 5])
    assert split(memoryview(varint), 9) == ([], varint)


@given(st.binary(max_size=300), st.integers(1, 1000))
def test_a_header_and_its_value_are_one_field(value: bytes, number: int) -> None:
    values, rest = split(memoryview(header(number, len(value)) + value), number)
    assert [bytes(found) for found in values] == [value]
    assert rest == b""


@given(st.binary(max_size=200), st.integers(1, 12))
def test_any_bytes_are_either_split_without_loss_or_refused(raw: bytes, number: int) -> None:
    try:
        values, rest = split(memoryview(raw), number)
    except Malformed:
        return
    assert sum(map(len, values)) + len(rest) <= len(raw)
    assert split(memoryview(rest), number) == ([], rest)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x00", "number 0"),
        (b"\x0a\x05ab", "cut off"),
        (b"\x09\x01", "cut off"),
        (b"\x0d\x01", "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x0a", "no end"),
        (b"\x88\x80\x80\x80\x80\x01\x01", "no end"),
        (b"\x88\x80\x80\x80\x10\x01", "number 536870913"),
        (b"\x0a\x81\x80\x80\x80\x80\x00x", "no end"),
        (b"\x08" + b"\xff" * 11, "no end"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        split(memoryview(raw), 1)
