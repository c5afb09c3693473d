"""Carrying an attack out: its connections, and what the server does to them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, islice

import attrs
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame
from peering.http2 import PREFACE, serialized, take_frames

from abusing.attacks import Attack, Pieces, Target

_MOST_FRAMES = 200_000
_MOST_CONNECTIONS = 2000
_READ = 65_536
_CONNECT = 10.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


@attrs.define
class Tally:
    """What an attack sent, and what the server did about it."""

    frames: int = 0
    connections: int = 0
    refused_connections: int = 0
    ended: int = 0
    """Connections that the server ended."""
    said: Counter[str] = attrs.field(factory=Counter)
    """GOAWAY and RST_STREAM with their codes, HTTP/1.1 answers with their status."""

    @property
    def enough(self) -> bool:
        """Whether that is as much as an attack may send."""
        return self.frames >= _MOST_FRAMES

    def summary(self) -> str:
        """Say in a few words what the server did."""
        said = [f"{what} ({count:,})" for what, count in self.said.most_common(3)]
        if self.ended:
            said.append(f"ended {self.ended:,} connections")
        if self.refused_connections:
            said.append(f"did not accept {self.refused_connections:,}")
        return ", ".join(said) or "served on"


async def assault(attack: Attack, target: Target, tally: Tally) -> None:
    """Attack until cancelled, but with no more frames and connections than enough."""
    async with trio.open_nursery() as nursery:
        for _ in range(attack.connections):
            nursery.start_soon(_again_and_again, attack, target, tally)


async def _again_and_again(attack: Attack, target: Target, tally: Tally) -> None:
    host, _, port = target.address.rpartition(":")
    while not tally.enough and tally.connections < _MOST_CONNECTIONS:
        try:
            with trio.fail_after(_CONNECT):
                stream = await trio.open_tcp_stream(host, int(port))
        except (OSError, trio.TooSlowError):
            tally.refused_connections += 1
            await trio.sleep(0.1)
            continue
        tally.connections += 1
        try:
            await _once(attack, target, stream, tally)
        except* (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            tally.ended += 1
        finally:
            await trio.aclose_forcefully(stream)


async def _once(attack: Attack, target: Target, transport: trio.SocketStream, tally: Tally) -> None:
    stream: trio.abc.Stream = transport
    if attack.handshake:
        stream = await _secure(transport, target, "http/1.1" if attack.text else "h2")
    pieces: Pieces = attack.script(target)
    if not attack.text:
        opening = PREFACE + SettingsFrame(settings=dict(attack.settings)).serialize()
        pieces = chain([opening], pieces)
    async with trio.open_nursery() as nursery:
        if attack.reads:
            nursery.start_soon(_read, stream, attack.text, tally)
        while not tally.enough and (batch := list(islice(pieces, attack.at_once))):
            await stream.send_all(serialized(batch))
            tally.frames += len(batch)
        await trio.sleep(attack.rest_after)
        nursery.cancel_scope.cancel()


async def _secure(stream: trio.SocketStream, target: Target, protocol: str) -> trio.abc.Stream:
    """Shake hands, where the target speaks TLS. Raises trio.BrokenResourceError."""
    if target.tls is None:
        return stream
    target.tls.set_alpn_protocols([protocol])
    secured = trio.SSLStream(stream, target.tls, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(_CONNECT):
        await secured.do_handshake()
    return secured


async def _read(stream: trio.abc.Stream, text: bool, tally: Tally) -> None:
    """Note what the server says. Raises trio.EndOfChannel when it ends the connection."""
    unread = bytearray()
    while data := await stream.receive_some(_READ):
        if text:
            tally.said.update(f"answer {status.decode()}" for status in _STATUS.findall(data))
            continue
        unread += data
        for frame in take_frames(unread):
            if isinstance(frame, GoAwayFrame):
                tally.said[f"GOAWAY {_code(frame.error_code)}"] += 1
            elif isinstance(frame, RstStreamFrame):
                tally.said[f"reset {_code(frame.error_code)}"] += 1
    raise trio.EndOfChannel


def _code(number: int) -> str:
    try:
        return ErrorCodes(number).name
    except ValueError:
        return str(number)
