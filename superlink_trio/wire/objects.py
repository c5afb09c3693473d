"""Objects: what messages of Flower 1.23 and later say, in parts that are named by their hash.

An object is a head and a body: `Type child,child… length`, a zero byte, then `length` bytes. Its id
is the SHA-256 of all of it, in hex. A message is the root of a tree of them; equal parts have equal
ids, so that they travel and are kept once.

Source: the objects of Flower 1.23 to 1.42, flwr/common/inflatable.py.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping

from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.splice import Buffer

MOST_OBJECTS = 100_000
"""Objects of one tree: a model of as many arrays is larger than any message."""

_ID_LENGTH = 64
_DIGITS = frozenset("0123456789abcdef")
_LONGEST_HEAD = 2**24

# What stands before an object among others: its id, and its length.
_PACKED = struct.Struct("!32sQ")


class MalformedObject(ValueError):
    """An object, an id or a tree that is none; the message says why."""


def object_id_of(content: bytes) -> str:
    """Name an object."""
    return hashlib.sha256(content).hexdigest()


def make_object(kind: str, body: bytes, child: str = "") -> bytes:
    """Make an object, with the id of its child if it has one."""
    return f"{kind} {child} {len(body)}".encode() + b"\0" + body


def ids_asked(texts: Iterable[str]) -> list[str]:
    """Give ids that somebody asks for, each once. Raises MalformedObject.

    "" is what a refused push was answered with, and is asked for like any other.
    """
    return [text and _checked(text) for text in dict.fromkeys(texts)]


def children_of(content: bytes) -> list[str]:
    """Read the ids of an object's children out of its head. Raises MalformedObject."""
    end = content.find(b"\0", 0, _LONGEST_HEAD)
    fields = content[: max(end, 0)].split(b" ")
    if len(fields) != 3 or not fields[0] or not fields[2].isdigit():
        raise MalformedObject("it does not begin with its type, its children and its length")
    if int(fields[2]) != len(content) - end - 1:
        raise MalformedObject(f"its head says {int(fields[2])} bytes, there are others")
    return [_checked(child.decode("ascii", "replace")) for child in fields[1].split(b",") if child]


def ids_of(tree: pb.ObjectTree) -> list[str]:
    """Give the ids in a tree, each once, children before their parents. Raises MalformedObject."""
    found: dict[str, None] = {}
    for count, node in enumerate(_walk(tree)):
        if count >= MOST_OBJECTS:
            raise MalformedObject(f"a tree has more than {MOST_OBJECTS} objects")
        found[_checked(node.object_id)] = None
    return list(found)


def pack(objects: Mapping[str, bytes]) -> bytes:
    """Put objects into one piece, in their order."""
    parts = []
    for object_id, content in objects.items():
        parts += [_PACKED.pack(bytes.fromhex(object_id), len(content)), content]
    return b"".join(parts)


def unpack(packed: Buffer) -> dict[str, bytes]:
    """Give the objects in one piece, by their ids. Raises MalformedObject."""
    objects, view, start = {}, memoryview(packed), 0
    while start < len(view):
        if len(view) - start < _PACKED.size:
            raise MalformedObject("objects in one piece end in the middle of one")
        object_id, length = _PACKED.unpack_from(view, start)
        start += _PACKED.size
        if len(view) - start < length:
            raise MalformedObject("objects in one piece end in the middle of one")
        objects[object_id.hex()] = bytes(view[start : start + length])
        start += length
    return objects


def tree_of(objects: Mapping[str, bytes]) -> pb.ObjectTree:
    """Give the tree of objects, children before their parents: the last one is its root.

    Raises MalformedObject.
    """
    trees: dict[str, pb.ObjectTree] = {}
    tree = None
    for object_id, content in objects.items():
        children = children_of(content)
        if not all(child in trees for child in children):
            raise MalformedObject(f"object {object_id} comes before its children")
        tree = trees[object_id] = pb.ObjectTree(
            object_id=object_id, children=[trees[child] for child in children]
        )
    if tree is None:
        raise MalformedObject("there is no object")
    return tree


def _walk(tree: pb.ObjectTree) -> Iterator[pb.ObjectTree]:
    # Not by recursion: a tree may be as deep as protobuf allows.
    stack: list[tuple[pb.ObjectTree, bool]] = [(tree, False)]
    while stack:
        node, entered = stack.pop()
        if entered or not node.children:
            yield node
            continue
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.children))


def _checked(object_id: str) -> str:
    if len(object_id) != _ID_LENGTH or not _DIGITS.issuperset(object_id):
        raise MalformedObject(f"{object_id[:80]!r} is no SHA-256 in lower-case hex")
    return object_id


def error_reply(asked: pb.Message, code: int, reason: str, *, now: float) -> pb.Message:
    """Make the message that stands in for a reply that will not come.

    Its id is that of its only object, see `root_of`.
    """
    meta = asked.metadata
    reply = _reply_to(asked, ttl=max(0.0, meta.created_at + meta.ttl - now), now=now)
    reply.error.code, reply.error.reason = code, reason
    reply.metadata.message_id = object_id_of(root_of(reply))
    return reply


def reply_with(asked: pb.Message, content: str, *, ttl: float, now: float) -> pb.Message:
    """Make the message that replies with the object of this id."""
    reply = _reply_to(asked, ttl=ttl, now=now)
    reply.content = b""
    reply.metadata.message_id = object_id_of(root_of(reply, content))
    return reply


def _reply_to(asked: pb.Message, *, ttl: float, now: float) -> pb.Message:
    reply, meta = pb.Message(), asked.metadata
    reply.metadata.run_id = meta.run_id
    reply.metadata.src_node_id, reply.metadata.dst_node_id = meta.dst_node_id, meta.src_node_id
    reply.metadata.reply_to_message_id = meta.message_id
    reply.metadata.group_id, reply.metadata.message_type = meta.group_id, meta.message_type
    reply.metadata.created_at, reply.metadata.ttl = now, ttl
    if meta.HasField("src_task_id"):
        reply.metadata.dst_task_id = meta.src_task_id
    return reply


def root_of(message: pb.Message, content: str = "") -> bytes:
    """Make the object that a message is, with the id of what it says if it says anything."""
    bare = pb.Message()
    bare.CopyFrom(message)
    bare.ClearField("content")
    bare.metadata.message_id = ""
    return make_object("Message", bare.SerializeToString(deterministic=True), content)
