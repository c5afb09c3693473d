"""A worker's log on its way to the parent's: whole records, however many lines each has."""

from __future__ import annotations

import logging
import os

import attrs
import trio

from superlink_trio.logs import rendering

# Between two records. None has it inside: control characters are spelled out.
_END = b"\0"

# What says the same in every worker: the first one's lines are enough, errors aside.
_ALIKE = ("config", "credentials", "handle", "superlink", "transport.listening")

# What the parent says for all of them: the least that is a worker's own.
_OF_THE_PARENT = {"cli.running": logging.WARNING, "config.changes": logging.ERROR}


@attrs.frozen
class LogPipe:
    """The worker's end, as a stream."""

    descriptor: int
    coloured: bool

    def write(self, text: str) -> None:
        """Write a record; waits while the pipe is full."""
        data = text.encode(errors="backslashreplace") + _END
        while data:
            data = data[os.write(self.descriptor, data) :]

    def flush(self) -> None:
        """See `write`: nothing is kept back."""

    def isatty(self) -> bool:
        """Whether the parent's log is read on a terminal."""
        return self.coloured


def set_level(level: str, number: int) -> None:
    """Let out of a worker's log what is less than `level`, and what is said elsewhere."""
    rendering.set_level(level)
    alike = dict.fromkeys(_ALIKE, logging.ERROR) if number > 1 else {}
    for name, least in {**alike, **_OF_THE_PARENT}.items():
        logger = logging.getLogger(f"superlink_trio.{name}")
        logger.setLevel(logging.NOTSET if level == "debug" else least)


async def pass_on(pipe: trio.abc.ReceiveStream) -> None:
    """Write to this process's log what comes out of a worker's, until that has ended."""
    rest = b""
    async for chunk in pipe:
        *records, rest = (rest + chunk).split(_END)
        for record in records:
            rendering.pass_on(record.decode(errors="replace"))
