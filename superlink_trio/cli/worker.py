"""A worker as a whole process: started by a SuperLink of several, and by nobody else."""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

from superlink_trio.cli.running import OK, Link, run
from superlink_trio.logs import rendering
from superlink_trio.processes import frames

# What takes long to import is there before it is said what to do: other workers start meanwhile.
from superlink_trio.workers import logs
from superlink_trio.workers.worker import serve_part

if TYPE_CHECKING:
    from superlink_trio.workers.messages import Start

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve what the parent says, until it wants no more or has ended.

    SIGTERM stops this worker; the parent starts another in its place.
    """
    connection = socket.socket(fileno=int(sys.argv.pop()))
    try:
        start: Start = frames.read(connection.makefile("rb"))
    except EOFError:
        sys.exit(OK)
    for descriptor in (connection.fileno(), start.log.pipe, *_listening(start)):
        os.set_inheritable(descriptor, False)
    pipe = logs.LogPipe(start.log.pipe, start.log.coloured)
    rendering.configure(start.log.level, start.log.format, pipe, start.number)
    logs.set_level(start.log.level, start.number)
    runner = partial(serve_part, start, connection)
    sys.exit(run(lambda: runner, start.config, reload=_not_here))


def _listening(start: Start) -> list[int]:
    return [each for descriptors in start.sockets.values() for each in descriptors]


async def _not_here(_: Link) -> None:
    _log.warning("A worker reads nothing again by itself: send SIGHUP to process %d", os.getppid())
