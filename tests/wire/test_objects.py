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
    pack,
    reply_with,
    root_of,
    tree_of,
    unpack,
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


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_objects_in_one_piece_are_the_same_objects(contents: list[bytes]) -> None:
    these = {object_id_of(content): content for content in contents}
    packed = pack(these)
    assert unpack(packed) == unpack(memoryview(packed)) == these
    assert list(unpack(packed)) == list(these)


@pytest.mark.parametrize("missing", [1, 7, 45])
def test_a_piece_that_ends_too_early_is_none(missing: int) -> None:
    packed = pack({A: b"weights"})
    with pytest.raises(MalformedObject, match="in the middle"):
        unpack(packed[:-missing])


def test_the_tree_of_objects_is_what_their_heads_say() -> None:
    parts = {A: make_object("Array", b""), B: make_object("Array", b"x", A)}
    root = f"RecordDict {A},{B} 0\0".encode()
    assert tree_of({**parts, C: root}) == tree(C, tree(A), tree(B, tree(A)))


@pytest.mark.parametrize(
    ("these", "words"),
    [({}, "no object"), ({B: make_object("Array", b"", A)}, "before its children")],
)
def test_objects_that_are_no_tree(these: dict[str, bytes], words: str) -> None:
    with pytest.raises(MalformedObject, match=words):
        tree_of(these)


def test_a_reply_is_named_by_its_root_and_goes_back_to_who_asked() -> None:
    asked = pb.Message()
    asked.metadata.run_id, asked.metadata.message_id = 5, C
    asked.metadata.src_node_id, asked.metadata.dst_node_id = 1, 7
    asked.metadata.src_task_id = 11
    reply = reply_with(asked, A, ttl=60.0, now=3.0)
    root = root_of(reply, A)
    assert children_of(root) == [A]
    assert reply.metadata.message_id == object_id_of(root)
    assert reply.HasField("content")
    meta = reply.metadata
    assert (meta.src_node_id, meta.dst_node_id, meta.reply_to_message_id) == (7, 1, C)
    assert (meta.run_id, meta.dst_task_id, meta.ttl, meta.created_at) == (5, 11, 60.0, 3.0)
