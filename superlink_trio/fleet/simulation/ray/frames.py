"""What the SuperLink and the process that holds Ray say to each other, and how.

A frame is a pickled message and byte strings beside it, which are not copied into a pickle. Both
ends are of this package and this user, one has started the other, and nobody else can reach the
socket between them: that is why pickles are safe here.

    u32 length of the message, u32 number of parts, u64 length of each part; message; parts
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from superlink_trio.bulk import LARGE
from superlink_trio.fleet.simulation.backend import App
from superlink_trio.fleet.simulation.ray.settings import Settings
from superlink_trio.wire.splice import Buffer

_HEAD = struct.Struct("!II")
_LENGTH = struct.Struct("!Q")


@attrs.frozen
class Opening:
    """The first word, to the driver. `directory` is short, private and goes with the backend."""

    app: App
    settings: Settings
    directory: Path


@attrs.frozen
class Share:
    """To the driver: a content that jobs will name by this number lies in a file."""

    content: int
    path: Path


@attrs.frozen
class Forget:
    """To the driver: no job will name this content any more."""

    content: int


@attrs.frozen
class Run:
    """To the driver: run a job. Parts: the job as `packing` packed it, its state or nothing."""

    number: int
    content: int | None


@attrs.frozen
class Cancel:
    """To the driver: nobody waits for this job any more."""

    number: int


@attrs.frozen
class Connected:
    """From the driver: Ray is there; now the workers load the app."""


@attrs.frozen
class Ready:
    """From the driver: the workers have loaded the app."""

    capacity: int


@attrs.frozen
class NotOpened:
    """From the driver: why it cannot be opened, and what kind of error that is."""

    error: type[Exception]
    reason: str


@attrs.frozen
class Done:
    """From the driver. Parts: the outcome as `packing` packed it, its content, its state."""

    number: int


@attrs.frozen
class Died:
    """From the driver: the worker that ran a job is gone, or Ray lost what it answered."""

    number: int
    reason: str


@attrs.frozen
class Dead:
    """From the driver: nothing can be run any more."""

    reason: str


Message: TypeAlias = (
    Opening | Share | Forget | Run | Cancel | Connected | Ready | NotOpened | Done | Died | Dead
)


class Frames:
    """One end of the connection. Sending never waits; what is sent leaves while `pump` runs."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()
        self._outgoing, self._to_send = trio.open_memory_channel[Sequence[Buffer]](math.inf)

    def send(self, message: Message, *parts: Buffer) -> None:
        """Send a message, after those sent before."""
        pickled = pickle.dumps(message)
        head = [_HEAD.pack(len(pickled), len(parts)), *(_LENGTH.pack(len(part)) for part in parts)]
        small = [*head, pickled]
        pieces: list[Buffer] = []
        for part in parts:
            if len(part) < LARGE:
                small.append(bytes(part))
            else:
                pieces += [b"".join(small), part]
                small = []
        self._outgoing.send_nowait([*pieces, b"".join(small)])

    async def pump(self) -> None:
        """Write what is sent; return when the other end is gone."""
        try:
            async for pieces in self._to_send:
                waiting = [*pieces]
                while self._to_send.statistics().current_buffer_used:
                    waiting += self._to_send.receive_nowait()
                for buffer in _gathered(waiting):
                    await self._stream.send_all(buffer)
        except trio.BrokenResourceError:
            return  # who receives will see it, and knows what it means

    async def receive(self) -> tuple[Message, list[bytes]]:
        """Give the next message and its parts. Raises trio.EndOfChannel when nobody is there."""
        length, count = _HEAD.unpack(await self._take(_HEAD.size))
        lengths = [_LENGTH.unpack(await self._take(_LENGTH.size))[0] for _ in range(count)]
        message: Message = pickle.loads(await self._take(length))
        return message, [await self._take(size) for size in lengths]

    async def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            missing = size - len(self._received)
            try:
                chunk = await self._stream.receive_some(max(missing, 65536))
            except trio.BrokenResourceError:
                chunk = b""
            if not chunk:
                raise trio.EndOfChannel
            self._received += chunk
        taken = bytes(memoryview(self._received)[:size])
        del self._received[:size]
        return taken

    async def aclose(self) -> None:
        """Close the connection; the other end sees that."""
        await self._stream.aclose()


def _gathered(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Join small neighbours, so that a burst of small frames is one write."""
    gathered: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) < LARGE:
            small.append(piece)
        else:
            gathered += [b"".join(small), piece]
            small = []
    return [piece for piece in (*gathered, b"".join(small)) if len(piece)]
