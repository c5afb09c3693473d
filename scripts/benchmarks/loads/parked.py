"""Many nodes, each with a connection of its own and one held call.

gRPC's own clients would need more memory and time for this than the server: here the few frames of
HTTP/2 that it takes are written by hand.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator

import attrs
from peering.client import fleet
from peering.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    PREFACE,
    Kind,
    block,
    frame,
    grpc_fields,
    grpc_message,
    settings,
    take_frames,
)

from superlink_trio.wire import superlink_pb2 as pb

# Nodes that are parked before what has come meanwhile is read. A burst would overflow the queues of
# connections and calls that wait to be taken up, but each node is created by a call of its own.
_BATCH = 100

# Without a dynamic table every block of headers can be read by itself.
_OPENING = PREFACE + settings({HEADER_TABLE_SIZE: 0})
_CALL = frame(Kind.HEADERS, END_HEADERS, 1, block(grpc_fields("PullTaskIns")))
_STATUS_OK = b"\x0bgrpc-status\x010"


@attrs.define(eq=False)
class Node:
    """One connection, from its opening to the answer."""

    connection: socket.socket
    settled: bool = False
    """The server has told its settings: it has taken notice of the connection."""
    ended: bool = False
    answered_ok: bool = False
    _unread: bytearray = attrs.field(factory=bytearray)
    _body: bytes = b""

    def read(self) -> None:
        """Take in what has come, and answer what the protocol wants answered."""
        try:
            received = self.connection.recv(65536)
        except ConnectionError:
            received = b""
        self.ended = not received
        self._unread += received
        for kind, flags, payload in take_frames(self._unread):
            if kind in (Kind.SETTINGS, Kind.PING) and not flags & ACK:
                self.settled = True
                reply = payload if kind == Kind.PING else b""
                self.connection.sendall(frame(Kind(kind), ACK, 0, reply))
            elif kind == Kind.DATA:
                self._body += payload
            elif kind == Kind.HEADERS and flags & END_STREAM:
                self.answered_ok = _STATUS_OK in payload and self._body == grpc_message(b"")
                self.ended = True


def nodes(address: str, number: int) -> Iterator[dict[str, float]]:
    """Report once all calls are under way, and once more when all were answered or lost."""
    selector, parked = selectors.DefaultSelector(), list[Node]()
    client = fleet(address, rest=False, timeout=120)
    for _ in range(number):
        if len(parked) % _BATCH == 0:
            _attend(selector, 0)
        node = _park(address, client.create_node())
        selector.register(node.connection, selectors.EVENT_READ, node)
        parked.append(node)
    while not all(node.settled or node.ended for node in parked):
        _attend(selector, 0.1)
    yield {"parked": sum(not node.ended for node in parked)}
    while selector.get_map():
        _attend(selector, 1)
    yield {"answered_ok": sum(node.answered_ok for node in parked), "last": time.monotonic()}


def _park(address: str, me: pb.Node) -> Node:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    pull = grpc_message(pb.PullTaskInsRequest(node=me).SerializeToString())
    connection.sendall(_OPENING + _CALL + frame(Kind.DATA, END_STREAM, 1, pull))
    return Node(connection)


def _attend(selector: selectors.BaseSelector, seconds: float) -> None:
    """Read what has come; wait at most so many seconds for something."""
    for key, _ in selector.select(seconds):
        key.data.read()
        if key.data.ended:
            selector.unregister(key.fileobj)
            key.data.connection.close()
