"""Objects: what messages of Flower 1.23 and later say, in parts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire import objects
from superlink_trio.wire.objects import (
    MalformedObject,
    children_of,
    error_reply,
    ids_of,
    make_object,
    object_id_of,
    root_of,
)

A, B, C = (character * 64 for character in "abc")


def tree(object_id: str, *children: pb.ObjectTree) -> pb.ObjectTree:
    return pb.ObjectTree(object_id=object_id, children=children)


def test_an_id_is_the_hash_of_everything() -> None:
    content = make_object("ArrayChunk", b"weights")
    assert content == b"ArrayChunk  7\0weights"
    assert object_id_of(content) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "children"),
    [
        (make_object("ArrayChunk", b"weights"), []),
        (f"Array {A},{B} 2\0xx".encode(), [A, B]),
        (f"Message {A} 0\0".encode(), [A]),
    ],
)
def test_children_stand_in_the_head(content: bytes, children: list[str]) -> None:
    assert children_of(content) == children


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "does not begin with its type"),
        (b"Array  2", "does not begin with its type"),
        (b"  2\0xx", "does not begin with its type"),
        (b"Array  two\0xx", "does not begin with its type"),
        (b"Array  3\0xx", "its head says 3 bytes"),
        (b"Array child 2\0xx", "'child' is no SHA-256"),
        (f"Array {A.upper()} 0\0".encode(), "is no SHA-256"),
    ],
)
def test_what_is_no_object(content: bytes, fault: str) -> None:
    with pytest.raises(MalformedObject, match=fault):
        children_of(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_object_or_malformed(content: bytes) -> None:
    try:
        children = children_of(content)
    except MalformedObject:
        return
    assert all(len(child) == 64 for child in children)


def test_a_tree_names_each_object_once_and_its_root_last() -> None:
    assert ids_of(tree(A, tree(B, tree(C)), tree(C))) == [C, B, A]


def test_a_deep_tree_is_walked_without_recursion() -> None:
    deep = tree(A)
    for _ in range(90):  # protobuf's own limit is 100
        deep = tree(B, deep)
    assert ids_of(deep) == [A, B]


def test_a_tree_has_only_so_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MOST_OBJECTS", 3)
    assert ids_of(tree(A, tree(B), tree(C))) == [B, C, A]
    with pytest.raises(MalformedObject, match="more than 3 objects"):
        ids_of(tree(A, tree(B), tree(C), tree(C)))


@pytest.mark.parametrize("object_id", ["", "a", "g" * 64, "A" * 64, "é" * 64])
def test_an_id_that_is_none(object_id: str) -> None:
    with pytest.raises(MalformedObject, match="is no SHA-256 in lower-case hex"):
        ids_of(tree(A, tree(object_id)))


def test_an_error_is_addressed_to_who_asked() -> None:
    asked = pb.Message()
    asked.metadata.run_id, asked.metadata.message_id = 5, A
    asked.metadata.src_node_id, asked.metadata.dst_node_id = 1, 7
    asked.metadata.created_at, asked.metadata.ttl = 100.0, 50.0
    asked.metadata.message_type = "train"
    reply = error_reply(asked, 5, "offline", now=110.0)
    meta = reply.metadata
    assert (meta.run_id, meta.src_node_id, meta.dst_node_id) == (5, 7, 1)
    assert (meta.reply_to_message_id, meta.message_type, meta.ttl) == (A, "train", 40.0)
    assert (reply.error.code, reply.error.reason) == (5, "offline")
    assert meta.message_id == object_id_of(root_of(reply))
    assert children_of(root_of(reply)) == []
