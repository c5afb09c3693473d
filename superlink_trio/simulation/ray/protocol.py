"""Messages between the SuperLink and the process that holds Ray, and what carries them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from superlink_trio.processes.frames import Receiver, pack
from superlink_trio.simulation.backend import App
from superlink_trio.simulation.parcels import Part
from superlink_trio.simulation.ray.settings import Settings


@attrs.frozen
class Opening:
    """The first message, to the driver. `directory` is short, private and goes with the backend."""

    app: App
    settings: Settings
    directory: Path


@attrs.frozen
class Run:
    """To the driver: run a parcel's job, which is pickled once, for the worker."""

    number: int
    job: bytes
    content: Part
    state: Part
    answers: str


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
    """From the driver: the pickled outcome of a job, its large parts beside it."""

    number: int
    outcome: bytes
    content: Part
    state: Part


@attrs.frozen
class Died:
    """From the driver: the worker that ran a job is gone, or Ray lost what it answered."""

    number: int
    reason: str


@attrs.frozen
class Dead:
    """From the driver: nothing can be run any more."""

    reason: str


Message: TypeAlias = Opening | Run | Cancel | Connected | Ready | NotOpened | Done | Died | Dead


class Frames:
    """One end of the connection. Sending never waits; what is sent leaves while `pump` runs."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._receiver = Receiver(stream)
        self._outgoing, self._to_send = trio.open_memory_channel[bytes](math.inf)

    def send(self, message: Message) -> None:
        """Send a message, after those sent before."""
        self._outgoing.send_nowait(pack(message))

    async def pump(self) -> None:
        """Write what is sent; return when the other end is gone."""
        try:
            async for frame in self._to_send:
                burst = [frame]
                while self._to_send.statistics().current_buffer_used:
                    burst.append(self._to_send.receive_nowait())
                await self._stream.send_all(b"".join(burst))
        except trio.BrokenResourceError:
            return  # who receives sees it as well, and knows what it means

    async def receive(self) -> Message:
        """Give the next message. Raises trio.EndOfChannel when nobody is there any more.

        If cancelled, nothing is lost.
        """
        try:
            message: Message = await self._receiver.receive()
        except (EOFError, trio.BrokenResourceError):
            raise trio.EndOfChannel from None
        return message
