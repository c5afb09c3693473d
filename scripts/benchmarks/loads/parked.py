"""Many nodes, each with a connection of its own and one held call: `parked FLEET NUMBER`.

Reports once all calls are under way, and once more when all have been answered or lost. gRPC's own
clients would need more memory and time for this than the server: here the few frames of HTTP/2
that it takes are written by hand.

Source: RFC 9113, RFC 7541, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator

import attrs

from benchmarks.loads.flower import Client, create_node, pull_task_ins
from superlink_trio.wire import superlink_pb2 as pb

# Nodes that are parked before what has come meanwhile is read. A burst would overflow the queues of
# connections and calls that wait to be taken up, but each node is created by a call of its own.
_BATCH = 100

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Without a dynamic table every block of headers can be read by itself.
_HEADER_TABLE_SIZE_0 = (1).to_bytes(2, "big") + (0).to_bytes(4, "big")
_STATUS_OK = b"\x0bgrpc-status\x010"
_EMPTY_MESSAGE = bytes(5)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def _opening(address: str, message: bytes) -> bytes:
    """Give all that a client sends to make a call."""
    post, http = b"\x83", b"\x86"
    path, authority, content_type, other = b"\x04", b"\x01", b"\x0f\x10", b"\x00"
    headers = (
        post
        + http
        + (path + _text("/flwr.proto.Fleet/PullTaskIns"))
        + (authority + _text(address))
        + (content_type + _text("application/grpc"))
        + (other + _text("te") + _text("trailers"))
    )
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, _HEADER_TABLE_SIZE_0)
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )


@attrs.define(eq=False)
class Node:
    """One connection, from its opening to the answer."""

    connection: socket.socket
    settled: bool = False
    """The server has told its settings: it has taken notice of the connection."""
    ended: bool = False
    answered_ok: bool = False
    _unread: bytes = b""
    _body: bytes = b""

    def read(self) -> None:
        """Take in what has come, and answer what the protocol wants answered."""
        try:
            received = self.connection.recv(65536)
        except ConnectionError:
            received = b""
        self.ended = not received
        self._unread += received
        for kind, flags, payload in self._frames():
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self.settled = True
                reply = payload if kind == _PING else b""
                self.connection.sendall(_frame(kind, _ACK, 0, reply))
            elif kind == _DATA:
                self._body += payload
            elif kind == _HEADERS and flags & _END_STREAM:
                self.answered_ok = _STATUS_OK in payload and self._body == _EMPTY_MESSAGE
                self.ended = True

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        while len(self._unread) >= (end := 9 + int.from_bytes(self._unread[:3], "big")):
            frame, self._unread = self._unread[:end], self._unread[end:]
            yield frame[3], frame[4], frame[9:]


def main(address: str, number: str) -> None:
    selector = selectors.DefaultSelector()
    fleet = Client("Fleet", address)
    nodes: list[Node] = []
    for _ in range(int(number)):
        if len(nodes) % _BATCH == 0:
            _attend(selector, 0)
        node = _park(address, create_node(fleet))
        selector.register(node.connection, selectors.EVENT_READ, node)
        nodes.append(node)
    while not all(node.settled or node.ended for node in nodes):
        _attend(selector, 0.1)
    print(json.dumps({"parked": sum(not node.ended for node in nodes)}), flush=True)
    while selector.get_map():
        _attend(selector, 1)
    answered_ok = sum(node.answered_ok for node in nodes)
    print(json.dumps({"answered_ok": answered_ok, "last": time.monotonic()}), flush=True)


def _park(address: str, node: pb.Node) -> Node:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(_opening(address, pull_task_ins(node)))
    return Node(connection)


def _attend(selector: selectors.BaseSelector, seconds: float) -> None:
    """Read what has come; wait at most so many seconds for something."""
    for key, _ in selector.select(seconds):
        key.data.read()
        if key.data.ended:
            selector.unregister(key.fileobj)
            key.data.connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
