"""Objects: what messages of Flower 1.23 and later say, in parts that are named by their hash.

An object is a head and a body: `Type child,child… length`, a zero byte, then `length` bytes. Its id
is the SHA-256 of all of it, in hex. A message is the root of a tree of them; equal parts have equal
ids, so that they travel and are kept once.

Source: the objects of Flower 1.23 to 1.42, flwr/common/inflatable.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from superlink_trio.wire import messages_pb2 as pb

MOST_OBJECTS = 100_000
"""Objects of one tree: a model of as many arrays is larger than any message."""

_ID_LENGTH = 64
_DIGITS = frozenset("0123456789abcdef")
_LONGEST_HEAD = 2**24


class MalformedObject(ValueError):
    """An object, an id or a tree that is none; the message says why."""


def object_id_of(content: bytes) -> str:
    """Name an object."""
    return hashlib.sha256(content).hexdigest()


def make_object(kind: str, body: bytes) -> bytes:
    """Make an object without children."""
    return f"{kind}  {len(body)}".encode() + b"\0" + body


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
    reply = pb.Message(error=pb.Error(code=code, reason=reason))
    meta = asked.metadata
    reply.metadata.run_id = meta.run_id
    reply.metadata.src_node_id, reply.metadata.dst_node_id = meta.dst_node_id, meta.src_node_id
    reply.metadata.reply_to_message_id = meta.message_id
    reply.metadata.group_id, reply.metadata.message_type = meta.group_id, meta.message_type
    reply.metadata.created_at = now
    reply.metadata.ttl = max(0.0, meta.created_at + meta.ttl - now)
    reply.metadata.message_id = object_id_of(root_of(reply))
    return reply


def root_of(message: pb.Message) -> bytes:
    """Make the object that a message without content is."""
    bare = pb.Message()
    bare.CopyFrom(message)
    bare.metadata.message_id = ""
    return make_object("Message", bare.SerializeToString(deterministic=True))
