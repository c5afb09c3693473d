"""Carrying an attack out: its connections, and what the server does to them."""

from __future__ import annotations

import trio
from peering.http2 import PREFACE, settings

from abusing.attacks import Attack
from abusing.wire import Ended, Tally, Target, Wire, connect, secure

_MOST_FRAMES = 200_000
_MOST_CONNECTIONS = 2000


async def assault(attack: Attack, target: Target, tally: Tally) -> None:
    """Attack until cancelled, but with no more frames and connections than enough."""
    async with trio.open_nursery() as nursery:
        for _ in range(attack.connections):
            nursery.start_soon(_again_and_again, attack, target, tally)


async def _again_and_again(attack: Attack, target: Target, tally: Tally) -> None:
    while tally.frames < _MOST_FRAMES and tally.connections < _MOST_CONNECTIONS:
        try:
            stream = await connect(target)
        except (OSError, trio.TooSlowError):
            tally.refused_connections += 1
            await trio.sleep(0.1)
            continue
        tally.connections += 1
        try:
            await _once(attack, target, stream, tally)
        except* (Ended, trio.BrokenResourceError):
            tally.ended += 1
        finally:
            await trio.aclose_forcefully(stream)


async def _once(attack: Attack, target: Target, transport: trio.SocketStream, tally: Tally) -> None:
    stream: trio.abc.Stream = transport
    if attack.handshake:
        stream = await secure(transport, target, "http/1.1" if attack.text else "h2")
    wire = Wire(stream, tally)
    async with trio.open_nursery() as nursery:
        if attack.reads:
            nursery.start_soon(wire.read_text if attack.text else wire.read_frames)
        if not attack.text:
            await wire.send(PREFACE + settings(attack.settings), 1)
        for data, frames in attack.script(target):
            await wire.send(data, frames)
            if tally.frames >= _MOST_FRAMES:
                break
        await trio.sleep(attack.rest_after)
        nursery.cancel_scope.cancel()
