"""The process that holds Ray, as the SuperLink starts it and sees it end."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from superlink_trio.simulation.backend import BackendDied
from superlink_trio.simulation.beside import beside, told_if_slow
from superlink_trio.simulation.children import ChildProcess
from superlink_trio.simulation.ray.protocol import (
    Dead,
    Frames,
    Message,
    NotOpened,
    Opening,
    Ready,
)
from superlink_trio.simulation.ray.settings import Settings

# How long Ray may take until it is there. It takes 2 to 3 s; several times that on a busy machine.
_CONNECTING = 60.0

# How long the driver's session has to end by itself, in seconds.
_GRACE = 5.0

_log = logging.getLogger(__name__)


@attrs.frozen
class RayProcess:
    """The process that holds Ray."""

    frames: Frames
    _process: ChildProcess

    async def open(self, opening: Opening) -> int:
        """Wait until workers have loaded the app, and give their number."""
        address = opening.settings.address
        self.frames.send(opening)
        doing = "Starting Ray" if address is None else f"Joining the Ray cluster at {address}"
        async with told_if_slow(_log, doing):
            try:
                with trio.fail_after(_CONNECTING):
                    await self._next_step()
            except trio.TooSlowError:
                where = "on this machine" if address is None else f"at {address}"
                raise ConnectionError(
                    f"Ray {where} did not answer within {_CONNECTING:.0f} s"
                ) from None
        async with told_if_slow(_log, f"Loading {opening.app}"):
            ready = await self._next_step()
        assert isinstance(ready, Ready)
        return ready.capacity

    async def _next_step(self) -> Message:
        """Wait for what the driver has done next. Raises what has kept it from that."""
        try:
            message = await self.frames.receive()
        except trio.EndOfChannel:
            message = Dead(await self.describe_exit())
        match message:
            case NotOpened(error, reason):
                raise error(reason)
            case Dead(reason):
                raise BackendDied(reason)
        return message

    async def describe_exit(self) -> str:
        """Describe how the process ended, when it has closed the connection."""
        with trio.move_on_after(_GRACE):
            await self._process.wait()
        how = self._process.ending or "closed its connection"
        return "\n".join([f"the process that holds Ray {how}", *self._process.last_lines])


@asynccontextmanager
async def ray_process(settings: Settings, directory: Path) -> AsyncIterator[RayProcess]:
    """Start the process; its whole session has ended when the block is left. Raises OSError."""
    process = await ChildProcess.start(_command, _environment(settings, directory))
    frames = Frames(process.stream)
    async with beside(partial(process.log_output, _log)):
        try:
            async with beside(frames.pump):
                yield RayProcess(frames, process)
        finally:
            if left := await process.end(_GRACE):
                _log.warning("Processes of Ray do not end: %s", ", ".join(map(str, left)))


def _command(descriptor: int) -> list[str]:
    return [sys.executable, "-m", "superlink_trio.simulation.ray.driver", str(descriptor)]


def _environment(settings: Settings, directory: Path) -> Mapping[str, str]:
    environment = {**os.environ, "RAY_COLOR_PREFIX": "0", "PYTHONUNBUFFERED": "1"}
    if settings.address is None:
        # Ray listens on all interfaces, whatever it is told; this token is what guards it. One of
        # our own, so that no other Ray of this user opens with it, nor this one with theirs.
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        environment.pop("RAY_AUTH_TOKEN", None)
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    return environment
