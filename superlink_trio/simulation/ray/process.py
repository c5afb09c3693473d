"""The process that holds Ray, as the SuperLink starts it, reads its output and sees it end."""

from __future__ import annotations

import collections
import logging
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from superlink_trio.simulation import children
from superlink_trio.simulation.backend import BackendDied
from superlink_trio.simulation.ray.protocol import (
    Connected,
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

# Lines of the driver's output that are reported when it ends unasked.
_KEPT_LINES = 10

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_log = logging.getLogger(__name__)


class RayProcess:
    """The process that holds Ray, and its output."""

    def __init__(self, process: trio.Process, frames: Frames) -> None:
        self.frames = frames
        self._process = process
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._unfinished = b""

    async def open(self, opening: Opening) -> int:
        """Wait until workers have loaded the app, and give their number."""
        self.frames.send(opening)
        message: Message | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.frames.pump)
            nursery.start_soon(self.pass_on_lines)
            with trio.move_on_after(_CONNECTING):
                message = await self._receive()
            if isinstance(message, Connected):
                message = await self._receive()
            nursery.cancel_scope.cancel()
        match message:
            case Ready(capacity):
                return capacity
            case NotOpened(error, reason):
                raise error(reason)
            case Dead(reason):
                raise BackendDied(reason)
        raise ConnectionError(
            f"Ray {_where(opening.settings)} did not answer within {_CONNECTING:.0f} s"
        )

    async def _receive(self) -> Message:
        try:
            return await self.frames.receive()
        except trio.EndOfChannel:
            return Dead(await self.describe_exit())

    async def pass_on_lines(self) -> None:
        """Log what the driver, Ray and the apps print."""
        assert self._process.stdout is not None
        async for chunk in self._process.stdout:
            *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
            for line in lines:
                text = _COLOURS.sub("", line.decode(errors="replace")).rstrip()
                if text:
                    self._lines.append(text)
                    _log.info("%s", text)

    async def describe_exit(self) -> str:
        """Describe how the process ended, when it has closed the connection."""
        with trio.move_on_after(_GRACE):
            await self._process.wait()
        how = children.how_ended(self._process) or "closed its connection"
        return "\n".join([f"the process that holds Ray {how}", *self._lines])


@asynccontextmanager
async def ray_process(settings: Settings, directory: Path) -> AsyncIterator[RayProcess]:
    """Start the process; its whole session has ended when the block is left. Raises OSError."""
    process, stream = await children.start(
        _command, env=_environment(settings, directory), output_to_pipe=True
    )
    try:
        yield RayProcess(process, Frames(stream))
    finally:
        if left := await children.end(process, stream, _GRACE):
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


def _where(settings: Settings) -> str:
    return "on this machine" if settings.address is None else f"at {settings.address}"
